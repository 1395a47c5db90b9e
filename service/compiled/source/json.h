// Walking over the bytes of a JSON text. Nothing is described here: whatever is not exactly as expected ends the
// walk, and the caller reads the text in another way.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>

struct Text {
    const char *start;
    int32_t length;
};

inline bool same(const Text &text, const char *other, int64_t length) {
    return text.length == length && std::memcmp(text.start, other, static_cast<size_t>(length)) == 0;
}

inline uint64_t eight_bytes(const char *at) {
    uint64_t bytes;
    std::memcpy(&bytes, at, sizeof bytes);
    return bytes;
}

constexpr uint64_t ONES = 0x0101010101010101u, HIGHS = 0x8080808080808080u;

// Whether the bytes are UTF-8: no piece that is torn, longer than need be, a surrogate or beyond the last character.
inline bool valid_utf8(const char *text, int64_t length) {
    const char *at = text, *end = text + length;
    while (at < end) {
        if (end - at >= 8 && (eight_bytes(at) & HIGHS) == 0) {
            at += 8;
            continue;
        }
        const auto first = static_cast<unsigned char>(*at++);
        if (first < 0x80) continue;
        const int behind = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || end - at < behind) return false;
        const auto second = static_cast<unsigned char>(*at);
        const unsigned char lowest = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        const unsigned char highest = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (second < lowest || second > highest) return false;
        for (int place = 1; place < behind; ++place) {
            if ((static_cast<unsigned char>(at[place]) & 0xC0) != 0x80) return false;
        }
        at += behind;
    }
    return true;
}

class Json {
public:
    Json(const char *text, int64_t length) : first_(text), at_(text), end_(text + length) {}

protected:
    static constexpr int DEEPEST = 12;

    const char *first_, *at_, *end_;

    void blank() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    bool take(char wanted) {
        blank();
        if (at_ >= end_ || *at_ != wanted) return false;
        ++at_;
        return true;
    }

    // What the next value begins with; 0 at the end.
    char ahead() {
        blank();
        return at_ < end_ ? *at_ : '\0';
    }

    // After a member: a comma and so one more, or the end.
    bool next(char closing, bool &more) {
        blank();
        if (at_ >= end_) return false;
        const char found = *at_++;
        more = found == ',';
        return more || found == closing;
    }

    bool at_the_end() {
        blank();
        return at_ == end_;
    }

    bool word(const char *wanted, int64_t length) {
        if (end_ - at_ < length || std::memcmp(at_, wanted, static_cast<size_t>(length)) != 0) return false;
        at_ += length;
        return true;
    }

    bool null() { return word("null", 4); }

    // A string without escapes; the caller makes sure that the text is UTF-8.
    bool string(Text &text) {
        if (!take('"')) return false;
        const char *start = at_;
        while (end_ - at_ >= 8 && plain(eight_bytes(at_))) at_ += 8;
        while (at_ < end_ && *at_ != '"') {
            if (static_cast<unsigned char>(*at_) < 0x20 || *at_ == '\\') return false;
            ++at_;
        }
        if (at_ >= end_) return false;
        text = {start, static_cast<int32_t>(at_ - start)};
        ++at_;
        return true;
    }

    // What JSON calls a number and a double can hold; whether it is written without a fraction and an exponent.
    bool number(double &value, bool &whole) {
        static constexpr double POWERS[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                            1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
        const char *start = at_;
        const bool negative = at_ < end_ && *at_ == '-';
        if (negative) ++at_;
        uint64_t mantissa = 0, power = 0;
        const char *leading = at_;
        int64_t count = digits(mantissa), behind = 0;
        if (count == 0 || (count > 1 && *leading == '0')) return false;
        whole = true;
        bool plain = true;
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

    bool number(double &value) {
        bool whole;
        return number(value, whole);
    }

    // A number that float32 can hold too, and a whole one only where a double holds every one up to it.
    bool modest_number(double &value) {
        constexpr double FLOAT32_MAX = 3.4028234663852886e38, FIRST_INEXACT = 9007199254740992.0;
        bool whole;
        if (!number(value, whole)) return false;
        return whole ? std::fabs(value) < FIRST_INEXACT : std::fabs(value) <= FLOAT32_MAX;
    }

    // Any value, checked no further than that it is one.
    bool skip(int depth = 0) {
        if (depth > DEEPEST) return false;
        Text text;
        double value;
        switch (ahead()) {
            case '"':
                return string(text);
            case 't':
                return word("true", 4);
            case 'f':
                return word("false", 5);
            case 'n':
                return null();
            case '[':
            case '{':
                return skip_members(depth);
            default:
                return number(value);
        }
    }

private:
    // Whether none of eight letters ends a string or may not stand in one.
    static bool plain(uint64_t letters) {
        const uint64_t quotes = letters ^ ONES * '"', slashes = letters ^ ONES * '\\';
        const uint64_t controls = (letters - ONES * 0x20) & ~letters;
        return ((((quotes - ONES) & ~quotes) | ((slashes - ONES) & ~slashes) | controls) & HIGHS) == 0;
    }

    // Digits as a whole number, which wraps beyond 19 of them; how many there were.
    int64_t digits(uint64_t &value) {
        const char *start = at_;
        while (at_ < end_ && *at_ >= '0' && *at_ <= '9') value = value * 10 + static_cast<uint64_t>(*at_++ - '0');
        return at_ - start;
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
};
