// The JSON of a reply to /score from the graph's logits, for ReplyWriter of reply.py.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "module.h"

// A text in memory; the same fields in the same order in reply.py.
struct ReplyPiece {
    const char *start;
    int64_t length;
};

// What stands between one task's logit and its probability; the same fields in the same order in reply.py.
struct ReplyTask {
    ReplyPiece probabilities;  // what the members of the reply begin with
    ReplyPiece logits;
    double log_rate;  // z + log_rate, and then + serve_prior - train_prior
    double serve_prior;
    double train_prior;
    double slope;  // (slope z + offset) / temperature
    double offset;
    double temperature;
    int64_t knots;       // points of the curve from the sigmoid to the probability; 0 where there is none
    const double *from;  // (knots)
    const double *to;    // (knots)
};

// All that is the same for every reply; the same fields in the same order in reply.py.
struct ReplyForm {
    const ReplyTask *tasks;  // (K)
    int64_t count;      // K
    int64_t ctr;        // the tasks whose product is one more, or -1
    int64_t cvr;
    ReplyPiece product;
};

namespace {

constexpr double LOWEST = std::numeric_limits<double>::min();
constexpr double HIGHEST = 1.0 - std::numeric_limits<double>::epsilon() / 2;
constexpr int64_t LONGEST_NUMBER = 32;

// Whether letters need no escape in JSON.
bool plain(const char *start, int64_t length) {
    for (int64_t i = 0; i < length; ++i) {
        if (start[i] < ' ' || start[i] > '~' || start[i] == '"' || start[i] == '\\') return false;
    }
    return true;
}

bool finite(const char *logits, int64_t count) {
    for (int64_t place = 0; place < count; ++place) {
        float value;
        std::memcpy(&value, logits + place * sizeof value, sizeof value);
        if (!std::isfinite(value)) return false;
    }
    return true;
}

template <int64_t N>
constexpr ReplyPiece piece(const char (&text)[N]) {
    return {text, N - 1};
}

double bounded(double probability) { return std::min(std::max(probability, LOWEST), HIGHEST); }

// exp of what is not positive cannot overflow, and each half of the line has the form that loses no digits there.
double sigmoid(double z) {
    const double small = std::exp(-std::fabs(z));
    return (z >= 0 ? 1.0 : small) / (1.0 + small);
}

// Straight between the points of a curve, constant outside.
double along(const ReplyTask &task, double x) {
    const int64_t above = std::upper_bound(task.from, task.from + task.knots, x) - task.from;
    if (above == 0) return task.to[0];
    const int64_t below = above - 1;
    if (above == task.knots || task.from[below] == x) return task.to[below];
    const double slope = (task.to[above] - task.to[below]) / (task.from[above] - task.from[below]);
    return slope * (x - task.from[below]) + task.to[below];
}

double probability(const ReplyTask &task, double logit) {
    const double z = logit + task.log_rate + task.serve_prior - task.train_prior;
    const double p = sigmoid((task.slope * z + task.offset) / task.temperature);
    return bounded(task.knots > 0 ? along(task, p) : p);
}

class Writer {
public:
    Writer(const ReplyForm &form, const char *logits, int64_t candidates, char *out)
        : form_(form), logits_(logits), candidates_(candidates), at_(out) {}

    void text(const ReplyPiece &piece) {
        std::memcpy(at_, piece.start, piece.length);
        at_ += piece.length;
    }

    // An array of a number for each candidate, and their sum.
    template <typename Number>
    double array(Number number) {
        double sum = 0;
        for (int64_t candidate = 0; candidate < candidates_; ++candidate) {
            const double value = number(candidate);
            sum += value;
            write(value);
            *at_++ = ',';
        }
        at_[-1] = ']';
        return sum;
    }

    double logit(int64_t candidate, int64_t task) const {
        float value;
        std::memcpy(&value, logits_ + (candidate * form_.count + task) * sizeof value, sizeof value);
        return value;
    }

