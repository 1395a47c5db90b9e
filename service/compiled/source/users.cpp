// Users of a body of /uplift to columns, in one pass over its bytes; see users.py for what the caller prepares.
//
// Nothing is described here: whatever is not exactly as expected ends the reading, and the caller reads the body in
// another way. So a wrong answer can only come from taking too much, never from taking too little.

#include <charconv>
#include <cstdint>
#include <cstring>
#include <limits>

#include "exported.h"

namespace {

struct Text {
    const char *start;
    int32_t length;
};

}  // namespace

// What is looked for and where it goes; the same fields in the same order in users.py.
struct Users {
    int64_t most;            // users at most; the length of every column
    int64_t features;        // F
    const char **names;      // (F)
    const int32_t *lengths;  // (F) of the names in bytes
    const uint8_t *is_id;    // (F)
    double *numbers;         // (F, most), NaN for null and for nothing
    int32_t *codes;          // (F, most), which of the column's different texts; -1 for null and for nothing
    uint8_t *silent;         // (F, most), 1 where the user does not name the feature
    int32_t *text_start;     // (F, most), the different texts of a column, by code
    int32_t *text_length;    // (F, most)
    int32_t *texts;          // (F) how many there are
    int32_t *slots;          // (F, table) scratch, table a power of two of at least 2 most
    int64_t table;
    int32_t *id_start;   // (most) of the user ids
    int32_t *id_length;  // (most)
    int64_t users_start;  // where the array of users stands in the body
    int64_t users_stop;
};

namespace {

class Reader {
public:
    Reader(const char *text, int64_t length, Users &users) : first_(text), at_(text), end_(text + length), out_(users) {}

    // The number of users, or -1.
    int64_t body() {
        if (!take('{')) return -1;
        int64_t found = -1;
        bool more = !take('}');
        if (!more) return -1;
        while (more) {
            Text key;
            if (!string(key) || !take(':')) return -1;
            if (is(key, "users", 5)) {
                if (found >= 0) return -1;
                blank();
                out_.users_start = at_ - first_;
                found = users();
                if (found < 1) return -1;
                out_.users_stop = at_ - first_;
            } else if (!skip()) {
                return -1;
            }
            if (!next('}', more)) return -1;
        }
        blank();
        return at_ == end_ ? found : -1;
    }

private:
    static constexpr int DEEPEST = 12;

    const char *first_, *at_, *end_;
    Users &out_;

    void blank() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    bool take(char wanted) {
        blank();
        if (at_ >= end_ || *at_ != wanted) return false;
        ++at_;
        return true;
    }

    // After a member: a comma and so one more, or the end.
    bool next(char closing, bool &more) {
        blank();
        if (at_ >= end_) return false;
        const char found = *at_++;
        more = found == ',';
        return more || found == closing;
    }

    static bool is(const Text &text, const char *other, int32_t length) {
        return text.length == length && std::memcmp(text.start, other, length) == 0;
    }

    bool word(const char *wanted, int64_t length) {
        if (end_ - at_ < length || std::memcmp(at_, wanted, length) != 0) return false;
        at_ += length;
        return true;
    }

    // A string without escapes; the caller has made sure that the text is UTF-8.
    bool string(Text &text) {
        if (!take('"')) return false;
        const char *start = at_;
        while (at_ < end_ && *at_ != '"') {
            if (static_cast<unsigned char>(*at_) < 0x20 || *at_ == '\\') return false;
            ++at_;
        }
        if (at_ >= end_) return false;
        text = {start, static_cast<int32_t>(at_ - start)};
        ++at_;
        return true;
    }

    // Digits as a whole number, which wraps beyond 19 of them; how many there were.
    int64_t digits(uint64_t &value) {
        const char *start = at_;
        while (at_ < end_ && *at_ >= '0' && *at_ <= '9') value = value * 10 + static_cast<uint64_t>(*at_++ - '0');
        return at_ - start;
    }

    // What JSON calls a number and a double can hold.
    bool number(double &value) {
        static constexpr double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                            1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
        const char *start = at_;
        const bool negative = at_ < end_ && *at_ == '-';
        if (negative) ++at_;
        uint64_t mantissa = 0, power = 0;
        const char *leading = at_;
        int64_t count = digits(mantissa), behind = 0;
        if (count == 0 || (count > 1 && *leading == '0')) return false;
        bool whole = true, plain = true;
        if (at_ < end_ && *at_ == '.') {
            whole = false;
            ++at_;
            behind = digits(mantissa);
            if (behind == 0) return false;
        }
        if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
            whole = plain = false;
            ++at_;
            if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
            if (digits(power) == 0) return false;
        }
        // Both are exact in a double, and so the quotient is the nearest double to what is written.
        if (plain && count + behind <= 15) {
            value = static_cast<double>(mantissa) / POWERS[behind];
            if (negative && !(whole && mantissa == 0)) value = -value;  // the whole number -0 is 0
            return true;
        }
        const auto read = std::from_chars(start, at_, value);
        if (read.ec != std::errc() || read.ptr != at_) return false;
        if (whole && value == 0) value = 0;
        return true;
    }

