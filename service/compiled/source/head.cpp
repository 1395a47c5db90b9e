// The head of a plain request, for HeadReader of head.py.
//
// Another parser, and maybe a proxy before it, reads the same bytes. Where two readers could differ about where a
// request ends, one of them may be lied to, so whatever is not plain is left to the other parser: nothing is repaired
// or skipped here.

#include <chrono>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

#include <unistd.h>

#include "module.h"

namespace {

constexpr int64_t OTHERS = 3;
constexpr int64_t LONGEST_ID = 128;
constexpr int64_t TRACEPARENT = 55;
constexpr int64_t RANDOM = 10 + 16 + 8;  // bytes of an id, a trace and a span
constexpr int64_t AT_ONCE = 120;         // requests that one call of the system's generator is enough for

struct Text {
    const char *start;
    int64_t length;
};

using Routes = std::vector<Text>;  // paths that are answered here

// What a head says.
struct Head {
    int64_t path;          // which of the routes
    int64_t header_bytes;  // of all names and values
    int64_t id_length;
    int64_t kept;                 // whether there is one of the others
    int64_t other_start[OTHERS];  // of their values
    int64_t other_stop[OTHERS];   // 0 where there is none
    char traceparent[TRACEPARENT];
    char id[LONGEST_ID];
};

// Names in lower case; the first OTHERS are kept for the caller.
enum Name { AUTHORIZATION, API_KEY, DEADLINE, HOST, LENGTH, TYPE, CONNECTION, REQUEST_ID, TRACE, REFUSED, PLAIN };

struct Known {
    const char *text;
    int64_t length;
    Name name;
};

constexpr Known KNOWN[] = {
    {"authorization", 13, AUTHORIZATION},
    {"x-api-key", 9, API_KEY},
    {"x-request-deadline-ms", 21, DEADLINE},
    {"host", 4, HOST},
    {"content-length", 14, LENGTH},
    {"content-type", 12, TYPE},
    {"connection", 10, CONNECTION},
    {"x-request-id", 12, REQUEST_ID},
    {"traceparent", 11, TRACE},
    {"transfer-encoding", 17, REFUSED},
    {"content-encoding", 16, REFUSED},
    {"expect", 6, REFUSED},
    {"upgrade", 7, REFUSED},
    {"trailer", 7, REFUSED},
    {"te", 2, REFUSED},
};

inline char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter | 0x20) : letter; }

inline bool digit(char letter) { return letter >= '0' && letter <= '9'; }

inline bool alphanumeric(char letter) {
    return digit(letter) || (lower(letter) >= 'a' && lower(letter) <= 'z');
}

// A letter of a header's name, by RFC 9110.
inline bool token(char letter) {
    return alphanumeric(letter) || (letter != '\0' && std::strchr("-_!#$%&'*+.^`|~", letter) != nullptr);
}

// Begins with a text, which is in lower case.
bool begins(const Text &text, const char *wanted, int64_t length) {
    if (text.length < length) return false;
    for (int64_t i = 0; i < length; ++i) {
        if (lower(text.start[i]) != wanted[i]) return false;
    }
    return true;
}

Name named(const Text &name) {
    for (const Known &known : KNOWN) {
        if (name.length == known.length && begins(name, known.text, known.length)) return known.name;
    }
    return begins(name, "proxy-", 6) ? REFUSED : PLAIN;
}

// JSON, whatever parameters it has.
bool json(const Text &value) {
    if (!begins(value, "application/json", 16)) return false;
    int64_t at = 16;
    while (at < value.length && (value.start[at] == ' ' || value.start[at] == '\t')) ++at;
    return at == value.length || value.start[at] == ';';
}

bool id(const Text &value) {
    if (value.length > LONGEST_ID) return false;
    for (int64_t i = 0; i < value.length; ++i) {
        const char letter = value.start[i];
        if (!alphanumeric(letter) && letter != '.' && letter != '_' && letter != '-') return false;
    }
    return true;
}

// Lower-case hexadecimal digits, and whether one of them is not 0.
bool hexadecimal(const char *start, int64_t length, bool &some) {
    some = false;
    for (int64_t i = 0; i < length; ++i) {
        if (!digit(start[i]) && !(start[i] >= 'a' && start[i] <= 'f')) return false;
        some = some || start[i] != '0';
    }
    return true;
}

bool trace(const Text &value) {
    const char *text = value.start;
    bool trace_id, span, flags;
    return value.length == TRACEPARENT && text[0] == '0' && text[1] == '0' && text[2] == '-' && text[35] == '-' &&
           text[52] == '-' && hexadecimal(text + 3, 32, trace_id) && trace_id && hexadecimal(text + 36, 16, span) &&
           span && hexadecimal(text + 53, 2, flags);
}