    // The sums of the probabilities go where the means are wanted.
    void probabilities(const ReplyTask *tasks, double *means) {
        for (int64_t task = 0; task < form_.count; ++task) {
            text(tasks[task].probabilities);
            *means++ = array([&](int64_t candidate) { return probability(tasks[task], logit(candidate, task)); });
        }
        if (form_.ctr < 0) return;
        text(form_.product);
        // Of the corrected factors: correcting the product would correct twice.
        *means = array([&](int64_t candidate) {
            return bounded(probability(tasks[form_.ctr], logit(candidate, form_.ctr)) *
                           probability(tasks[form_.cvr], logit(candidate, form_.cvr)));
        });
    }

    void logits(const ReplyTask *tasks) {
        for (int64_t task = 0; task < form_.count; ++task) {
            text(tasks[task].logits);
            array([&](int64_t candidate) { return logit(candidate, task); });
        }
    }

    void count(int64_t value) { at_ = std::to_chars(at_, at_ + LONGEST_NUMBER, value).ptr; }

    char *at() const { return at_; }

private:
    const ReplyForm &form_;
    const char *logits_;
    int64_t candidates_;
    char *at_;

    // The shortest text that reads back as the same number; with a point or an exponent also where it is whole, so
    // that no reader takes it for an integer.
    void write(double value) {
        char *const start = at_;
        at_ = std::to_chars(at_, at_ + LONGEST_NUMBER, value).ptr;
        if (value == std::trunc(value) && std::find(start, at_, 'e') == at_) {
            *at_++ = '.';
            *at_++ = '0';
        }
    }
};

// What one writer of Python knows: one version of a model.
struct Model {
    static constexpr const char *NAME = "ctrlift.reply";

    Model(PyObject *const *addresses, int64_t texts_bytes, PyObject *const *held)
        : forms{form(addresses[0]), form(addresses[1])}, texts_bytes(texts_bytes), whole(Py_NewRef(held[0])),
          name(Py_NewRef(held[1])), type(Py_NewRef(held[2])), warnings(Py_NewRef(held[3])) {}

    static const ReplyForm *form(PyObject *address) {
        return static_cast<const ReplyForm *>(PyLong_AsVoidPtr(address));
    }

    const ReplyForm *forms[2];  // with the history, and without it
    int64_t texts_bytes;
    // What the forms lie in; name and version as JSON; type of what is made; from missing features to JSON.
    const Held whole, name, type, warnings;
};

// (1, C, K) side by side, or None where they are of another form.
PyObject *side_by_side(PyObject *object, int64_t tasks) {
    auto *array = reinterpret_cast<PyArrayObject *>(object);
    const npy_intp *shape = PyArray_DIMS(array);
    const bool numbers = PyArray_TYPE(array) == NPY_FLOAT32 && PyArray_ISNOTSWAPPED(array);
    if (!numbers || PyArray_NDIM(array) != 3 || shape[0] != 1 || shape[1] == 0 || shape[2] != tasks) Py_RETURN_NONE;
    return PyArray_IS_C_CONTIGUOUS(array) ? Py_NewRef(object) : PyArray_NewCopy(array, NPY_CORDER);
}

PyObject *means_of(const std::vector<double> &means) {
    PyObject *tuple = PyTuple_New(static_cast<Py_ssize_t>(means.size()));
    for (size_t place = 0; tuple != nullptr && place < means.size(); ++place) {
        PyObject *mean = PyFloat_FromDouble(means[place]);
        if (mean == nullptr) Py_CLEAR(tuple);
        else PyTuple_SET_ITEM(tuple, place, mean);
    }
    return tuple;
}

// What a reply says besides its numbers.
struct Facts {
    ReplyPiece id, model, source, warnings;
    int64_t length;

    int64_t bytes() const { return OWN + id.length + model.length + source.length + warnings.length; }

