// One vector of floats on the instruction set that this file is compiled for, and the functions of it that the layers
// need. Everything lies in a namespace of its own for each instruction set, and nothing of the standard library is
// used inside it: a template of the library compiled here could otherwise be the copy that the linker keeps for all.
#ifndef CTRLIFT_LANES_H
#define CTRLIFT_LANES_H

#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

// Vectors that are handed over in memory cost more than what is done with them.
#define CTRLIFT_INLINE static inline __attribute__((always_inline))
#define CTRLIFT_MEMBER inline __attribute__((always_inline))

namespace CTRLIFT_SET {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kVectorBytes = 4 * kLanes;

typedef float Vector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t Integers __attribute__((vector_size(kVectorBytes)));
typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));

CTRLIFT_INLINE Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
CTRLIFT_INLINE void store(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }

// Long chains of operations go through several vectors in step: a processor looks ahead over one of them at most.
#define CTRLIFT_EACH(i, count) _Pragma("GCC unroll 8") for (int i = 0; i < (count); ++i)

// Comparisons with a NaN in `value` give `value`: what was not a number stays so, whatever the limits.
#if defined(__AVX512F__)

CTRLIFT_INLINE Vector all(float value) { return _mm512_set1_ps(value); }
CTRLIFT_INLINE Vector at_least(Vector value, Vector limit) { return _mm512_max_ps(limit, value); }
CTRLIFT_INLINE Vector at_most(Vector value, Vector limit) { return _mm512_min_ps(limit, value); }

// 2^(i/32): with it a polynomial of the second degree gives e^x to 6e-8.
alignas(64) static const float kRoots[32] = {
    1.0f,         1.0218971487f, 1.0442737824f, 1.0671404007f, 1.0905077327f, 1.1143867426f, 1.1387886348f,
    1.1637248588f, 1.1892071150f, 1.2152473600f, 1.2418578121f, 1.2690509572f, 1.2968395547f, 1.3252366432f,
    1.3542555469f, 1.3839098820f, 1.4142135624f, 1.4451808070f, 1.4768261459f, 1.5091644276f, 1.5422108254f,
    1.5759808451f, 1.6104903319f, 1.6457554782f, 1.6817928305f, 1.7186192981f, 1.7562521604f, 1.7947090750f,
    1.8340080864f, 1.8741676341f, 1.9152065614f, 1.9571441242f};

// Each becomes e^(factor x), |factor x| at most 87; `turns` is the factor over the logarithm of 2.
template <int kCount>
CTRLIFT_INLINE void exponential(Vector (&x)[kCount], float turns) {
    // Adding this leaves 1/32 as the last bit, so that the sum's low five bits choose the root.
    const Vector shift = all(393216.0f), factor = all(turns);
    Vector sum[kCount], whole[kCount], root[kCount];
    CTRLIFT_EACH(i, kCount) sum[i] = _mm512_fmadd_ps(x[i], factor, shift);
    CTRLIFT_EACH(i, kCount) whole[i] = sum[i] - shift;
    CTRLIFT_EACH(i, kCount) x[i] = _mm512_fmsub_ps(x[i], factor, whole[i]);
    CTRLIFT_EACH(i, kCount)
    root[i] = _mm512_permutex2var_ps(load(kRoots), _mm512_castps_si512(sum[i]), load(kRoots + 16));
    CTRLIFT_EACH(i, kCount) root[i] = _mm512_scalef_ps(root[i], whole[i]);
    CTRLIFT_EACH(i, kCount) sum[i] = _mm512_fmadd_ps(x[i], all(0.24022650f), all(0.69315734f));
    CTRLIFT_EACH(i, kCount) x[i] = _mm512_fmadd_ps(sum[i], x[i], all(1.0f));
    CTRLIFT_EACH(i, kCount) x[i] = root[i] * x[i];
}