    // Any value, checked no further than that it is one.
    bool skip(int depth = 0) {
        blank();
        if (at_ >= end_ || depth > DEEPEST) return false;
        Text text;
        double value;
        switch (*at_) {
            case '"':
                return string(text);
            case 't':
                return word("true", 4);
            case 'f':
                return word("false", 5);
            case 'n':
                return word("null", 4);
            case '[':
            case '{':
                return skip_members(depth);
            default:
                return number(value);
        }
    }

    bool skip_members(int depth) {
        const bool object = *at_ == '{';
        const char closing = object ? '}' : ']';
        ++at_;
        bool more = !take(closing);
        while (more) {
            Text key;
            if (object && (!string(key) || !take(':'))) return false;
            if (!skip(depth + 1) || !next(closing, more)) return false;
        }
        return true;
    }

    int64_t users() {
        if (!take('[')) return -1;
        std::memset(out_.slots, 0xFF, out_.features * out_.table * sizeof(int32_t));
        std::memset(out_.silent, 1, out_.features * out_.most);
        int64_t row = 0;
        bool more = true;
        while (more) {
            if (row == out_.most || !user(row++) || !next(']', more)) return -1;
        }
        return row;
    }

    bool user(int64_t row) {
        if (!take('{')) return false;
        out_.id_length[row] = 0;
        bool told = false, more = true;
        while (more) {
            Text key;
            if (!string(key) || !take(':')) return false;
            if (is(key, "user_id", 7)) {
                Text id;
                if (out_.id_length[row] != 0 || !string(id) || id.length == 0) return false;
                out_.id_start[row] = static_cast<int32_t>(id.start - first_);
                out_.id_length[row] = id.length;
            } else if (is(key, "features", 8)) {
                if (told || !features(row)) return false;
                told = true;
            } else {
                return false;
            }
            if (!next('}', more)) return false;
        }
        if (out_.id_length[row] == 0) return false;
        if (!told) {
            for (int64_t feature = 0; feature < out_.features; ++feature) nothing(feature, row);
        }
        return true;
    }

    bool features(int64_t row) {
        if (!take('{')) return false;
        int64_t likely = 0, count = 0;
        bool more = !take('}');
        while (more) {
            Text key;
            if (!string(key) || !take(':')) return false;
            const int64_t feature = find(key, likely);
            if (feature < 0) return false;
            const int64_t cell = feature * out_.most + row;
            if (out_.silent[cell] == 0) return false;  // its key stands twice
            out_.silent[cell] = 0;
            if (!(out_.is_id[feature] ? text_value(feature, cell) : number_value(cell))) return false;
            likely = feature + 1;
            ++count;
            if (!next('}', more)) return false;
        }
        for (int64_t feature = 0; count < out_.features && feature < out_.features; ++feature) {
            if (out_.silent[feature * out_.most + row]) nothing(feature, row);
        }
        return true;
    }

    void nothing(int64_t feature, int64_t row) {
        const int64_t cell = feature * out_.most + row;
        out_.numbers[cell] = std::numeric_limits<double>::quiet_NaN();
        out_.codes[cell] = -1;
    }

    // Users are mostly told in one order, so the feature behind the last one is looked at first.
    int64_t find(const Text &key, int64_t likely) const {
        for (int64_t tried = 0; tried < out_.features; ++tried) {
            const int64_t feature = (likely + tried) % out_.features;
            if (is(key, out_.names[feature], out_.lengths[feature])) return feature;
        }
        return -1;
    }

    bool number_value(int64_t cell) {
        blank();
        if (at_ < end_ && *at_ == 'n') {
            out_.numbers[cell] = std::numeric_limits<double>::quiet_NaN();
            return word("null", 4);
        }
        return number(out_.numbers[cell]);
    }

    bool text_value(int64_t feature, int64_t cell) {
        blank();
        if (at_ < end_ && *at_ == 'n') {
            out_.codes[cell] = -1;
            return word("null", 4);
        }
        Text text;
        if (!string(text)) return false;
        out_.codes[cell] = code(feature, text);
        return true;
    }

    // The place of a text among the different ones of its column.
    int32_t code(int64_t feature, const Text &text) {
        uint64_t hash = 14695981039346656037u;  // FNV-1a
        for (int32_t i = 0; i < text.length; ++i) hash = (hash ^ static_cast<unsigned char>(text.start[i])) * 1099511628211u;
        int32_t *slots = out_.slots + feature * out_.table;
        int32_t *start = out_.text_start + feature * out_.most, *length = out_.text_length + feature * out_.most;
        for (uint64_t slot = hash ^ (hash >> 32);; ++slot) {
            int32_t &known = slots[slot & (out_.table - 1)];
            if (known < 0) {
                known = out_.texts[feature]++;
                start[known] = static_cast<int32_t>(text.start - first_);
                length[known] = text.length;
                return known;
            }
            if (is(text, first_ + start[known], length[known])) return known;
        }
    }
};

}  // namespace

EXPORTED const char *ctrlift_compiled_digest() { return CTRLIFT_DIGEST; }

// How many users the body has, or -1 where it has to be read in another way.
EXPORTED int64_t ctrlift_read_users(const char *text, int64_t length, Users *users) {
    for (int64_t feature = 0; feature < users->features; ++feature) users->texts[feature] = 0;
    return Reader(text, length, *users).body();
}
