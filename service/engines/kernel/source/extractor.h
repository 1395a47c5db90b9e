// A GRU over the history of each user, lanes over the hidden units.
#ifndef CTRLIFT_EXTRACTOR_H
#define CTRLIFT_EXTRACTOR_H

#include "plan.h"
#include "product.h"

namespace CTRLIFT_SET {

// out = row + weights (depth, stride) times a column: enough sums side by side that none waits for itself.
template <int kWidth>
static inline void column_product(const float* weights, long stride, const float* column, long depth, const float* row,
                                  float* out) {
    Vector sums[kWidth];
#pragma GCC unroll 12
    for (int v = 0; v < kWidth; ++v) sums[v] = load(row + v * kLanes);
    for (long k = 0; k < depth; ++k, weights += stride) {
        const Vector x = all(column[k]);
#pragma GCC unroll 12
        for (int v = 0; v < kWidth; ++v) sums[v] += x * load(weights + v * kLanes);
    }
#pragma GCC unroll 12
    for (int v = 0; v < kWidth; ++v) store(out + v * kLanes, sums[v]);
}

static void all_columns(const float* weights, long stride, const float* column, long depth, const float* row,
                        float* out) {
    const long vectors = stride / kLanes;
    long v = 0;
    for (; v + 12 <= vectors; v += 12)
        column_product<12>(weights + v * kLanes, stride, column, depth, row + v * kLanes, out + v * kLanes);
    for (; v + 3 <= vectors; v += 3) {
        if (v + 9 <= vectors) {
            column_product<9>(weights + v * kLanes, stride, column, depth, row + v * kLanes, out + v * kLanes);
            v += 6;
        } else {
            column_product<3>(weights + v * kLanes, stride, column, depth, row + v * kLanes, out + v * kLanes);
        }
    }
}

static void run_extractor(const Extractor& model, const Shape& shape, const float* sequence, const uint8_t* mask,
                          float* out, Arena& arena) {
    const long stride = model.stride, columns = padded(shape.steps);
    float* by_feature = arena.take(model.width, columns);
    float* gates = arena.take(shape.steps, 3 * stride);
    float* from_n = arena.take(shape.steps, stride);
    float* sums = arena.take(3, stride);
    float* state = arena.take(1, stride);
    if (arena.base == nullptr) return;
    for (long u = 0; u < shape.users; ++u) {
        const float* rows = sequence + u * shape.steps * model.width;
        const uint8_t* real = mask + u * shape.steps;
        for (long t = 0; t < shape.steps; ++t)
            for (long d = 0; d < model.width; ++d)
                by_feature[d * columns + t] = real[t] ? rows[t * model.width + d] : 0.0f;
        product({by_feature, columns, model.input_weight, 3 * stride, model.input_bias, 0, nullptr, gates, 3 * stride,
                 model.width, shape.steps},
                3 * stride / kLanes);
        for (long i = 0; i < stride; ++i) state[i] = 0.0f;
        for (long t = 0; t < shape.steps; ++t) {
            float* gate = gates + t * 3 * stride;
            if (real[t]) {
                for (long i = 0; i < stride; i += kLanes) {
                    store(from_n + i, load(gate + 2 * stride + i));
                    store(gate + 2 * stride + i, load(model.hidden_bias + i));
                }
                all_columns(model.hidden_weight, 3 * stride, state, model.hidden, gate, sums);
                for (long i = 0; i < stride; i += kLanes) {
                    const Vector reset = sigmoid(load(sums + i)), kept = sigmoid(load(sums + stride + i));
                    const Vector proposed = hyperbolic_tangent(load(from_n + i) + reset * load(sums + 2 * stride + i));
                    store(state + i, proposed + kept * (load(state + i) - proposed));
                }
            }
            for (long i = 0; i < model.hidden; ++i) out[(u * shape.steps + t) * model.hidden + i] = state[i];
        }
    }
}

}  // namespace CTRLIFT_SET

#endif
