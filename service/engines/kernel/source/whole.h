// Whole vectors of candidates, through the attention and through the recurrence.
#ifndef CTRLIFT_WHOLE_H
#define CTRLIFT_WHOLE_H

#include "evolution.h"
#include "scoring.h"

namespace CTRLIFT_SET {

// What tiled.h needs beside everything else; nothing here.
struct Whole {};

static Whole take_whole(const Interest&, Arena&) { return {}; }
static void start_whole(const Interest&, const Whole&) {}
static void end_whole() {}

static void score_whole(const Interest& model, const History& history, const Pairs& pairs, const Whole&,
                        const float* queries, const float* from_query, float* scores, long vectors) {
    score_candidates(model, history, pairs, queries, from_query, scores, vectors);
}

// Whole vectors of one user's candidates: attention (steps, stride).
static void evolve_whole(const Interest& model, const Gates& gates, const Evolving& evolving, const Whole&,
                         const float* attention, long steps, long vectors) {
    start(model, evolving);
    for (long s = 0; s < steps; ++s) {
        product({model.hidden_weight, model.gates_stride, evolving.state, kPairs, nullptr, 0,
                 gates.sums + s * model.gates_stride, evolving.products, kPairs, model.hidden,
                 model.blocks * model.hidden},
                vectors);
        step<false>(model, evolving, gates.from_n + s * model.hidden, attention + s * kPairs, vectors);
    }
}

}  // namespace CTRLIFT_SET

#endif
