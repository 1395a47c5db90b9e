// A body of /score in one pass over its bytes, for SlateReader of slate.py. Whatever is wrong or unusual
// ends the reading. So a wrong answer can only come from taking too much, never from taking too little.

#include "slate.h"

#include <cstddef>

#include "json.h"
#include "module.h"
#include "xxh3.h"

namespace {

constexpr double LAST_SECOND = 4294967295.0;

constexpr int32_t MOST_MEMBERS = 256;  // each is compared with all others

struct Limits {
    int64_t candidates, id_bytes;
};

class SlateReader : public Json {
public:
    SlateReader(const char *text, int64_t length, const Limits &limits, Slate &slate, Member *behind)
        : Json(text, length), limits_(limits), slate_(slate), cells_(reinterpret_cast<uint64_t *>(&slate + 1)),
          behind_(behind) {}

    bool body() {
        if (!take('{')) return false;
        bool more = true;
        while (more) {
            Text key;
            if (!string(key) || !take(':') || !field(key) || !next('}', more)) return false;
        }
        return at_the_end() && slate_.candidates > 0 && columns_fit();
    }

private:
    const Limits limits_;
    Slate &slate_;
    uint64_t *cells_;
    Member *behind_;     // of the first member; the others lie before it
    int64_t used_ = 0;   // of the cells
    uint32_t told_ = 0;  // fields that the body had already, by bit

    // Cells grow towards members, and members towards cells.
    bool room_for(int64_t bytes) const {
        const auto *cells = reinterpret_cast<const char *>(cells_ + used_);
        return reinterpret_cast<const char *>(behind_ - slate_.members) - cells >= bytes;
    }

    bool once(uint32_t bit) {
        const bool before = (told_ >> bit) & 1;
        told_ |= 1u << bit;
        return !before;
    }

    bool field(const Text &key) {
        if (same(key, "candidates", 10)) return once(0) && candidates();
        if (same(key, "user_id", 7)) return once(1) && user();
        if (same(key, "context", 7)) return once(2) && features(CONTEXT);
        if (same(key, "user_features", 13)) return once(3) && features(USER);
        if (same(key, "candidate_features", 18)) return once(4) && features(CANDIDATE);
        if (same(key, "ts", 2)) return once(5) && ts();
        if (same(key, "raw", 3)) return once(6) && raw();
        if (same(key, "model", 5)) return once(7) && model();
        return same(key, "behaviours", 10) && once(8) && ahead() == 'n' && null();
    }

    bool id(Text &text) { return string(text) && text.length > 0 && text.length <= limits_.id_bytes; }

    bool user() {
        if (ahead() == 'n') return null();
        Text text;
        if (!id(text) || !id64(text.start, text.length, slate_.user)) return false;
        slate_.user_start = static_cast<int32_t>(text.start - first_);
        slate_.user_length = text.length;
        return true;
    }

    bool model() {
        if (ahead() == 'n') return null();
        Text text;
        if (!string(text) || text.length == 0) return false;
        slate_.model_start = static_cast<int32_t>(text.start - first_);
        slate_.model_length = text.length;
        return true;
    }

    bool ts() {
        const char first = ahead();
        if (first == 'n') return null();
        return first != '-' && number(slate_.ts) && slate_.ts <= LAST_SECOND;
    }

    bool raw() {
        slate_.raw = ahead() == 't';
        return slate_.raw ? word("true", 4) : word("false", 5);
    }

    bool candidates() {
        if (!take('[')) return false;
        slate_.first = static_cast<int32_t>(used_);
        int32_t count = 0;
        bool more = true;
        while (more) {
            Text text;
            if (count == limits_.candidates || !room_for(sizeof *cells_) || !id(text)) return false;
            if (!id64(text.start, text.length, cells_[used_++]) || !next(']', more)) return false;
            ++count;
        }
        slate_.candidates = count;
        return true;
    }

    bool features(Side side) {
        const int32_t begin = slate_.members;
        if (!take('{')) return false;
        bool more = !take('}');
        while (more) {
            Text key;
            if (slate_.members == MOST_MEMBERS || !room_for(sizeof *behind_) || !string(key) || !take(':')) return false;
            for (const Member *other = behind_ - slate_.members; other < behind_ - begin; ++other) {
                if (same(key, first_ + other->name_start, other->name_length)) return false;
            }
            Member &member = behind_[-++slate_.members];
            member = {static_cast<int32_t>(key.start - first_), key.length, side, NOTHING, NO_ID};
            if (!(side == CANDIDATE ? column(member) : scalar(member.kind, member.value))) return false;
            if (!next('}', more)) return false;
        }
        return true;
    }

