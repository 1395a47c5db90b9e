// The one product of matrices that everything is made of: few rows of weights times vectors of lanes.
#ifndef CTRLIFT_PRODUCT_H
#define CTRLIFT_PRODUCT_H

#include "lanes.h"

namespace CTRLIFT_SET {

// out[j][x] = row[j][x] + scalar[j] + sum over k of weights[k][j] in[k][x]; row and scalar may be null.
struct Product {
    const float* weights;  // (depth, units), `weight_stride` floats from row to row
    long weight_stride;
    const float* in;  // (depth, lanes), `in_stride` floats from row to row
    long in_stride;
    const float* row;  // (units, lanes); a stride of 0 repeats one row
    long row_stride;
    const float* scalar;  // (units)
    float* out;  // (units, lanes), `out_stride` floats from row to row
    long out_stride;
    long depth;
    long units;
};

#if defined(__AVX512F__)
// As many sums as registers allow beside the inputs and the weight: 14 x 2 + 2 + 1 of 32.
constexpr int kTall[3] = {0, 16, 14};
#else
constexpr int kTall[3] = {0, 8, 6};
#endif
constexpr int kWidest = 2;

// Candidates that go through the network together: as many vectors as the tile unit needs to be kept busy while what it
// gave is on its way to memory, or as many as a product takes at once.
#if defined(__AMX_BF16__)
constexpr int kBlockVectors = 4;
#else
constexpr int kBlockVectors = kWidest;
#endif
constexpr long kPairs = kBlockVectors * kLanes;

template <int kUnits, int kWidth>
static inline void tile(const Product& p, long first) {
    // Copies, because the compiler must believe that a store of floats might change the original.
    const float *weights = p.weights + first, *in = p.in, *row = p.row, *scalar = p.scalar;
    const long weight_stride = p.weight_stride, in_stride = p.in_stride, depth = p.depth;
    Vector sums[kUnits][kWidth];
    if (row == nullptr) {
#pragma GCC unroll 16
        for (int j = 0; j < kUnits; ++j)
#pragma GCC unroll 2
            for (int v = 0; v < kWidth; ++v) sums[j][v] = all(scalar == nullptr ? 0.0f : scalar[first + j]);
    } else {
        const long row_stride = p.row_stride;
        row += first * row_stride;
#pragma GCC unroll 16
        for (int j = 0; j < kUnits; ++j, row += row_stride) {
            const Vector offset = all(scalar == nullptr ? 0.0f : scalar[first + j]);
#pragma GCC unroll 2
            for (int v = 0; v < kWidth; ++v) sums[j][v] = load(row + v * kLanes) + offset;
        }
    }
    for (long k = 0; k < depth; ++k, weights += weight_stride, in += in_stride) {
        Vector x[kWidth];
#pragma GCC unroll 2
        for (int v = 0; v < kWidth; ++v) x[v] = load(in + v * kLanes);
#pragma GCC unroll 16
        for (int j = 0; j < kUnits; ++j) {
            const Vector weight = all(weights[j]);
#pragma GCC unroll 2
            for (int v = 0; v < kWidth; ++v) sums[j][v] += weight * x[v];
        }
    }
    const long out_stride = p.out_stride;
    float* out = p.out + first * out_stride;
#pragma GCC unroll 16
    for (int j = 0; j < kUnits; ++j, out += out_stride)
#pragma GCC unroll 2
        for (int v = 0; v < kWidth; ++v) store(out + v * kLanes, sums[j][v]);
}

template <int kWidth>
static inline void tile_of(const Product& p, long first, long units) {
    switch (units) {
        case 1: return tile<1, kWidth>(p, first);
        case 2: return tile<2, kWidth>(p, first);
        case 3: return tile<3, kWidth>(p, first);
        case 4: return tile<4, kWidth>(p, first);
        case 5: return tile<5, kWidth>(p, first);
        case 6: return tile<6, kWidth>(p, first);
#if defined(__AVX512F__)
        case 7: return tile<7, kWidth>(p, first);
        case 8: return tile<8, kWidth>(p, first);
        case 9: return tile<9, kWidth>(p, first);
        case 10: return tile<10, kWidth>(p, first);
        case 11: return tile<11, kWidth>(p, first);
        case 12: return tile<12, kWidth>(p, first);
        case 13: return tile<13, kWidth>(p, first);
        case 14: return tile<14, kWidth>(p, first);
#endif
        default: break;
    }
#if defined(__AVX512F__)
    if (kWidth == 1) return units == 15 ? tile<15, 1>(p, first) : tile<16, 1>(p, first);
#else
    if (kWidth == 1) return units == 7 ? tile<7, 1>(p, first) : tile<8, 1>(p, first);
#endif
}

// Tiles of nearly equal height: a last one of a single row would wait for itself at every step.
template <int kWidth>
static void product_of(const Product& p) {
    const long tiles = (p.units + kTall[kWidth] - 1) / kTall[kWidth];
    long first = 0;
    for (long i = 0; i < tiles; ++i) {
        const long units = (p.units - first + tiles - i - 1) / (tiles - i);
        tile_of<kWidth>(p, first, units);
        first += units;
    }
}

// `vectors` is the number of vectors of lanes.
static void product(const Product& p, long vectors) {
    Product part = p;
    for (long v = 0; v < vectors; v += kWidest) {
        part.in = p.in + v * kLanes;
        part.row = p.row == nullptr ? nullptr : p.row + v * kLanes;
        part.out = p.out + v * kLanes;
        if (vectors - v >= 2)
            product_of<2>(part);
        else
            product_of<1>(part);
    }
}

}  // namespace CTRLIFT_SET

#endif
