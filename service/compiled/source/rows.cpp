// Objects of one shape written side by side as JSON; see rows.py for what the caller prepares.

#include <cstdint>
#include <cstring>

#include "exported.h"

// A part of every object; the same fields in the same order in rows.py.
struct Part {
    int64_t kind;          // of Kind
    const char *text;      // TEXT, and what pieces are cut from
    int64_t length;        // TEXT: of the text; SERIES: numbers an object
    const uint8_t *known;  // NUMBER: 0 where nothing is written; may be null
    const int64_t *index;  // CHOICE: which piece each object takes
    const int64_t *start;  // CHOICE, PIECE: of the pieces
    const int64_t *stop;
};

namespace {

enum Kind { TEXT, NUMBER, CHOICE, PIECE, SERIES };

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

}  // namespace

// The objects with commas between them; how many bytes they take. The caller has made room for the longest ones.
// Numbers stand in the order in which they are asked for, a comma behind each.
EXPORTED int64_t ctrlift_write_rows(const Part *parts, int64_t count, int64_t rows, const char *numbers, char *out) {
    const char *first = out;
    for (int64_t row = 0; row < rows; ++row) {
        if (row > 0) *out++ = ',';
        for (const Part *part = parts; part < parts + count; ++part) {
            if (part->kind == TEXT) {
                out = copy(out, part->text, part->length);
            } else if (part->kind == NUMBER) {
                const char *stop = comma(numbers);
                if (part->known == nullptr || part->known[row]) out = copy(out, numbers, stop - numbers);
                numbers = stop + 1;
            } else if (part->kind == SERIES) {
                const char *stop = numbers - 1;
                for (int64_t place = 0; place < part->length; ++place) stop = comma(stop + 1);
                *out++ = '[';
                out = copy(out, numbers, stop - numbers);
                *out++ = ']';
                numbers = stop + 1;
            } else {
                const int64_t piece = part->kind == CHOICE ? part->index[row] : row;
                out = copy(out, part->text + part->start[piece], part->stop[piece] - part->start[piece]);
            }
        }
    }
    return out - first;
}