    // One value; its kind and itself, which is left as it is for null.
    bool scalar(int32_t &kind, uint64_t &value) {
        const char first = ahead();
        if (first == 'n') {
            kind = NOTHING;
            return null();
        }
        if (first == '"') {
            Text text;
            kind = TEXT;
            return string(text) && id64(text.start, text.length, value);
        }
        double number;
        kind = NUMBER;
        if (!modest_number(number)) return false;
        value = bits_of(number);
        return true;
    }

    // A list of values of one kind. Its length stands beside its first cell until all of the body is read.
    bool column(Member &member) {
        if (!take('[')) return false;
        const int64_t begin = used_;
        bool more = !take(']');
        while (more) {
            if (!room_for(sizeof *cells_)) return false;
            int32_t kind;
            uint64_t value = member.kind == TEXT ? NO_ID : bits_of(NO_NUMBER);
            if (!scalar(kind, value) || !next(']', more)) return false;
            if (kind != NOTHING && kind != member.kind) {
                if (member.kind != NOTHING) return false;
                member.kind = kind;
                // What was missing so far was written down as no number.
                for (int64_t cell = begin; kind == TEXT && cell < used_; ++cell) cells_[cell] = NO_ID;
            }
            cells_[used_++] = value;
        }
        member.value = static_cast<uint64_t>(begin) | static_cast<uint64_t>(used_ - begin) << 32;
        return true;
    }

    bool columns_fit() {
        for (Member *member = behind_ - slate_.members; member < behind_; ++member) {
            if (member->side != CANDIDATE) continue;
            if (member->value >> 32 != static_cast<uint64_t>(slate_.candidates)) return false;
            member->value &= 0xFFFFFFFFu;
        }
        return true;
    }
};

constexpr Py_ssize_t LONGEST = 256 * 1024;  // a longer body would hold the event loop for a millisecond
constexpr Py_ssize_t SHORTEST_CELL = 2;       // bytes of a body: 1,
static_assert(offsetof(PyBytesObject, ob_sval) % alignof(Slate) == 0, "a slate lies in a bytes object");

// Whether the body was read; the block then holds what it says.
bool fill(PyObject *body, const Limits &limits, PyObject *block) {
    const char *text = PyBytes_AS_STRING(body);
    const Py_ssize_t length = PyBytes_GET_SIZE(body), size = PyBytes_GET_SIZE(block);
    auto &slate = *reinterpret_cast<Slate *>(PyBytes_AS_STRING(block));
    slate = {NO_NUMBER, NO_ID, -1, 0, -1, 0, 0, 0, 0, 0, size};
    auto *behind = reinterpret_cast<Member *>(PyBytes_AS_STRING(block) + size);
    return valid_utf8(text, length) && SlateReader(text, length, limits, slate, behind).body();
}

PyObject *text_or_none(const char *body, int32_t start, int32_t length) {
    return start < 0 ? Py_NewRef(Py_None) : PyUnicode_DecodeUTF8(body + start, length, nullptr);
}

// (body, limits) -> what it says
PyObject *read_slate(PyObject *type, PyObject *const *given, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(given[0]) || !PyTuple_Check(given[1]) || PyTuple_GET_SIZE(given[1]) != 2) {
        return wrong("(body: bytes, limits: SlateLimits)");
    }
    const Limits limits = {PyLong_AsLongLong(PyTuple_GET_ITEM(given[1], 0)),
                           PyLong_AsLongLong(PyTuple_GET_ITEM(given[1], 1))};
    if (PyErr_Occurred()) return nullptr;
    const Py_ssize_t length = PyBytes_GET_SIZE(given[0]);
    if (length > LONGEST) Py_RETURN_NONE;
    // No part of a body takes more than four times its own bytes.
    const Py_ssize_t cells = 1 + length / SHORTEST_CELL;
    Held block(PyBytes_FromStringAndSize(nullptr, sizeof(Slate) + cells * sizeof(uint64_t)));
    if (!block) return nullptr;
    if (!fill(given[0], limits, block.get())) Py_RETURN_NONE;
    const auto &slate = *reinterpret_cast<const Slate *>(PyBytes_AS_STRING(block.get()));
    const char *body = PyBytes_AS_STRING(given[0]);
    return named_tuple(type, {
        text_or_none(body, slate.user_start, slate.user_length),
        text_or_none(body, slate.model_start, slate.model_length),
        PyBool_FromLong(slate.raw),
        PyLong_FromLong(slate.candidates),
        std::isnan(slate.ts) ? Py_NewRef(Py_None) : PyFloat_FromDouble(slate.ts),
        Py_NewRef(given[0]),
        block.release(),
    });
}

PyMethodDef READ = method("read", read_slate, "What a body says; None where it has to be read in another way.");

}  // namespace

// (type of what is read) -> read
PyObject *make_slate_reader(PyObject *, PyObject *const *given, Py_ssize_t count) {
    return count == 1 ? PyCFunction_New(&READ, given[0]) : wrong("(type)");
}
