// Products on the processor's tile unit, which multiplies halves: each float is a sum of two bfloat16, and of the four
// products of halves the three that matter are added up in float32.
//
// Only compiled for the instruction set that has the unit; a thread brackets its use with start_tiles and end_tiles.
#ifndef CTRLIFT_TILES_H
#define CTRLIFT_TILES_H

#include "plan.h"
#include "product.h"

#if defined(__AMX_BF16__)

namespace CTRLIFT_SET {

constexpr long kTileRows = 16;
constexpr long kTileBytes = 64;    // of a row: 16 floats, or 16 pairs of halves
constexpr long kTileFloats = 256;  // of a whole tile, whatever it holds
constexpr long kMostTiles = 4;     // of sums side by side

// Inputs of a product for one vector of lanes: rows of one pair of features a lane. For each 16 pairs one tile of leading
// halves and one of what they leave; of the `rest` pairs after them the leading halves, what they leave, and the leading
// halves again, with zeros up to whole tiles.
struct Halves {
    float* rows;
    long whole, rest;

    long tails() const { return padded(3 * rest) / kTileRows; }
    long tiles() const { return 2 * whole + tails(); }
};

static Halves take_halves(Arena& arena, long features) {
    const long pairs = (features + 1) / 2;
    Halves halves = {nullptr, pairs / kTileRows, pairs % kTileRows};
    halves.rows = arena.take(halves.tiles(), kTileFloats);
    return halves;
}

static void clear(const Halves& halves) {
    for (long i = 0; i < halves.tiles() * kTileFloats; i += kLanes) store(halves.rows + i, all(0.0f));
}

// Features 2p and 2p + 1 of one vector: the leading halves are rounded, and what is left is cut off.
CTRLIFT_INLINE void put_halves(const Halves& to, long p, Vector even, Vector odd) {
    const __m512i half = _mm512_set1_epi32(0x8000), leading = _mm512_set1_epi32(-65536);
    const __m512i left = _mm512_add_epi32(_mm512_castps_si512(even), half);
    const __m512i right = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    const Vector rest_left = even - _mm512_castsi512_ps(_mm512_and_si512(left, leading));
    const Vector rest_right = odd - _mm512_castsi512_ps(_mm512_and_si512(right, leading));
    constexpr int kOrWhere = 0xF8;  // a | (b & c)
    const __m512i first = _mm512_ternarylogic_epi32(_mm512_srli_epi32(left, 16), right, leading, kOrWhere);
    const __m512i second = _mm512_ternarylogic_epi32(_mm512_srli_epi32(_mm512_castps_si512(rest_left), 16),
                                                     _mm512_castps_si512(rest_right), leading, kOrWhere);
    if (p < to.whole * kTileRows) {
        float* const at = to.rows + (p / kTileRows * 2 * kTileRows + p % kTileRows) * kLanes;
        store(at, _mm512_castsi512_ps(first));
        store(at + kTileFloats, _mm512_castsi512_ps(second));
    } else {
        float* const at = to.rows + (p + to.whole * kTileRows) * kLanes;
        store(at, _mm512_castsi512_ps(first));
        store(at + to.rest * kLanes, _mm512_castsi512_ps(second));
        store(at + 2 * to.rest * kLanes, _mm512_castsi512_ps(first));
    }
}

static void start_tiles() {
    struct {
        uint8_t palette, row, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {};
    shape.palette = 1;
    for (int tile = 0; tile < 8; ++tile) {
        shape.bytes[tile] = kTileBytes;
        shape.rows[tile] = kTileRows;
    }
    asm volatile("" ::: "memory");
    _tile_loadconfig(&shape);
}

static void end_tiles() { _tile_release(); }

// One vector of inputs, what the sums begin with (null: zero), and where they go: (units up to whole tiles, one vector).
struct TileProduct {
    const float* weights;  // (units / 16, tiles of the inputs, one tile)
    long units;
    Halves in;
    const float* start;
    long start_stride;
    float* out;
};

#define CTRLIFT_TILE_TIMES(sum, of_weights, first, second)           \
    if (kBlocks > (sum)) {                                           \
        _tile_loadd(of_weights, weights + (sum) * next, kTileBytes); \
        _tile_dpbf16ps(sum, of_weights, first);                      \
        if ((second) != 0) _tile_dpbf16ps(sum, of_weights, second);  \
    }
#define CTRLIFT_TILES_TIMES(first, second)  \
    CTRLIFT_TILE_TIMES(0, 4, first, second) \
    CTRLIFT_TILE_TIMES(1, 5, first, second) \
    CTRLIFT_TILE_TIMES(2, 4, first, second) \
    CTRLIFT_TILE_TIMES(3, 5, first, second)

// Up to four blocks of 16 units: sums in tiles 0 to 3, weights in 4 and 5, inputs in 6 and 7. The intrinsics do not tell
// every compiler that they read memory, so stores before them must be fenced off.
template <int kBlocks>
static inline void tile_blocks(const TileProduct& p, long first) {
    const long next = p.in.tiles() * kTileFloats, start_bytes = p.start_stride * 4;
    const float *in = p.in.rows, *weights = p.weights + first * next;
    float* const out = p.out + first * kTileFloats;
    asm volatile("" ::: "memory");
    if (p.start == nullptr) {
        _tile_zero(0);
        if (kBlocks > 1) _tile_zero(1);
        if (kBlocks > 2) _tile_zero(2);
        if (kBlocks > 3) _tile_zero(3);
    } else {
        const long below = kTileRows * p.start_stride;
        const float* const start = p.start + first * below;
        _tile_loadd(0, start, start_bytes);
        if (kBlocks > 1) _tile_loadd(1, start + below, start_bytes);
        if (kBlocks > 2) _tile_loadd(2, start + 2 * below, start_bytes);
        if (kBlocks > 3) _tile_loadd(3, start + 3 * below, start_bytes);
    }
    for (long k = 0; k < p.in.whole; ++k, in += 2 * kTileFloats) {
        _tile_loadd(6, in, kTileBytes);
        _tile_loadd(7, in + kTileFloats, kTileBytes);
        CTRLIFT_TILES_TIMES(6, 7)
        weights += kTileFloats;
        CTRLIFT_TILES_TIMES(6, 0)
        weights += kTileFloats;
    }
    for (long k = 0; k < p.in.tails(); ++k, in += kTileFloats, weights += kTileFloats) {
        _tile_loadd(6, in, kTileBytes);
        CTRLIFT_TILES_TIMES(6, 0)
    }
    _tile_stored(0, out, kTileBytes);
    if (kBlocks > 1) _tile_stored(1, out + kTileFloats, kTileBytes);
    if (kBlocks > 2) _tile_stored(2, out + 2 * kTileFloats, kTileBytes);
    if (kBlocks > 3) _tile_stored(3, out + 3 * kTileFloats, kTileBytes);
    asm volatile("" ::: "memory");
}

// Groups of nearly equal height.
static void tile_product(const TileProduct& p) {
    const long blocks = (p.units + kTileRows - 1) / kTileRows, groups = (blocks + kMostTiles - 1) / kMostTiles;
    long first = 0;
    for (long i = 0; i < groups; ++i) {
        const long count = (blocks - first + groups - i - 1) / (groups - i);
        switch (count) {
            case 1: tile_blocks<1>(p, first); break;
            case 2: tile_blocks<2>(p, first); break;
            case 3: tile_blocks<3>(p, first); break;
            default: tile_blocks<4>(p, first); break;
        }
        first += count;
    }
}

}  // namespace CTRLIFT_SET

#endif
#endif
