// Putting texts side by side.
#pragma once

#include <cstdint>
#include <cstring>

// Most texts are shorter than this: copying as much as this whatever is needed takes one instruction, and finding out
// how much is needed takes many. The caller leaves as much room behind everything that is read or written.
constexpr int64_t AT_ONCE = 32;

inline char *copy(char *out, const char *start, int64_t length) {
    std::memcpy(out, start, AT_ONCE);
    if (length > AT_ONCE) std::memcpy(out + AT_ONCE, start + AT_ONCE, length - AT_ONCE);
    return out + length;
}

// The first comma from here on: eight letters at a time.
inline const char *comma(const char *at) {
    constexpr uint64_t ONES = 0x0101010101010101u, HIGHS = 0x8080808080808080u;
    while (true) {
        uint64_t letters;
        std::memcpy(&letters, at, sizeof letters);
        letters ^= ONES * ',';
        const uint64_t found = (letters - ONES) & ~letters & HIGHS;
        if (found != 0) break;
        at += sizeof letters;
    }
    while (*at != ',') ++at;
    return at;
}
