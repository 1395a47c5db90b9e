// The users of a plain reply to /uplift as JSON: no intervals and no doses; see answers.py for what the caller prepares.

#include <cstdint>

#include "exported.h"
#include "texts.h"

// Texts of any length, one after another.
struct Texts {
    const char *first;
    const int64_t *start;  // of each, and the end of the last one
};

// Letters: U users, A treatments; the same fields in the same order in answers.py.
struct Answers {
    int64_t users, asked, numbers;  // U, A, and the numbers a user has, without the gain
    Texts before;                   // of the user's id, of each number, and of the flags
    Texts overlap;                  // by treatment and flag, (A, 4)
    Texts recommended;              // of nothing, the control and each treatment: all up to the gain
    Texts behind;                   // behind nothing, and behind a gain
    Texts remarks;                  // and the end of the user
    const int64_t *remark;          // (U), which of them
    const char *text;               // the JSON texts of the numbers, the gain last, a comma behind each
    const char *body;               // what ids are cut from
    const int64_t *id_start, *id_stop;  // (U)
    const int8_t *flags;                // (U, A)
    const int64_t *arm;                 // (U), -1 for nothing
};

namespace {

inline char *put(char *out, const Texts &texts, int64_t place) {
    return copy(out, texts.first + texts.start[place], texts.start[place + 1] - texts.start[place]);
}

}  // namespace

// The objects with commas between them; how many bytes they take. The caller has made room for the longest ones.
EXPORTED int64_t ctrlift_write_answers(const Answers *by, char *out) {
    const char *first = out, *number = by->text;
    for (int64_t row = 0; row < by->users; ++row) {
        if (row > 0) *out++ = ',';
        out = put(out, by->before, 0);
        out = copy(out, by->body + by->id_start[row], by->id_stop[row] - by->id_start[row]);
        for (int64_t place = 1; place <= by->numbers; ++place) {
            out = put(out, by->before, place);
            const char *stop = comma(number);
            out = copy(out, number, stop - number);
            number = stop + 1;
        }
        out = put(out, by->before, by->numbers + 1);
        const int8_t *flags = by->flags + row * by->asked;
        for (int64_t place = 0; place < by->asked; ++place) out = put(out, by->overlap, 4 * place + flags[place]);
        const int64_t arm = by->arm[row];
        out = put(out, by->recommended, arm + 1);
        const char *stop = comma(number);
        if (arm >= 0) out = copy(out, number, stop - number);
        number = stop + 1;
        out = put(out, by->behind, arm >= 0);
        out = put(out, by->remarks, by->remark[row]);
    }
    return out - first;
}
