// Users of a body of /uplift to columns, in one pass over its bytes; see users.py for what the caller prepares.
//
// Nothing is described here: whatever is not exactly as expected ends the reading, and the caller reads the body in
// another way. So a wrong answer can only come from taking too much, never from taking too little.

#include <cstring>

#include "exported.h"
#include "told.h"

// What is looked for and where it goes; the same fields in the same order in users.py.
struct Users {
    UserTable told;
    int64_t *id_start;  // (room) of the user ids, with their quotes
    int64_t *id_stop;   // (room)
    int64_t users_start;  // where the array of users stands in the body
    int64_t users_stop;
    int64_t unsaid;   // features that users do not name, counted over all of them
    int64_t longest;  // bytes of the longest id
};

namespace {

enum Member { USER_ID, FEATURES, NEITHER };

class BodyReader : public ToldReader {
public:
    BodyReader(const char *text, int64_t length, Users &users) : ToldReader(text, length, users.told), out_(users) {}

    // The number of users, or -1.
    int64_t body() {
        if (!valid_utf8(at_, end_ - at_) || !take('{')) return -1;
        int64_t found = -1;
        bool more = !take('}');
        if (!more) return -1;
        while (more) {
            Text key;
            if (!string(key) || !take(':')) return -1;
            if (same(key, "users", 5)) {
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
        return at_the_end() ? found : -1;
    }

private:
    Users &out_;

    int64_t users() {
        if (!take('[')) return -1;
        std::memset(told_.silent, 1, static_cast<size_t>(told_.features * told_.room));
        int64_t row = 0;
        bool more = true;
        while (more) {
            if (row == told_.room || !user(row++) || !next(']', more)) return -1;
        }
        return row;
    }

    bool user(int64_t row) {
        if (!take('{')) return false;
        bool known = false, told = false, more = true;
        while (more) {
            const Member member = member_key();
            if (member == USER_ID) {
                Text id;
                if (known || !string(id) || id.length == 0) return false;
                known = true;
                out_.id_start[row] = id.start - 1 - first_;
                out_.id_stop[row] = at_ - first_;
                if (id.length > out_.longest) out_.longest = id.length;
            } else if (member == FEATURES) {
                if (told || !features(row)) return false;
                told = true;
            } else {
                return false;
            }
            if (!next('}', more)) return false;
        }
        if (!known) return false;
        if (!told) nothing(row, 0);
        return true;
    }

    Member member_key() {
        if (key_of("\"user_id\":", 10)) return USER_ID;
        if (key_of("\"features\":", 11)) return FEATURES;
        Text key;
        if (!string(key) || !take(':')) return NEITHER;
        return same(key, "user_id", 7) ? USER_ID : same(key, "features", 8) ? FEATURES : NEITHER;
    }

    bool features(int64_t row) {
        if (!take('{')) return false;
        int64_t likely = 0, count = 0;
        bool more = !take('}');
        while (more) {
            const int64_t feature = feature_key(likely);
            if (feature < 0) return false;
            const int64_t cell = feature * told_.room + row;
            if (told_.silent[cell] == 0) return false;  // its key stands twice
            told_.silent[cell] = 0;
            if (!(told_.is_id[feature] ? text_value(cell) : number_value(cell, false))) return false;
            likely = feature + 1;
            ++count;
            if (!next('}', more)) return false;
        }
        nothing(row, count);
        return true;
    }

    // What a user did not name, where that is anything.
    void nothing(int64_t row, int64_t named) {
        out_.unsaid += told_.features - named;
        for (int64_t feature = 0; named < told_.features && feature < told_.features; ++feature) {
            const int64_t cell = feature * told_.room + row;
            if (!told_.silent[cell]) continue;
            told_.numbers[cell] = std::numeric_limits<double>::quiet_NaN();
            told_.ids[cell] = 0;
        }
    }
};

// Values as a store keeps them: an object a user, of scalars and lists of scalars.
class StoredReader : public ToldReader {
public:
    StoredReader(const char *text, int64_t length, const UserTable &told, int64_t longest)
        : ToldReader(text, length, told), longest_(longest) {}

    bool users(int64_t count) {
        if (!valid_utf8(at_, end_ - at_)) return false;
        for (int64_t row = 0; row < count; ++row) {
            if (row > 0 && !behind()) return false;
            const char *start = at_;
            if (!over() && !user(row)) return false;
            if (at_ - start > longest_) return false;
        }
        return at_ == end_;
    }

private:
    const int64_t longest_;

    // A NUL stands between two users: JSON has none, so that no value can be torn or run into the next one.
    bool over() const { return at_ == end_ || *at_ == '\0'; }

    bool behind() {
        if (at_ == end_) return false;
        ++at_;
        return true;
    }

    bool user(int64_t row) {
        if (!take('{')) return false;
        int64_t likely = 0;
        bool more = !take('}');
        while (more) {
            const int64_t feature = feature_key(likely);
            if (feature < -1 || !(feature < 0 ? flat() : value(feature, feature * told_.room + row))) return false;
            likely = feature + 1;
            if (!next('}', more)) return false;
        }
        blank();
        mark(row);
        return over();
    }

    // 2 in `silent`: the store has spoken, once. What the request says goes before it, and so does silence before a
    // value of another kind, which is looked over all the same.
    bool value(int64_t feature, int64_t cell) {
        uint8_t &silent = told_.silent[cell];
        if (silent == 2) return false;
        if (silent == 0) return flat();
        silent = 2;
        const char first = ahead();
        if (told_.is_id[feature]) return first == '"' ? text_value(cell) : flat();
        return first == '-' || (first >= '0' && first <= '9') ? number_value(cell, true) : flat();
    }

    void mark(int64_t row) {
        for (int64_t feature = 0; feature < told_.features; ++feature) {
            uint8_t &silent = told_.silent[feature * told_.room + row];
            silent = silent == 1;
        }
    }

    bool scalar() {
        const char first = ahead();
        return first != '[' && first != '{' && skip();
    }

    bool flat() {
        if (ahead() != '[') return scalar();
        ++at_;
        bool more = !take(']');
        while (more) {
            if (!scalar() || !next(']', more)) return false;
        }
        return true;
    }
};

}  // namespace

EXPORTED const char *ctrlift_compiled_digest() { return CTRLIFT_DIGEST; }

// How many users the body has, or -1 where it has to be read in another way.
EXPORTED int64_t ctrlift_read_users(const char *text, int64_t length, Users *users) {
    users->unsaid = users->longest = 0;
    return BodyReader(text, length, *users).body();
}

// What a store says of the features that `count` users are silent about: their values with NULs between them, nothing
// for a user that it does not know. 0, or -1 where the values have to be read in another way; the columns are spoilt then.
EXPORTED int64_t ctrlift_read_stored(const char *text, int64_t length, const UserTable *told, int64_t count, int64_t longest) {
    return StoredReader(text, length, *told, longest).users(count) ? 0 : -1;
}