char *write_hexadecimal(const uint8_t *bytes, int64_t count, char *out) {
    for (int64_t i = 0; i < count; ++i) {
        *out++ = "0123456789abcdef"[bytes[i] >> 4];
        *out++ = "0123456789abcdef"[bytes[i] & 15];
    }
    return out;
}

// A UUID of version 7 of the time and 10 random bytes.
int64_t write_id(const uint8_t *random, char *out) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto time = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
    uint8_t bytes[16];
    for (int i = 0; i < 6; ++i) bytes[i] = static_cast<uint8_t>(time >> (40 - 8 * i));
    std::memcpy(bytes + 6, random, 10);
    bytes[6] = (bytes[6] & 0x0F) | 0x70;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    char *at = out;
    const uint8_t *next = bytes;
    for (const int count : {4, 2, 2, 2, 6}) {
        if (next > bytes) *at++ = '-';
        at = write_hexadecimal(next, count, at);
        next += count;
    }
    return at - out;
}

class Reader {
public:
    Reader(const char *data, int64_t length, Head &out) : first_(data), at_(data), end_(data + length), out_(out) {}

    // Where the body begins; -1 where the request is not plain, and n less where only the last n bytes are missing.
    int64_t read(const Routes &routes, const uint8_t *random) {
        if (!request_line(routes)) return -1;
        for (int64_t lines = 0; !word("\r\n", 2); ++lines) {
            if (lines == MOST_LINES || !header()) return -1;
        }
        if (!seen_[HOST] || !seen_[TYPE] || !seen_[LENGTH] || end_ - at_ > body_length_) return -1;
        if (end_ - at_ < body_length_) return -1 - (body_length_ - (end_ - at_));
        if (random != nullptr) identify(random);
        return at_ - first_;
    }

private:
    static constexpr int64_t MOST_LINES = 64, MOST_DIGITS = 18;

    const char *first_, *at_, *end_;
    Head &out_;
    bool seen_[PLAIN + 1] = {};
    int64_t body_length_ = 0;
    Text id_ = {nullptr, 0}, trace_ = {nullptr, 0};

    bool word(const char *wanted, int64_t length) {
        if (end_ - at_ < length || std::memcmp(at_, wanted, length) != 0) return false;
        at_ += length;
        return true;
    }

    bool request_line(const Routes &routes) {
        if (!word("POST ", 5)) return false;
        const auto count = static_cast<int64_t>(routes.size());
        for (out_.path = 0; out_.path < count; ++out_.path) {
            const char *start = at_;
            const Text &path = routes[static_cast<size_t>(out_.path)];
            if (word(path.start, path.length) && word(" HTTP/1.1\r\n", 11)) return true;
            at_ = start;
        }
        return false;
    }

    // A name, a colon right behind it, and a value that neither begins nor ends with a blank.
    bool header() {
        Text name = {at_, 0}, value;
        while (at_ < end_ && token(*at_)) ++at_;
        name.length = at_ - name.start;
        if (name.length == 0 || !word(":", 1)) return false;
        while (at_ < end_ && *at_ == ' ') ++at_;
        value.start = at_;
        while (at_ < end_ && ((*at_ >= ' ' && *at_ <= '~') || *at_ == '\t')) ++at_;
        value.length = at_ - value.start;
        if (value.length == 0 || *value.start == '\t' || at_[-1] == ' ' || at_[-1] == '\t') return false;
        out_.header_bytes += name.length + value.length;
        return word("\r\n", 2) && keep(named(name), value);
    }

    bool keep(Name name, const Text &value) {
        const bool again = seen_[name];
        seen_[name] = true;
        switch (name) {
            case HOST:
                return !again;
            case LENGTH:
                return !again && length_of_body(value);
            case TYPE:
                return !again && json(value);
            case CONNECTION:
                return !again && value.length == 10 && begins(value, "keep-alive", 10);
            case REFUSED:
                return false;
            case REQUEST_ID:
                if (id_.length == 0 && id(value)) id_ = value;
                return true;
            case TRACE:
                if (trace_.length == 0 && trace(value)) trace_ = value;
                return true;
            case PLAIN:
                return true;
            default:
                if (again) return true;
                out_.kept = 1;
                out_.other_start[name] = value.start - first_;
                out_.other_stop[name] = out_.other_start[name] + value.length;
                return true;
        }
    }

    bool length_of_body(const Text &value) {
        if (value.length > MOST_DIGITS || (value.length > 1 && *value.start == '0')) return false;
        for (int64_t i = 0; i < value.length; ++i) {
            if (!digit(value.start[i])) return false;
            body_length_ = body_length_ * 10 + (value.start[i] - '0');
        }
        return true;
    }

