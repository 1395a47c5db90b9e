// Target attention and its readout for all users of a call.
#ifndef CTRLIFT_INTEREST_H
#define CTRLIFT_INTEREST_H

#include "evolution.h"
#include "plan.h"
#include "scoring.h"
#if defined(__AMX_BF16__)
#include "tiled.h"
#else
#include "whole.h"
#endif

namespace CTRLIFT_SET {

constexpr long kHalf = kLanes / 2;

// Scratch of one call.
struct Scratch {
    History history;
    Pairs pairs;
    Evolving evolving;
    Few few;
    Sides sides;
    Whole whole;
    float *queries, *from_query, *scores, *readout;  // of one block of candidates, each (rows, one block)
};

// Candidates beside one another in one lane block, counted from `first`.
struct Block {
    long first, count, vectors, share;  // share > 0: several steps in one vector, `share` lanes a step
};

static long most_units(const Interest& model) {
    long most = 1;
    for (long i = 0; i < model.layers; ++i)
        if (model.layer[i].units > most) most = model.layer[i].units;
    return most;
}

// How many users share one vector of the recurrence; 1 where each gets vectors of its own.
static long users_together(const Interest& model, const Shape& shape) {
    const long few = shape.candidates % kLanes;
    const bool possible = model.blocks > 0 && shape.users > 1 && few > 0 && few <= kHalf;
    return possible ? kLanes / few : 1;
}

static Scratch scratch_of(const Interest& model, const Shape& shape, Arena& arena, Side* side) {
    Scratch s;
    const long first_stride = model.layers > 0 ? model.layer[0].stride : 0;
    const long first_units = model.layers > 0 ? model.layer[0].units : model.width;
    s.history.steps = 0;
    s.history.stride = padded(shape.steps) + kPad;
    s.history.by_step = arena.take(shape.steps, model.width);
    s.history.by_feature = arena.take(model.width, s.history.stride);
    s.history.from_key = arena.take(shape.steps, first_stride);
    s.history.from_key_by_unit = arena.take(first_units, s.history.stride);
    const long widest = model.width > model.query_width ? model.width : model.query_width;
    s.pairs.inputs = arena.take(widest, kPairs);
    s.pairs.front = arena.take(most_units(model), kPairs);
    s.pairs.back = arena.take(most_units(model), kPairs);
    s.queries = arena.take(widest, kPairs);
    s.from_query = arena.take(padded(first_units), kPairs);
    s.scores = arena.take(shape.steps, kPairs);
    s.readout = arena.take(model.width, kPairs);
    const long units = model.blocks * model.hidden;
    s.evolving.state = arena.take(model.hidden + 1, kPairs);
    s.evolving.products = arena.take(units, kPairs);
    s.whole = take_whole(model, arena);
    s.few.state = arena.take(kTogether, padded(model.hidden));
    s.few.products = arena.take(1, kTogether * model.gates_stride + kPad);
    s.sides.side = side;
    s.sides.count = 0;
    s.sides.most = users_together(model, shape);
    s.sides.candidates = shape.candidates % kLanes;
    s.sides.sums = arena.take(units, kLanes);
    s.sides.from_n = arena.take(model.hidden, kLanes);
    s.sides.attention = arena.take(1, kLanes);
    for (long m = 0; m < s.sides.most; ++m) {
        side[m].gates.sums = arena.take(model.blocks > 0 ? shape.steps : 0, model.gates_stride);
        side[m].gates.from_n = arena.take(1, shape.steps * model.hidden + kPad);
        side[m].attention = arena.take(shape.steps, s.sides.candidates);
    }
    return s;
}

// The real steps of a user, by step and by feature; behind the last one zeros.
static void read_history(const Interest& model, long steps, const float* keys, const uint8_t* mask, History& history) {
    long real = 0;
    for (long t = 0; t < steps; ++t) {
        if (!mask[t]) continue;
        for (long d = 0; d < model.width; ++d) {
            history.by_step[real * model.width + d] = keys[t * model.width + d];
            history.by_feature[d * history.stride + real] = keys[t * model.width + d];
        }
        ++real;
    }
    for (long d = 0; d < model.width; ++d)
        for (long t = real; t < history.stride; ++t) history.by_feature[d * history.stride + t] = 0.0f;
    history.steps = real;
}

static void from_keys(const Interest& model, History& history, bool by_unit) {
    const Layer& first = model.layer[0];
    product({history.by_feature, history.stride, model.from_key, first.stride, first.bias, 0, nullptr,
             history.from_key, first.stride, model.width, history.steps},
            first.stride / kLanes);
    if (by_unit)
        product({model.from_key, first.stride, history.by_feature, history.stride, nullptr, 0, first.bias,
                 history.from_key_by_unit, history.stride, model.width, first.units},
                history.stride / kLanes);
}

static void gates_of(const Interest& model, const History& history, const Gates& gates) {
    product({history.by_feature, history.stride, model.gates_weight, model.gates_stride, model.gates_bias, 0, nullptr,
             gates.sums, model.gates_stride, model.width, history.steps},
            model.gates_stride / kLanes);
    const long before_n = (model.blocks - 1) * model.hidden;
    for (long s = 0; s < history.steps; ++s) {
        float* n = gates.sums + s * model.gates_stride + before_n;
        for (long i = 0; i < model.hidden; ++i) {
            gates.from_n[s * model.hidden + i] = n[i];
            n[i] = model.bias_n[i];
        }
    }
}

// As many whole vectors as a block holds; of what is left, half a vector or less goes by itself.
static Block block_at(const Interest& model, long first, long candidates) {
    const long left = candidates - first < kPairs ? candidates - first : kPairs;
    const long whole = left / kLanes, rest = left % kLanes;
    if (rest > kHalf || (rest > 0 && model.layers == 0)) return {first, left, whole + 1, 0};
    if (whole > 0) return {first, whole * kLanes, whole, 0};
    long share = 1;
    while (share < left) share *= 2;
    return {first, left, 1, share};
}

static void read_queries(const Interest& model, const Block& block, const float* query, float* queries) {
    for (long lane = 0; lane < block.vectors * kLanes; ++lane) {
        const long c = block.share > 0 ? lane % block.share : lane;
        for (long d = 0; d < model.query_width; ++d)
            queries[d * kPairs + lane] = c < block.count ? query[(block.first + c) * model.query_width + d] : 0.0f;
    }
}

// Scores (steps, one block) of a block; lanes without a candidate hold zeros or what a zero query scores.
static void score_block(const Interest& model, const Block& block, const Scratch& s) {
    const History& history = s.history;
    if (model.layers == 0) {
        product({model.from_query, padded(model.width), s.queries, kPairs, nullptr, 0, nullptr, s.pairs.inputs, kPairs,
                 model.query_width, model.width},
                block.vectors);
        product({history.by_feature, history.stride, s.pairs.inputs, kPairs, nullptr, 0, nullptr, s.scores, kPairs,
                 model.width, history.steps},
                block.vectors);
    } else {
        const Layer& first = model.layer[0];
        // One unit more where their number is odd: tiles take units by twos, and its weights are zeros.
        product({model.from_query, first.stride, s.queries, kPairs, nullptr, 0, nullptr, s.from_query, kPairs,
                 model.width, first.units + first.units % 2},
                block.vectors);
        if (block.share > 0) {
            for (long t = 0; t < history.steps; ++t) store(s.scores + t * kPairs, all(0.0f));
            score_few(model, history, s.pairs, s.queries, s.from_query, kPairs, s.scores, kPairs, block.count,
                      block.share);
        } else {
            score_whole(model, history, s.pairs, s.whole, s.queries, s.from_query, s.scores, block.vectors);
        }
    }
    if (model.softmax) normalise(s.scores, history.steps, kPairs, block.vectors);
}

// From (width, one block) to rows of candidates.
static void write_rows(const float* by_feature, long width, const Block& block, float* out) {
    for (long c = 0; c < block.count; ++c)
        for (long d = 0; d < width; ++d) out[(block.first + c) * width + d] = by_feature[d * kPairs + c];
}

// The users that wait side by side, and an empty row of places after them.
static void finish_sides(const Interest& model, const Shape& shape, Scratch& s, float* out) {
    if (s.sides.count == 0) return;
    evolve_sides(model, s.sides, s.evolving);
    const long few = s.sides.candidates, first = shape.candidates - few;
    for (long m = 0; m < s.sides.count; ++m) {
        float* rows = out + (s.sides.side[m].user * shape.candidates + first) * model.hidden;
        for (long c = 0; c < few; ++c)
            for (long i = 0; i < model.hidden; ++i)
                rows[c * model.hidden + i] = s.evolving.state[i * kPairs + m * few + c];
    }
    s.sides.count = 0;
}

static void read_out(const Interest& model, const Block& block, Scratch& s, float* out) {
    const History& history = s.history;
    if (model.blocks == 0) {
        product({history.by_step, model.width, s.scores, kPairs, nullptr, 0, nullptr, s.readout, kPairs,
                 history.steps, model.width},
                block.vectors);
        return write_rows(s.readout, model.width, block, out);
    }
    Side& side = s.sides.side[s.sides.count];
    if (s.sides.most > 1 && block.count <= kHalf) {
        for (long t = 0; t < history.steps; ++t)
            for (long c = 0; c < block.count; ++c)
                side.attention[t * s.sides.candidates + c] = s.scores[t * kPairs + c];
        side.steps = history.steps;
        ++s.sides.count;
        return;
    }
    if (block.count <= kHalf) {
        for (long c = 0; c < block.count; c += kTogether) {
            const long count = block.count - c < kTogether ? block.count - c : kTogether;
            float* rows = out + (block.first + c) * model.hidden;
            evolve_few(model, side.gates, s.few, s.scores + c, history.steps, kPairs, count, rows);
        }
        return;
    }
    evolve_whole(model, side.gates, s.evolving, s.whole, s.scores, history.steps, block.vectors);
    write_rows(s.evolving.state, model.hidden, block, out);
}

static void run_interest(const Interest& model, const Shape& shape, const float* query, const float* keys,
                         const uint8_t* mask, float* out, Arena& arena) {
    Side side[kLanes];
    Scratch s = scratch_of(model, shape, arena, side);
    if (arena.base == nullptr) return;
    start_whole(model, s.whole);
    const long width_out = model.blocks > 0 ? model.hidden : model.width;
    const bool few = shape.candidates % kLanes > 0 && shape.candidates % kLanes <= kHalf;
    for (long u = 0; u < shape.users; ++u) {
        float* rows = out + u * shape.candidates * width_out;
        read_history(model, shape.steps, keys + u * shape.steps * model.width, mask + u * shape.steps, s.history);
        if (s.history.steps == 0) {
            for (long i = 0; i < shape.candidates * width_out; ++i) rows[i] = 0.0f;
            continue;
        }
        if (model.layers > 0) from_keys(model, s.history, few);
        if (model.blocks > 0) gates_of(model, s.history, side[s.sides.count].gates);
        side[s.sides.count].user = u;
        for (long c = 0; c < shape.candidates;) {
            const Block block = block_at(model, c, shape.candidates);
            read_queries(model, block, query + u * shape.candidates * model.query_width, s.queries);
            score_block(model, block, s);
            read_out(model, block, s, rows);
            c += block.count;
        }
        if (s.sides.count == s.sides.most) finish_sides(model, shape, s, out);
    }
    finish_sides(model, shape, s, out);
    end_whole();
}

}  // namespace CTRLIFT_SET

#endif
