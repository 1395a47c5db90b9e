// Whole vectors of candidates, through the attention and through the recurrence, on the tile unit: what whole.h does with
// vectors alone.
#ifndef CTRLIFT_TILED_H
#define CTRLIFT_TILED_H

#include "evolution.h"
#include "scoring.h"
#include "tiles.h"

namespace CTRLIFT_SET {

// How many steps go through a layer before the next one: its weights stay in the cache meanwhile.
constexpr long kChunk = 16;

// Scratch: inputs of the products and their sums. Products take turns between two places, because what was stored a
// moment ago is on its way to memory and tiles do not pass it.
struct Whole {
    Halves inputs[kMostLayers][kChunk];  // of the first layer only two
    float* sums[2];
    Halves state[kBlockVectors];
    float* gates[kBlockVectors];
};

// Only scores that the softmax levels out, of units between 0 and 1: halves hold seventeen bits, and where nothing bounds
// a sum that is not enough for a score.
static long tiled_layers(const Interest& model) {
    return model.activation == kSigmoid && model.softmax ? model.layers : 0;
}

static long slots_of(long layer) { return layer == 0 ? 2 : kChunk; }

static Whole take_whole(const Interest& model, Arena& arena) {
    Whole whole = {};
    long most = 0;
    for (long i = 0; i < tiled_layers(model); ++i) {
        for (long m = 0; m < slots_of(i); ++m) whole.inputs[i][m] = take_halves(arena, model.layer[i].inputs);
        if (model.layer[i].units > most) most = model.layer[i].units;
    }
    for (int place = 0; place < 2; ++place) whole.sums[place] = arena.take(padded(most), kLanes);
    for (long v = 0; v < kBlockVectors; ++v) {
        whole.state[v] = take_halves(arena, model.hidden);
        whole.gates[v] = arena.take(padded(model.blocks * model.hidden), kLanes);
    }
    return whole;
}

static void start_whole(const Interest& model, const Whole& whole) {
    for (long i = 0; i < tiled_layers(model); ++i)
        for (long m = 0; m < slots_of(i); ++m) clear(whole.inputs[i][m]);
    start_tiles();
}

static void end_whole() { end_tiles(); }

// Beyond this a rounded half would be infinite and what it leaves not a number.
constexpr float kLargest = 3e38f;

// The products of one step's key with one vector of queries.
static void put_products(const Interest& model, const float* key, const float* queries, const Halves& to) {
    for (long d = 0; d < model.width; d += 2, queries += 2 * kPairs) {
        const Vector even = within(key[d] * load(queries), kLargest);
        const Vector odd = d + 1 < model.width ? within(key[d + 1] * load(queries + kPairs), kLargest) : all(0.0f);
        put_halves(to, d / 2, even, odd);
    }
}

// What the units `j` and following make of their sums.
template <int kCount>
CTRLIFT_INLINE void of_sums(const float* offset, const float* sums, long j, Vector (&x)[kCount]) {
    CTRLIFT_EACH(i, kCount) x[i] = load(sums + (j + i) * kLanes) + offset[j + i];
    sigmoids(x);
}

template <int kCount>
CTRLIFT_INLINE void put_units(const float* offset, const float* sums, long j, const Halves& to) {
    Vector x[kCount];
    of_sums(offset, sums, j, x);
    CTRLIFT_EACH(i, kCount / 2) put_halves(to, j / 2 + i, x[2 * i], x[2 * i + 1]);
}

// Inputs of the next layer. Behind the last unit stand zeros, in the next layer's weights too, so that a pair may reach
// over it.
static void put_activated(long units, const float* offset, const float* sums, const Halves& to) {
    const Halves where = to;
    long j = 0;
    for (; j + 4 <= units; j += 4) put_units<4>(offset, sums, j, where);
    for (; j < units; j += 2) put_units<2>(offset, sums, j, where);
}

// The score of one vector from the last layer's sums.
static Vector last_score(const Interest& model, long units, const float* offset, const float* sums) {
    Vector totals[4] = {all(model.last_bias), all(0.0f), all(0.0f), all(0.0f)};
    long j = 0;
    for (; j + 4 <= units; j += 4) {
        Vector x[4];
        of_sums(offset, sums, j, x);
        CTRLIFT_EACH(i, 4) totals[i] += model.last[j + i] * x[i];
    }
    for (; j < units; ++j) {
        Vector x[1];
        of_sums(offset, sums, j, x);
        totals[0] += model.last[j] * x[0];
    }
    return ((totals[0] + totals[1]) + (totals[2] + totals[3])) * model.scale;
}

// One vector of candidates against a chunk of steps; the sums of one step are used after the next product.
static void score_chunk(const Interest& model, const History& history, const Whole& whole, const float* queries,
                        const float* from_query, float* scores, long first, long count) {
    const float* const keys = history.by_step + first * model.width;
    put_products(model, keys, queries, whole.inputs[0][0]);
    for (long i = 0; i < model.layers; ++i) {
        const Layer& layer = model.layer[i];
        for (long m = 0; m <= count; ++m) {
            if (m < count)
                tile_product({layer.tiles, layer.units, whole.inputs[i][i == 0 ? m % 2 : m],
                              i == 0 ? from_query : nullptr, kPairs, whole.sums[m % 2]});
            if (i == 0 && m + 1 < count)
                put_products(model, keys + (m + 1) * model.width, queries, whole.inputs[0][(m + 1) % 2]);
            if (m == 0) continue;
            const float* const offset = i == 0 ? history.from_key + (first + m - 1) * layer.stride : layer.bias;
            const float* const sums = whole.sums[(m - 1) % 2];
            if (i + 1 < model.layers)
                put_activated(layer.units, offset, sums, whole.inputs[i + 1][m - 1]);
            else
                store(scores + (first + m - 1) * kPairs, last_score(model, layer.units, offset, sums));
        }
    }
}

static void score_whole(const Interest& model, const History& history, const Pairs& pairs, const Whole& whole,
                        const float* queries, const float* from_query, float* scores, long vectors) {
    if (tiled_layers(model) == 0)
        return score_candidates(model, history, pairs, queries, from_query, scores, vectors);
    for (long v = 0; v < vectors; ++v)
        for (long first = 0; first < history.steps; first += kChunk) {
            const long left = history.steps - first, at = v * kLanes;
            score_chunk(model, history, whole, queries + at, from_query + at, scores + at, first,
                        left < kChunk ? left : kChunk);
        }
}

// One vector of the recurrence in one step: the products' sums, what the step brings to them, its share.
struct Cells {
    long hidden;
    const float *sums, *before, *outside;
    Vector share;
    float* state;
    Halves to;
};

template <bool kUpdates, int kCount>
CTRLIFT_INLINE void next_units(const Cells& cells, long j) {
    const long hidden = cells.hidden, to_reset = kUpdates ? hidden : 0;
    const float *const updates = cells.sums + j * kLanes, *const resets = updates + to_reset * kLanes;
    const float *const recurrents = resets + hidden * kLanes, *const before = cells.before + j;
    float* const rows = cells.state + j * kPairs;
    Vector state[kCount], share[kCount], update[kCount], reset[kCount], recurrent[kCount], outside[kCount];
    CTRLIFT_EACH(i, kCount) {
        share[i] = cells.share;
        state[i] = load(rows + i * kPairs);
        update[i] = load(updates + i * kLanes) + before[i];
        reset[i] = load(resets + i * kLanes) + before[to_reset + i];
        recurrent[i] = load(recurrents + i * kLanes) + before[to_reset + hidden + i];
        outside[i] = all(cells.outside[j + i]);
    }
    next_states<kUpdates>(state, share, update, reset, recurrent, outside);
    if (j + kCount > hidden) state[kCount - 1] = all(0.0f);
    CTRLIFT_EACH(i, kCount) store(rows + i * kPairs, state[i]);
    CTRLIFT_EACH(i, kCount / 2) put_halves(cells.to, j / 2 + i, state[2 * i], state[2 * i + 1]);
}

template <bool kUpdates>
static void next_vector(const Cells& cells) {
    const Cells now = cells;
    long j = 0;
    for (; j + 4 <= now.hidden; j += 4) next_units<kUpdates, 4>(now, j);
    for (; j < now.hidden; j += 2) next_units<kUpdates, 2>(now, j);
}

// Vectors take turns: while the states of one are on their way to memory, the next one is multiplied.
template <bool kUpdates>
static void evolve_tiled(const Interest& model, const Gates& gates, const Evolving& evolving, const Whole& whole,
                         const float* attention, long steps, long vectors) {
    const long hidden = model.hidden, items = steps * vectors, behind = vectors > 1 ? 1 : 0;
    start(model, evolving);
    for (long v = 0; v < vectors; ++v) clear(whole.state[v]);
    for (long n = 0; n < items + behind; ++n) {
        const long multiplied = n % vectors;
        if (n < items)
            tile_product({model.hidden_tiles, model.blocks * hidden, whole.state[multiplied], nullptr, 0,
                          whole.gates[multiplied]});
        if (n < behind) continue;
        const long s = (n - behind) / vectors, v = (n - behind) % vectors;
        next_vector<kUpdates>({hidden, whole.gates[v], gates.sums + s * model.gates_stride, gates.from_n + s * hidden,
                               load(attention + s * kPairs + v * kLanes), evolving.state + v * kLanes, whole.state[v]});
    }
}

static void evolve_whole(const Interest& model, const Gates& gates, const Evolving& evolving, const Whole& whole,
                         const float* attention, long steps, long vectors) {
    if (model.blocks == 3)
        evolve_tiled<true>(model, gates, evolving, whole, attention, steps, vectors);
    else
        evolve_tiled<false>(model, gates, evolving, whole, attention, steps, vectors);
}

}  // namespace CTRLIFT_SET

#endif