// One step of Newton's on fourteen bits is a division's precision at a fifth of its price; d between 1 and 2^126.
template <int kCount>
CTRLIFT_INLINE void inverse(Vector (&d)[kCount]) {
    Vector guess[kCount];
    CTRLIFT_EACH(i, kCount) guess[i] = _mm512_rcp14_ps(d[i]);
    CTRLIFT_EACH(i, kCount) d[i] = _mm512_fnmadd_ps(d[i], guess[i], all(2.0f));
    CTRLIFT_EACH(i, kCount) d[i] = guess[i] * d[i];
}

// Lane i takes value i / share, of the first kLanes / share.
CTRLIFT_INLINE Vector spread(const float* from, const int32_t* places) {
    return _mm512_permutexvar_ps(_mm512_loadu_si512(places), load(from));
}

#else

#if defined(__AVX2__)
CTRLIFT_INLINE Vector all(float value) { return _mm256_set1_ps(value); }
CTRLIFT_INLINE Vector at_least(Vector value, Vector limit) { return _mm256_max_ps(limit, value); }
CTRLIFT_INLINE Vector at_most(Vector value, Vector limit) { return _mm256_min_ps(limit, value); }
CTRLIFT_INLINE Vector spread(const float* from, const int32_t* places) {
    const __m256i chosen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places));
    return _mm256_permutevar8x32_ps(load(from), chosen);
}
#else
CTRLIFT_INLINE Vector all(float value) { return Vector{value, value, value, value}; }
CTRLIFT_INLINE Vector at_least(Vector value, Vector limit) { return limit > value ? limit : value; }
CTRLIFT_INLINE Vector at_most(Vector value, Vector limit) { return limit < value ? limit : value; }
CTRLIFT_INLINE Vector spread(const float* from, const int32_t* places) {
    return Vector{from[places[0]], from[places[1]], from[places[2]], from[places[3]]};
}
#endif

template <int kCount>
CTRLIFT_INLINE void exponential(Vector (&x)[kCount], float turns) {
    // Adding this leaves 1 as the last bit: the sum's low bits are the power of two, ready for the exponent's place.
    const Vector shift = all(12582912.0f);
    CTRLIFT_EACH(i, kCount) {
        const Vector scaled = x[i] * turns;
        const Vector sum = scaled + shift;
        const Vector rest = scaled - (sum - shift);
        Vector series = rest * 0.00132764713f + 0.00967554189f;
        series = series * rest + 0.0555071309f;
        series = series * rest + 0.240221202f;
        series = series * rest + 0.693146944f;
        series = series * rest + 1.00000012f;
        x[i] = reinterpret_cast<Vector>(reinterpret_cast<Integers>(series) + (reinterpret_cast<Integers>(sum) << 23));
    }
}

template <int kCount>
CTRLIFT_INLINE void inverse(Vector (&d)[kCount]) {
    CTRLIFT_EACH(i, kCount) d[i] = 1.0f / d[i];
}

#endif

constexpr float kLog2E = 1.44269504f;

// How many vectors go in step: as many as registers hold.
constexpr int kInStep = kLanes == 16 ? 4 : 1;

CTRLIFT_INLINE Vector within(Vector x, float limit) { return at_most(at_least(x, all(-limit)), all(limit)); }

template <int kCount>
CTRLIFT_INLINE void bound(Vector (&x)[kCount], float limit) {
    CTRLIFT_EACH(i, kCount) x[i] = within(x[i], limit);
}

// Beyond 40 nothing changes in float32, and the result keeps away from numbers that are too small to be normal.
template <int kCount>
CTRLIFT_INLINE void sigmoids(Vector (&x)[kCount]) {
    bound(x, 40.0f);
    exponential(x, -kLog2E);
    CTRLIFT_EACH(i, kCount) x[i] = 1.0f + x[i];
    inverse(x);
}

CTRLIFT_INLINE Vector exp_of(Vector x) {
    Vector one[1] = {within(x, 87.0f)};
    exponential(one, kLog2E);
    return one[0];
}

CTRLIFT_INLINE Vector sigmoid(Vector x) {
    Vector one[1] = {x};
    sigmoids(one);
    return one[0];
}

CTRLIFT_INLINE Vector hyperbolic_tangent(Vector x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

}  // namespace CTRLIFT_SET

#endif
