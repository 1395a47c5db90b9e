// Keys of users as words of a command to a store; see keys.py for what the caller prepares.

#include <charconv>
#include <cstdint>
#include <cstring>

#include "exported.h"

namespace {

inline char *put(char *out, const char *text, int64_t length) {
    std::memcpy(out, text, static_cast<size_t>(length));
    return out + length;
}

}  // namespace

// One word a user: the prefix, the id and a closing brace, its length before it. How many bytes they take; the caller
// has made room for them. Ids are strings in quotes, from each start to its stop.
EXPORTED int64_t ctrlift_pack_keys(
    const char *body, const int64_t *start, const int64_t *stop, int64_t count, const char *prefix, int64_t length, char *out) {
    const char *first = out;
    for (int64_t row = 0; row < count; ++row) {
        const int64_t id = stop[row] - start[row] - 2;
        *out++ = '$';
        out = std::to_chars(out, out + 20, length + id + 1).ptr;
        out = put(out, "\r\n", 2);
        out = put(out, prefix, length);
        out = put(out, body + start[row] + 1, id);
        out = put(out, "}\r\n", 3);
    }
    return out - first;
}
