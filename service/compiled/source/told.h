// What users are told by, as columns: the values of features, read from a JSON object a user.
#pragma once

#include <cstdint>
#include <limits>

#include "json.h"
#include "xxh3.h"

// F features of up to `room` users; the same fields in the same order in users.py.
struct UserTable {
    int64_t room;            // length of every column
    int64_t features;        // F
    const char **names;      // (F), each in quotes and with a colon behind it
    const int32_t *lengths;  // (F) of these in bytes
    const uint8_t *is_id;    // (F), else a number
    double *numbers;         // (F, room), NaN for null and for nothing
    uint64_t *ids;           // (F, room), id64; 0 for null and for nothing
    uint8_t *silent;         // (F, room), 1 where the user does not name the feature
};

class ToldReader : public Json {
public:
    ToldReader(const char *text, int64_t length, const UserTable &told) : Json(text, length), told_(told) {}

protected:
    static constexpr int32_t QUOTES = 3;  // with the colon

    const UserTable &told_;

    // The same as a string and a colon, where nothing stands between them and the string is this one.
    bool key_of(const char *quoted, int64_t length) {
        if (end_ - at_ < length || std::memcmp(at_, quoted, static_cast<size_t>(length)) != 0) return false;
        at_ += length;
        return true;
    }

    // The feature that the next key names, the key behind us; -1 for none, -2 for no key.
    int64_t feature_key(int64_t likely) {
        // Users are mostly told in one order and without blanks, so the feature behind the last one is looked for first.
        if (likely < told_.features && key_of(told_.names[likely], told_.lengths[likely])) return likely;
        Text key;
        if (!string(key) || !take(':')) return -2;
        return find(key, likely);
    }

    int64_t find(const Text &key, int64_t likely) const {
        for (int64_t tried = 0; tried < told_.features; ++tried) {
            int64_t feature = likely + tried;
            if (feature >= told_.features) feature -= told_.features;
            if (same(key, told_.names[feature] + 1, told_.lengths[feature] - QUOTES)) return feature;
        }
        return -1;
    }

    bool text_value(int64_t cell) {
        if (ahead() == 'n') {
            told_.ids[cell] = 0;
            return null();
        }
        Text text;
        return string(text) && id64(text.start, text.length, told_.ids[cell]);
    }

    // `modest`: only a number that every reader takes for the same.
    bool number_value(int64_t cell, bool modest) {
        if (ahead() == 'n') {
            told_.numbers[cell] = std::numeric_limits<double>::quiet_NaN();
            return null();
        }
        return modest ? modest_number(told_.numbers[cell]) : number(told_.numbers[cell]);
    }
};
