// What the compiled functions work on: packed parameters, the shapes of one call, and scratch memory.
#ifndef CTRLIFT_PLAN_H
#define CTRLIFT_PLAN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define CTRLIFT_FORBID(where, bytes) ASAN_POISON_MEMORY_REGION(where, bytes)
#define CTRLIFT_ALLOW(where, bytes) ASAN_UNPOISON_MEMORY_REGION(where, bytes)
#else
#define CTRLIFT_FORBID(where, bytes) static_cast<void>(0)
#define CTRLIFT_ALLOW(where, bytes) static_cast<void>(0)
#endif

// Rows are padded with zeros to whole vectors of the widest instruction set, so that one packing serves all.
constexpr long kPad = 16;
constexpr long kMostLayers = 16;

enum Activation { kLinear, kSigmoid, kRelu, kPrelu, kDice };

// A hidden layer of the scoring network: weights (inputs, stride), the rest (stride); units <= stride.
struct Layer {
    long inputs, units, stride;
    const float *weights, *bias;
    const float *slope, *gate_scale, *gate_shift;
    const float* tiles;  // the weights as tiles.h multiplies them: (units / 16, depth, one tile); null for other sets
};

// Target attention and what is read out with it.
struct Interest {
    long query_width, width;  // of a query and of a step; equal unless the score is bilinear
    long layers;              // 0: bilinear
    Layer layer[kMostLayers];  // the first one's weights are those of query * key
    const float *from_query, *from_key;  // (width, stride of the first layer); bilinear: from_query (query_width, width)
    const float* last;                   // (units of the last layer)
    float last_bias, scale;
    int activation, softmax;
    long blocks, hidden;  // 3: AUGRU, 2: AGRU, 0: the weighted sum of the steps
    long gates_stride;    // of blocks * hidden
    const float *gates_weight, *gates_bias;  // (width, gates_stride), (gates_stride)
    const float *hidden_weight, *bias_n;     // (hidden, gates_stride), (hidden)
    const float* hidden_tiles;               // as a layer's
};

// A GRU over a masked sequence; each of the three blocks r, z, n is padded to `stride`.
struct Extractor {
    long width, hidden, stride;
    const float *input_weight, *input_bias;    // (width, 3 * stride), (3 * stride)
    const float *hidden_weight, *hidden_bias;  // (hidden, 3 * stride), (stride): the bias of n alone
};

// Users, candidates and steps of one call.
struct Shape {
    long users, candidates, steps;
};

// Hands out pieces of one buffer; without a buffer it only counts.
struct Arena {
    float* base;
    size_t used;

    float* take(long rows, long columns) {
        const size_t floats = static_cast<size_t>(rows) * static_cast<size_t>(columns);
        float* piece = base == nullptr ? nullptr : base + used;
        // A gap behind each piece, which a build with the address sanitizer forbids.
        used += (floats + kPad - 1) / kPad * kPad + kPad;
        if (base != nullptr) CTRLIFT_FORBID(piece + floats, (base + used - (piece + floats)) * sizeof(float));
        return piece;
    }

    void release() {
        if (base != nullptr) CTRLIFT_ALLOW(base, used * sizeof(float));
    }
};

static inline long padded(long count) { return (count + kPad - 1) / kPad * kPad; }

// One pair of functions for each instruction set. Each says in `arena` how much it uses; without a buffer it does
// nothing else.
typedef void (*InterestFunction)(const Interest&, const Shape&, const float* query, const float* keys,
                                 const uint8_t* mask, float* out, Arena& arena);
typedef void (*ExtractorFunction)(const Extractor&, const Shape&, const float* sequence, const uint8_t* mask,
                                  float* out, Arena& arena);

#endif
