// Raw scores of every pair of candidate and step.
#ifndef CTRLIFT_SCORING_H
#define CTRLIFT_SCORING_H

#include "plan.h"
#include "product.h"

namespace CTRLIFT_SET {

// The history of one user: its real steps only.
struct History {
    long steps;        // that are real
    long stride;       // of rows over steps
    float* by_step;    // (steps, width)
    float* by_feature;  // (width, stride)
    float* from_key;   // (steps, stride of the first layer): the keys' part of the first layer, with its bias
    float* from_key_by_unit;  // (units, stride): the same for lanes over steps
};

// A block of pairs on their way through the scoring network.
struct Pairs {
    float* inputs;  // (width, one block)
    float* front;   // (most units, one block)
    float* back;
};

// What units `j` and following make of their sums.
template <int kActivation, int kCount>
CTRLIFT_INLINE void activated(const Layer& layer, long j, Vector (&x)[kCount]) {
    if (kActivation == kSigmoid) sigmoids(x);
    if (kActivation == kRelu) CTRLIFT_EACH(i, kCount) x[i] = at_least(x[i], all(0.0f));
    if (kActivation == kPrelu)
        CTRLIFT_EACH(i, kCount)
        x[i] = at_least(x[i], all(0.0f)) + layer.slope[j + i] * at_most(x[i], all(0.0f));
    if (kActivation == kDice) {
        Vector share[kCount];
        CTRLIFT_EACH(i, kCount) share[i] = x[i] * layer.gate_scale[j + i] + layer.gate_shift[j + i];
        sigmoids(share);
        CTRLIFT_EACH(i, kCount) x[i] = x[i] * (layer.slope[j + i] + (1.0f - layer.slope[j + i]) * share[i]);
    }
}

template <int kActivation, int kCount>
CTRLIFT_INLINE void activate_rows(const Layer& layer, long j, float* rows) {
    Vector x[kCount];
    CTRLIFT_EACH(i, kCount) x[i] = load(rows + i * kPairs);
    activated<kActivation>(layer, j, x);
    CTRLIFT_EACH(i, kCount) store(rows + i * kPairs, x[i]);
}

template <int kActivation>
static void activate_all(const Layer& layer, float* values, long vectors) {
    for (long v = 0; v < vectors; ++v) {
        float* const rows = values + v * kLanes;
        long j = 0;
        for (; j + kInStep <= layer.units; j += kInStep)
            activate_rows<kActivation, kInStep>(layer, j, rows + j * kPairs);
        for (; j < layer.units; ++j) activate_rows<kActivation, 1>(layer, j, rows + j * kPairs);
    }
}

static void activate(const Interest& model, const Layer& layer, float* values, long vectors) {
    switch (model.activation) {
        case kSigmoid: return activate_all<kSigmoid>(layer, values, vectors);
        case kRelu: return activate_all<kRelu>(layer, values, vectors);
        case kPrelu: return activate_all<kPrelu>(layer, values, vectors);
        case kDice: return activate_all<kDice>(layer, values, vectors);
        default: return;
    }
}

// Scores of the vector `v` of the pairs that went through all layers. Four sums, because one would wait for itself.
static Vector last_layer(const Interest& model, const float* values, long v) {
    const long units = model.layer[model.layers - 1].units;
    Vector sums[4] = {all(model.last_bias), all(0.0f), all(0.0f), all(0.0f)};
    long j = 0;
    for (; j + 4 <= units; j += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[i] += model.last[j + i] * load(values + (j + i) * kPairs + v * kLanes);
    for (; j < units; ++j) sums[0] += model.last[j] * load(values + j * kPairs + v * kLanes);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) * model.scale;
}

// From the first layer's affine output in `front` to what the last layer reads, which is returned.
static const float* hidden_layers(const Interest& model, const Pairs& pairs, long vectors) {
    float *from = pairs.front, *to = pairs.back;
    activate(model, model.layer[0], from, vectors);
    for (long i = 1; i < model.layers; ++i) {
        const Layer& layer = model.layer[i];
        product({layer.weights, layer.stride, from, kPairs, nullptr, 0, layer.bias, to, kPairs, layer.inputs, layer.units},
                vectors);
        activate(model, layer, to, vectors);
        float* const swapped = from;
        from = to;
        to = swapped;
    }
    return from;
}

// Whole vectors of candidates against every step: queries, from_query and scores have rows of kPairs.
static void score_candidates(const Interest& model, const History& history, const Pairs& pairs, const float* queries,
                             const float* from_query, float* scores, long vectors) {
    const Layer& first = model.layer[0];
    for (long s = 0; s < history.steps; ++s) {
        const float* key = history.by_step + s * model.width;
        for (long d = 0; d < model.width; ++d)
            for (long v = 0; v < vectors; ++v)
                store(pairs.inputs + d * kPairs + v * kLanes, key[d] * load(queries + d * kPairs + v * kLanes));
        product({first.weights, first.stride, pairs.inputs, kPairs, from_query, kPairs,
                 history.from_key + s * first.stride, pairs.front, kPairs, model.width, first.units},
                vectors);
        const float* values = hidden_layers(model, pairs, vectors);
        for (long v = 0; v < vectors; ++v) store(scores + s * kPairs + v * kLanes, last_layer(model, values, v));
    }
}

// A few candidates that fill half a vector or less, with several steps in one vector: lane i is candidate i % share of
// step i / share. The candidates' lanes in `queries` and `from_query` are repeated accordingly.
static void score_few(const Interest& model, const History& history, const Pairs& pairs, const float* queries,
                      const float* from_query, long query_stride, float* scores, long score_stride, long candidates,
                      long share) {
    const Layer& first = model.layer[0];
    const long together = kLanes / share;
    alignas(64) int32_t places[kLanes];
    for (long lane = 0; lane < kLanes; ++lane) places[lane] = static_cast<int32_t>(lane / share);
    for (long begin = 0; begin < history.steps; begin += kWidest * together) {
        const long vectors = history.steps - begin > together ? 2 : 1;
        for (long v = 0; v < vectors; ++v) {
            const long step = begin + v * together;
            for (long d = 0; d < model.width; ++d)
                store(pairs.inputs + d * kPairs + v * kLanes,
                      spread(history.by_feature + d * history.stride + step, places) * load(queries + d * query_stride));
            for (long j = 0; j < first.units; ++j)
                store(pairs.front + j * kPairs + v * kLanes,
                      spread(history.from_key_by_unit + j * history.stride + step, places) +
                          load(from_query + j * query_stride));
        }
        product({first.weights, first.stride, pairs.inputs, kPairs, pairs.front, kPairs, nullptr, pairs.front, kPairs,
                 model.width, first.units},
                vectors);
        const float* values = hidden_layers(model, pairs, vectors);
        for (long v = 0; v < vectors; ++v) {
            float found[kLanes];
            store(found, last_layer(model, values, v));
            for (long lane = 0; lane < kLanes; ++lane) {
                const long step = begin + v * together + lane / share;
                if (step < history.steps && lane % share < candidates)
                    scores[step * score_stride + lane % share] = found[lane];
            }
        }
    }
}

// Softmax over the steps of every candidate, in place; scores (steps, stride), at least one step.
static void normalise(float* scores, long steps, long stride, long vectors) {
    for (long v = 0; v < vectors; ++v) {
        float* column = scores + v * kLanes;
        Vector highest = load(column);
        for (long s = 1; s < steps; ++s) highest = at_least(load(column + s * stride), highest);
        Vector total = all(0.0f);
        for (long s = 0; s < steps; ++s) {
            const Vector weight = exp_of(load(column + s * stride) - highest);
            store(column + s * stride, weight);
            total += weight;
        }
        const Vector factor = 1.0f / total;
        for (long s = 0; s < steps; ++s) store(column + s * stride, factor * load(column + s * stride));
    }
}

}  // namespace CTRLIFT_SET

#endif
