// The recurrence that attention steers, for many candidates of one user or few candidates of several users.
#ifndef CTRLIFT_EVOLUTION_H
#define CTRLIFT_EVOLUTION_H

#include "plan.h"
#include "product.h"

namespace CTRLIFT_SET {

// What the steps bring to the gates of one user.
struct Gates {
    float* sums;    // (steps, gates_stride): the blocks before n, and for n the bias inside the reset product
    float* from_n;  // (steps, hidden): what n gets outside the reset product
};

// A state on its way: both (rows, one block).
struct Evolving {
    float* state;     // (hidden)
    float* products;  // (blocks * hidden)
};

// The next states from what the products gave: `outside` and `recurrent` are n's parts outside and inside the reset. All
// but `state` are used up.
//
// With n = tanh(x) = 1 - 2 / d, d = 1 + e^2x, the move u (n - state) is ((1 - state) d - 2) / (d (1 + e^-update)): one
// division for both.
template <bool kUpdates, int kCount>
CTRLIFT_INLINE void next_states(Vector (&state)[kCount], const Vector (&share)[kCount], Vector (&update)[kCount], Vector (&reset)[kCount],
                               const Vector (&recurrent)[kCount], const Vector (&outside)[kCount]) {
    Vector d[kCount];
    sigmoids(reset);
    CTRLIFT_EACH(i, kCount) d[i] = outside[i] + reset[i] * recurrent[i];
    bound(d, 20.0f);
    exponential(d, 2.0f * kLog2E);
    CTRLIFT_EACH(i, kCount) d[i] = 1.0f + d[i];
    if (kUpdates) {
        bound(update, 40.0f);
        exponential(update, -kLog2E);
    }
    CTRLIFT_EACH(i, kCount) reset[i] = share[i] * ((1.0f - state[i]) * d[i] - 2.0f);
    CTRLIFT_EACH(i, kCount) d[i] = kUpdates ? d[i] + d[i] * update[i] : d[i];
    inverse(d);
    CTRLIFT_EACH(i, kCount) state[i] += reset[i] * d[i];
}

// Units `first` and following of one vector of candidates.
template <bool kLanesOfTheirOwn, bool kUpdates, int kCount>
CTRLIFT_INLINE void next_rows(const Interest& model, const Evolving& evolving, const float* from_n, Vector share,
                             long first, long v) {
    const long hidden = model.hidden, at = first * kPairs + v * kLanes;
    float* const rows = evolving.state + at;
    const float* const updates = evolving.products + at;
    const float* const resets = updates + (kUpdates ? hidden * kPairs : 0);
    Vector state[kCount], shares[kCount], update[kCount], reset[kCount], recurrent[kCount], outside[kCount];
    CTRLIFT_EACH(i, kCount) {
        shares[i] = share;
        state[i] = load(rows + i * kPairs);
        update[i] = load(updates + i * kPairs);
        reset[i] = load(resets + i * kPairs);
        recurrent[i] = load(resets + (hidden + i) * kPairs);
        outside[i] = kLanesOfTheirOwn ? load(from_n + (first + i) * kLanes) : all(from_n[first + i]);
    }
    next_states<kUpdates>(state, shares, update, reset, recurrent, outside);
    CTRLIFT_EACH(i, kCount) store(rows + i * kPairs, state[i]);
}

// One step from the products in `evolving`: attention of the vectors, from_n (hidden) or, with lanes of their own,
// (hidden, one vector).
template <bool kLanesOfTheirOwn, bool kUpdates>
static void step_of(const Interest& model, const Evolving& evolving, const float* from_n, const float* attention,
                    long vectors) {
    for (long v = 0; v < vectors; ++v) {
        const Vector share = load(attention + v * kLanes);
        long i = 0;
        for (; i + kInStep <= model.hidden; i += kInStep)
            next_rows<kLanesOfTheirOwn, kUpdates, kInStep>(model, evolving, from_n, share, i, v);
        for (; i < model.hidden; ++i) next_rows<kLanesOfTheirOwn, kUpdates, 1>(model, evolving, from_n, share, i, v);
    }
}

template <bool kLanesOfTheirOwn>
static void step(const Interest& model, const Evolving& evolving, const float* from_n, const float* attention,
                 long vectors) {
    if (model.blocks == 3)
        step_of<kLanesOfTheirOwn, true>(model, evolving, from_n, attention, vectors);
    else
        step_of<kLanesOfTheirOwn, false>(model, evolving, from_n, attention, vectors);
}

static void start(const Interest& model, const Evolving& evolving) {
    for (long i = 0; i < model.hidden * kPairs; i += kLanes) store(evolving.state + i, all(0.0f));
}

// Few candidates of one user, lanes over the hidden units.
struct Few {
    float* state;     // (kTogether, hidden_stride), zeros behind the hidden units
    float* products;  // (kTogether, gates_stride) and a vector more
};

constexpr long kTogether = 4;
#if defined(__AVX512F__)
constexpr int kAcross = 4;
#else
constexpr int kAcross = 3;
#endif

template <int kWidth>
static inline void few_products(const Interest& model, const Few& few, const float* sums, long first) {
    const long hidden_stride = padded(model.hidden), stride = model.gates_stride;
    const float* weights = model.hidden_weight + first;
    Vector found[kTogether][kWidth];
#pragma GCC unroll 4
    for (int c = 0; c < kTogether; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < kWidth; ++v) found[c][v] = load(sums + first + v * kLanes);
    for (long k = 0; k < model.hidden; ++k, weights += stride) {
        Vector weight[kWidth];
#pragma GCC unroll 4
        for (int v = 0; v < kWidth; ++v) weight[v] = load(weights + v * kLanes);
#pragma GCC unroll 4
        for (int c = 0; c < kTogether; ++c) {
            const Vector state = all(few.state[c * hidden_stride + k]);
#pragma GCC unroll 4
            for (int v = 0; v < kWidth; ++v) found[c][v] += state * weight[v];
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kTogether; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < kWidth; ++v) store(few.products + c * stride + first + v * kLanes, found[c][v]);
}

// All kTogether candidates in step, whether there are so many or not. The last vector of a block runs over into the next
// one: those lanes lie behind the hidden units and are not used.
template <bool kUpdates>
static void few_step(const Interest& model, const Few& few, const float* from_n, const float* attention) {
    const long hidden = model.hidden, hidden_stride = padded(hidden);
    for (long i = 0; i < hidden; i += kLanes) {
        Vector state[kTogether], update[kTogether], reset[kTogether], recurrent[kTogether], outside[kTogether];
        Vector share[kTogether];
        CTRLIFT_EACH(c, kTogether) {
            const float* updates = few.products + c * model.gates_stride + i;
            const float* resets = updates + (kUpdates ? hidden : 0);
            state[c] = load(few.state + c * hidden_stride + i);
            update[c] = load(updates);
            reset[c] = load(resets);
            recurrent[c] = load(resets + hidden);
            outside[c] = load(from_n + i);
            share[c] = all(attention[c]);
        }
        next_states<kUpdates>(state, share, update, reset, recurrent, outside);
        CTRLIFT_EACH(c, kTogether) store(few.state + c * hidden_stride + i, state[c]);
    }
}

// `count` candidates, at most kTogether: attention (steps, stride), out (count, hidden).
static void evolve_few(const Interest& model, const Gates& gates, const Few& few, const float* attention, long steps,
                       long stride, long count, float* out) {
    const long hidden_stride = padded(model.hidden), vectors = model.gates_stride / kLanes;
    for (long i = 0; i < kTogether * hidden_stride; i += kLanes) store(few.state + i, all(0.0f));
    for (long s = 0; s < steps; ++s) {
        const float* sums = gates.sums + s * model.gates_stride;
        long v = 0;
        for (; v + kAcross <= vectors; v += kAcross) few_products<kAcross>(model, few, sums, v * kLanes);
        for (; v + 2 <= vectors; v += 2) few_products<2>(model, few, sums, v * kLanes);
        if (v < vectors) few_products<1>(model, few, sums, v * kLanes);
        const float* from_n = gates.from_n + s * model.hidden;
        if (model.blocks == 3)
            few_step<true>(model, few, from_n, attention + s * stride);
        else
            few_step<false>(model, few, from_n, attention + s * stride);
    }
    for (long c = 0; c < count; ++c)
        for (long i = 0; i < model.hidden; ++i) out[c * model.hidden + i] = few.state[c * hidden_stride + i];
}

// Several users with few candidates each, side by side in one vector.
struct Side {
    Gates gates;
    float* attention;  // (steps, candidates)
    long user, steps;
};

struct Sides {
    Side* side;
    long count, most, candidates;
    float *sums, *from_n, *attention;  // lanes of one step: (blocks * hidden), (hidden), (1), one vector each
};

static void gather(const Interest& model, const Sides& sides, long s) {
    const long units = model.blocks * model.hidden;
    for (long m = 0; m < sides.count; ++m) {
        const Side& side = sides.side[m];
        for (long c = 0; c < sides.candidates; ++c) {
            const long lane = m * sides.candidates + c;
            // A history that is over moves nothing: its attention is zero from here on.
            sides.attention[lane] = s < side.steps ? side.attention[s * sides.candidates + c] : 0.0f;
            if (s >= side.steps) continue;
            const float* sums = side.gates.sums + s * model.gates_stride;
            const float* from_n = side.gates.from_n + s * model.hidden;
            for (long j = 0; j < units; ++j) sides.sums[j * kLanes + lane] = sums[j];
            for (long i = 0; i < model.hidden; ++i) sides.from_n[i * kLanes + lane] = from_n[i];
        }
    }
}

static void evolve_sides(const Interest& model, const Sides& sides, const Evolving& evolving) {
    long steps = 0;
    for (long m = 0; m < sides.count; ++m)
        if (sides.side[m].steps > steps) steps = sides.side[m].steps;
    start(model, evolving);
    const long units = model.blocks * model.hidden;
    for (long i = 0; i < units * kLanes; i += kLanes) store(sides.sums + i, all(0.0f));
    for (long i = 0; i < model.hidden * kLanes; i += kLanes) store(sides.from_n + i, all(0.0f));
    store(sides.attention, all(0.0f));
    for (long s = 0; s < steps; ++s) {
        gather(model, sides, s);
        product({model.hidden_weight, model.gates_stride, evolving.state, kPairs, sides.sums, kLanes, nullptr,
                 evolving.products, kPairs, model.hidden, units},
                1);
        step<true>(model, evolving, sides.from_n, sides.attention, 1);
    }
}

}  // namespace CTRLIFT_SET

#endif
