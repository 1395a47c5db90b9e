// The library's functions: which instruction sets there are, and a call for each operator.
//
// Memory belongs to the caller, scratch memory too, and its size is asked for beforehand: nothing here allocates,
// fails or keeps anything, so calls may run side by side.
#include "permission.h"
#include "plan.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#ifndef CTRLIFT_DIGEST
#define CTRLIFT_DIGEST "none"
#endif

#define CTRLIFT_DECLARE(set)                                                                                      \
    extern "C" void ctrlift_interest_##set(const Interest&, const Shape&, const float*, const float*,            \
                                           const uint8_t*, float*, Arena&);                                       \
    extern "C" void ctrlift_extractor_##set(const Extractor&, const Shape&, const float*, const uint8_t*, float*, \
                                            Arena&);

CTRLIFT_DECLARE(plain)
CTRLIFT_DECLARE(avx2)
CTRLIFT_DECLARE(avx512)
CTRLIFT_DECLARE(amx)

namespace {

struct Set {
    const char* name;
    InterestFunction interest;
    ExtractorFunction extractor;
    bool (*supported)();
};

// The fastest first.
const Set kSets[] = {
#if defined(CTRLIFT_WITH_amx)
    {"amx", ctrlift_interest_amx, ctrlift_extractor_amx, tiles_permitted},
#endif
#if defined(CTRLIFT_WITH_avx512)
    {"avx512", ctrlift_interest_avx512, ctrlift_extractor_avx512,
     [] { return __builtin_cpu_supports("avx512f") != 0; }},
    {"avx2", ctrlift_interest_avx2, ctrlift_extractor_avx2,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {"plain", ctrlift_interest_plain, ctrlift_extractor_plain, [] { return true; }},
};

constexpr int kCount = sizeof(kSets) / sizeof(kSets[0]);

// Numbers too small to be normal count as zero while this lives: they change no score, and a processor takes a hundred
// times as long over them. A history whose attention lies on one step is full of them.
class SmallAreZero {
public:
#if defined(__SSE2__)
    SmallAreZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushToZero | kDenormalsAreZero); }
    ~SmallAreZero() { _mm_setcsr(before_); }

private:
    static constexpr unsigned int kFlushToZero = 0x8000, kDenormalsAreZero = 0x40;
    const unsigned int before_;
#endif
};

}  // namespace

#define CTRLIFT_PUBLIC extern "C" __attribute__((visibility("default")))

CTRLIFT_PUBLIC const char* ctrlift_digest() { return CTRLIFT_DIGEST; }

// Name of an instruction set of the build, fastest first; null after the last.
CTRLIFT_PUBLIC const char* ctrlift_set(int set) { return set >= 0 && set < kCount ? kSets[set].name : nullptr; }

CTRLIFT_PUBLIC int ctrlift_supported(int set) { return set >= 0 && set < kCount && kSets[set].supported(); }

// Floats of scratch memory that a call with these shapes needs.
CTRLIFT_PUBLIC size_t ctrlift_interest_scratch(int set, const Interest* model, const Shape* shape) {
    Arena counting = {nullptr, 0};
    kSets[set].interest(*model, *shape, nullptr, nullptr, nullptr, nullptr, counting);
    return counting.used;
}

// query (U, C, query_width), keys (U, T, width), mask (U, T) of 0 and 1, out (U, C, hidden or width); scratch on a
// boundary of 64 bytes.
CTRLIFT_PUBLIC void ctrlift_interest(int set, const Interest* model, const Shape* shape, const float* query,
                                     const float* keys, const uint8_t* mask, float* out, float* scratch) {
    Arena arena = {scratch, 0};
    [[maybe_unused]] const SmallAreZero small;
    kSets[set].interest(*model, *shape, query, keys, mask, out, arena);
    arena.release();
}

CTRLIFT_PUBLIC size_t ctrlift_extractor_scratch(int set, const Extractor* model, const Shape* shape) {
    Arena counting = {nullptr, 0};
    kSets[set].extractor(*model, *shape, nullptr, nullptr, nullptr, counting);
    return counting.used;
}

// sequence (U, T, width), mask (U, T), out (U, T, hidden).
CTRLIFT_PUBLIC void ctrlift_extractor(int set, const Extractor* model, const Shape* shape, const float* sequence,
                                      const uint8_t* mask, float* out, float* scratch) {
    Arena arena = {scratch, 0};
    [[maybe_unused]] const SmallAreZero small;
    kSets[set].extractor(*model, *shape, sequence, mask, out, arena);
    arena.release();
}
