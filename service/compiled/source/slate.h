// What a body of /score says, as reading leaves it for encoding: a Slate and its cells, and at the end of the block the
// members, the last one first. The block is a bytes object of Python and begins where its bytes do.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "fitted.h"

struct Slate {
    double ts;       // NaN where the body does not say
    uint64_t user;   // id64 of the user
    int32_t user_start, user_length;  // start -1: nobody
    int32_t model_start, model_length;
    int32_t raw;
    int32_t candidates;  // C
    int32_t first;       // cell of the first candidate; C of them hold the id64s
    int32_t members;     // features of the user, the context and the candidates
    int64_t size;        // of the block, in bytes
};

enum SlateField { SLATE_BODY = 5, SLATE_BLOCK };  // of the class of slate.py

enum Side : int32_t { USER, CONTEXT, CANDIDATE };
enum Kind : int32_t { NOTHING, NUMBER, TEXT };

// One feature of the body.
struct Member {
    int32_t name_start, name_length;
    int32_t side, kind;
    uint64_t value;  // what value_of takes; of a candidates' feature, the cell of the first of C
};

// Numbers as their bits, NaN for none; texts as their id64, 0 for none.
inline uint64_t bits_of(double number) {
    uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

inline double number_of(uint64_t bits) {
    double number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

constexpr double NO_NUMBER = std::numeric_limits<double>::quiet_NaN();

inline const uint64_t *cells_of(const Slate &slate) { return reinterpret_cast<const uint64_t *>(&slate + 1); }

// One behind the first member; the others lie before it.
inline const Member *members_of(const Slate &slate) {
    return reinterpret_cast<const Member *>(reinterpret_cast<const char *>(&slate) + slate.size);
}
