// Objects of one shape written side by side as JSON; see rows.py for what the caller prepares.

#include <cstdint>

#include "exported.h"
#include "texts.h"

// A part of every object; the same fields in the same order in rows.py.
struct Part {
    int64_t kind;          // of Kind
    const char *text;      // TEXT, what pieces are cut from, and the texts of MEMBERS one after another
    int64_t length;        // TEXT: of the text; SERIES, MEMBERS: numbers an object
    const uint8_t *known;  // NUMBER: 0 where nothing is written; may be null
    const int64_t *index;  // CHOICE: which piece each object takes; MEMBERS: lengths of the texts before the numbers
    const int64_t *start;  // CHOICE, PIECE: of the pieces
    const int64_t *stop;
};

namespace {

enum Kind { TEXT, NUMBER, CHOICE, PIECE, SERIES, MEMBERS };

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
            } else if (part->kind == MEMBERS) {
                const char *text = part->text;
                for (int64_t place = 0; place < part->length; ++place) {
                    out = copy(out, text, part->index[place]);
                    text += part->index[place];
                    const char *stop = comma(numbers);
                    out = copy(out, numbers, stop - numbers);
                    numbers = stop + 1;
                }
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
