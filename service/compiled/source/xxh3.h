// The hash that ids go by: XXH3 with 64 bits and seed 0 (Yann Collet), for texts of up to 240 bytes.
#pragma once

#include <cstdint>
#include <cstring>

namespace xxh3 {

constexpr int64_t LONGEST = 240;
constexpr uint64_t PRIME_1 = 0x9E3779B185EBCA87u, PRIME_2 = 0xC2B2AE3D27D4EB4Fu, PRIME_3 = 0x165667B19E3779F9u;

alignas(8) constexpr unsigned char SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

inline uint64_t word64(const void *at) {
    uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

inline uint32_t word32(const void *at) {
    uint32_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

inline uint64_t turned(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

// Both halves of a product of 128 bits, folded.
inline uint64_t folded(uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t secret(int64_t place) { return word64(SECRET + place); }

inline uint64_t mixed16(const char *at, int64_t place) {
    return folded(word64(at) ^ secret(place), word64(at + 8) ^ secret(place + 8));
}

inline uint64_t spread(uint64_t hash) {
    hash ^= hash >> 37;
    hash *= 0x165667919E3779F9u;
    return hash ^ (hash >> 32);
}

inline uint64_t spread_short(uint64_t hash) {
    hash = (hash ^ (hash >> 33)) * PRIME_2;
    hash = (hash ^ (hash >> 29)) * PRIME_3;
    return hash ^ (hash >> 32);
}

inline uint64_t up_to_3(const char *text, uint64_t length) {
    if (length == 0) return spread_short(secret(56) ^ secret(64));
    const auto letter = [text](uint64_t place) { return uint32_t{static_cast<unsigned char>(text[place])}; };
    const uint32_t ends = (letter(0) << 16) | letter(length - 1), size = static_cast<uint32_t>(length) << 8;
    return spread_short((ends | (letter(length >> 1) << 24) | size) ^ word32(SECRET) ^ word32(SECRET + 4));
}

inline uint64_t from_4_to_8(const char *text, uint64_t length) {
    uint64_t hash = word32(text + length - 4) + (static_cast<uint64_t>(word32(text)) << 32);
    hash ^= secret(8) ^ secret(16);
    hash ^= turned(hash, 49) ^ turned(hash, 24);
    hash *= 0x9FB21C651E98DF25u;
    hash ^= (hash >> 35) + length;
    hash *= 0x9FB21C651E98DF25u;
    return hash ^ (hash >> 28);
}

inline uint64_t from_9_to_16(const char *text, uint64_t length) {
    const uint64_t low = word64(text) ^ secret(24) ^ secret(32);
    const uint64_t high = word64(text + length - 8) ^ secret(40) ^ secret(48);
    return spread(length + __builtin_bswap64(low) + high + folded(low, high));
}

// Pairs of 16 bytes, from both ends towards the middle.
inline uint64_t from_17_to_128(const char *text, uint64_t length) {
    uint64_t sum = length * PRIME_1;
    for (int64_t pair = static_cast<int64_t>(length - 1) / 32; pair >= 0; --pair) {
        sum += mixed16(text + 16 * pair, 32 * pair);
        sum += mixed16(text + length - 16 * (pair + 1), 32 * pair + 16);
    }
    return spread(sum);
}

inline uint64_t from_129_to_240(const char *text, uint64_t length) {
    uint64_t sum = length * PRIME_1;
    for (int64_t round = 0; round < 8; ++round) sum += mixed16(text + 16 * round, 16 * round);
    sum = spread(sum);
    for (int64_t round = 8; round < static_cast<int64_t>(length / 16); ++round) {
        sum += mixed16(text + 16 * round, 16 * (round - 8) + 3);
    }
    return spread(sum + mixed16(text + length - 16, 136 - 17));
}

}  // namespace xxh3

// The hash of a text; false for a longer one than is hashed here.
inline bool id64(const char *text, int64_t length, uint64_t &id) {
    if (length > xxh3::LONGEST) return false;
    const auto bytes = static_cast<uint64_t>(length);
    id = length <= 3     ? xxh3::up_to_3(text, bytes)
         : length <= 8   ? xxh3::from_4_to_8(text, bytes)
         : length <= 16  ? xxh3::from_9_to_16(text, bytes)
         : length <= 128 ? xxh3::from_17_to_128(text, bytes)
                         : xxh3::from_129_to_240(text, bytes);
    return true;
}