    // What the caller says of itself, and what is made up where it is silent: 10 random bytes are for the id, 16 for
    // the trace, 8 for the span.
    void identify(const uint8_t *random) {
        if (id_.length > 0) {
            std::memcpy(out_.id, id_.start, id_.length);
            out_.id_length = id_.length;
        } else {
            out_.id_length = write_id(random, out_.id);
        }
        char *at = out_.traceparent;
        if (trace_.length > 0) {
            std::memcpy(at, trace_.start, TRACEPARENT);
        } else {
            std::memcpy(at, "00-", 3);
            write_hexadecimal(random + 10, 16, at + 3);
            std::memcpy(at + 35, "-................-00", 20);
        }
        write_hexadecimal(random + 26, 8, at + 36);
    }
};

// What one reader of Python knows.
struct Reading {
    static constexpr const char *NAME = "ctrlift.head";

    Reading(PyObject *paths, PyObject *type, PyObject *generator)
        : paths(Py_NewRef(paths)), type(Py_NewRef(type)), generator(Py_NewRef(generator)), random(nullptr) {}

    const Held paths, type, generator;  // of texts; of what is read; of random bytes
    Routes routes;
    Held random;
    int64_t used = 0;  // of its bytes
    pid_t process = 0;
};

// Whether there are random bytes for one request: the old ones may be used up, or belong to the process that this one
// was forked from.
bool draw(Reading &reading) {
    const pid_t process = getpid();
    if (reading.random && reading.used < AT_ONCE * RANDOM && reading.process == process) return true;
    const auto size = static_cast<long long>(AT_ONCE * RANDOM);
    reading.random.replace(PyObject_CallFunction(reading.generator.get(), "L", size));
    reading.used = 0;
    reading.process = process;
    return static_cast<bool>(reading.random);
}

int64_t read_head(const Reading &reading, PyObject *data, const uint8_t *random, Head &head) {
    head.header_bytes = head.kept = 0;
    for (int64_t &stop : head.other_stop) stop = 0;
    return Reader(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), head).read(reading.routes, random);
}

PyObject *others_of(const Head &head, const char *data) {
    PyObject *others = PyDict_New();
    for (int64_t other = 0; others != nullptr && head.kept && other < OTHERS; ++other) {
        if (head.other_stop[other] == 0) continue;
        const Held value(ascii(data + head.other_start[other], head.other_stop[other] - head.other_start[other]));
        if (!value || PyDict_SetItemString(others, KNOWN[other].text, value.get()) < 0) Py_CLEAR(others);
    }
    return others;
}

PyObject *read_request(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    if (count != 1 || !PyBytes_Check(given[0])) return wrong("(data: bytes)");
    auto &reading = state_of<Reading>(self);
    if (!draw(reading)) return nullptr;
    const auto *random = reinterpret_cast<const uint8_t *>(PyBytes_AS_STRING(reading.random.get())) + reading.used;
    const char *data = PyBytes_AS_STRING(given[0]);
    Head head;
    const int64_t start = read_head(reading, given[0], random, head);
    if (start < 0) Py_RETURN_NONE;
    reading.used += RANDOM;
    PyObject *path = PyTuple_GET_ITEM(reading.paths.get(), head.path);
    return named_tuple(reading.type.get(), {
        Py_NewRef(path),
        PyBytes_FromStringAndSize(data + start, PyBytes_GET_SIZE(given[0]) - start),
        PyLong_FromLongLong(head.header_bytes),
        PyLong_FromSsize_t(PyUnicode_GET_LENGTH(path)),
        ascii(head.id, head.id_length),
        ascii(head.traceparent + 3, 32),
        ascii(head.traceparent, TRACEPARENT),
        others_of(head, data),
    });
}

PyObject *awaits(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    if (count != 1 || !PyBytes_Check(given[0])) return wrong("(data: bytes)");
    Head head;
    const int64_t start = read_head(state_of<Reading>(self), given[0], nullptr, head);
    return PyLong_FromLongLong(start < -1 ? -1 - start : 0);
}

PyMethodDef READ = method("read", read_request, "One whole request; None where the server's own parser has to read it.");
PyMethodDef AWAITS = method("awaits", awaits, "How many bytes of its body a plain request lacks, else 0.");

}  // namespace

// (paths: tuple of ASCII texts, type of what is read, random bytes) -> (read, awaits)
PyObject *make_head_reader(PyObject *, PyObject *const *given, Py_ssize_t count) {
    if (count != 3 || !PyTuple_Check(given[0])) return wrong("(paths, type, generator)");
    auto *reading = new (std::nothrow) Reading(given[0], given[1], given[2]);
    const Held capsule(capsule_of(reading));
    if (!capsule) return nullptr;
    for (Py_ssize_t place = 0; place < PyTuple_GET_SIZE(given[0]); ++place) {
        Py_ssize_t length;
        const char *path = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(given[0], place), &length);
        if (path == nullptr) return nullptr;
        reading->routes.push_back({path, length});
    }
    return Py_BuildValue("(NN)", PyCFunction_New(&READ, capsule.get()), PyCFunction_New(&AWAITS, capsule.get()));
}