    void write(Writer &writer) const {
        writer.text(piece("{\"request_id\":\""));
        writer.text(id);
        writer.text(piece("\",\"model\":"));
        writer.text(model);
        writer.text(piece(",\"behaviours\":{\"source\":\""));
        writer.text(source);
        writer.text(piece("\",\"length\":"));
        writer.count(length);
        writer.text(piece("},\"degraded\":[],\"warnings\":"));
        writer.text(warnings);
    }

private:
    static constexpr int64_t OWN = 128 + LONGEST_NUMBER;
};

bool text_of(PyObject *object, ReplyPiece &piece) {
    Py_ssize_t length;
    piece.start = PyUnicode_AsUTF8AndSize(object, &length);
    piece.length = length;
    return piece.start != nullptr;
}

PyObject *written(const Model &model, const ReplyForm &form, PyArrayObject *logits, const Facts &facts, bool raw) {
    const int64_t candidates = PyArray_DIM(logits, 1), shown = form.count + (form.ctr >= 0);
    const int64_t numbers = candidates * (shown + (raw ? form.count : 0));
    const int64_t room = model.texts_bytes + facts.bytes() + LONGEST_NUMBER * numbers;
    PyObject *body = PyBytes_FromStringAndSize(nullptr, room);
    if (body == nullptr) return nullptr;
    Writer writer(form, PyArray_BYTES(logits), candidates, PyBytes_AS_STRING(body));
    std::vector<double> means(static_cast<size_t>(shown));
    facts.write(writer);
    writer.probabilities(form.tasks, means.data());
    if (raw) {
        writer.text(piece("}"));
        writer.logits(form.tasks);
    }
    writer.text(piece("}}"));
    for (double &mean : means) mean /= static_cast<double>(candidates);
    if (_PyBytes_Resize(&body, writer.at() - PyBytes_AS_STRING(body)) < 0) return nullptr;
    return named_tuple(model.type.get(), {body, means_of(means)});
}

PyObject *write_reply(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    if (count != 7 || !PyArray_Check(given[0]) || !PyTuple_Check(given[4])) {
        return wrong("(logits, request_id, source, length, missing: tuple, raw, without_history)");
    }
    const auto &model = state_of<Model>(self);
    const int raw = PyObject_IsTrue(given[5]), lost = PyObject_IsTrue(given[6]);
    Facts facts = {{}, {PyBytes_AS_STRING(model.name.get()), PyBytes_GET_SIZE(model.name.get())}, {}, piece("[]"),
                   PyLong_AsLongLong(given[3])};
    if (raw < 0 || lost < 0 || PyErr_Occurred() || !text_of(given[1], facts.id) || !text_of(given[2], facts.source)) {
        return nullptr;
    }
    const ReplyForm &form = *model.forms[lost];
    const Held logits(side_by_side(given[0], form.count));
    if (!logits) return nullptr;
    if (logits.get() == Py_None || !plain(facts.id.start, facts.id.length)) Py_RETURN_NONE;
    auto *const array = reinterpret_cast<PyArrayObject *>(logits.get());
    if (!finite(PyArray_BYTES(array), PyArray_SIZE(array))) Py_RETURN_NONE;
    if (PyTuple_GET_SIZE(given[4]) == 0) return written(model, form, array, facts, raw);
    const Held warnings(PyObject_CallOneArg(model.warnings.get(), given[4]));
    if (!warnings || !text_of(warnings.get(), facts.warnings)) return nullptr;
    return written(model, form, array, facts, raw);
}

PyMethodDef WRITE = method("write", write_reply, "The reply; None where it has to be written in the ordinary way.");

}  // namespace

// (address of the form, of that without history, bytes of the texts, what the forms lie in, model as JSON, type of what
// is made, from missing features to JSON) -> write
PyObject *make_reply_writer(PyObject *, PyObject *const *given, Py_ssize_t count) {
    if (count != 7 || !PyBytes_Check(given[4])) {
        return wrong("(form, form without history, texts_bytes, whole, model: bytes, type, warnings)");
    }
    const int64_t texts_bytes = PyLong_AsLongLong(given[2]);
    const Held capsule(capsule_of(new (std::nothrow) Model(given, texts_bytes, given + 3)));
    return capsule && !PyErr_Occurred() ? PyCFunction_New(&WRITE, capsule.get()) : nullptr;
}
