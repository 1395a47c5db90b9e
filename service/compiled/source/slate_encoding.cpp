// SlateEncoder of slate_encoding.py: what it is given and what it gives, as objects of Python.

#include "slate_encoding.h"

#include "module.h"

namespace {

// Values, and comparisons of candidates with behaviours, that an event loop may wait for.
constexpr int64_t LONG = 200'000;

// What one encoder of Python knows.
struct Encoder {
    static constexpr const char *NAME = "ctrlift.slate_encoding";

    Encoder(const Plan *plan, PyObject *const *held)
        : plan(plan), whole(Py_NewRef(held[0])), slate(Py_NewRef(held[1])), type(Py_NewRef(held[2])),
          arrays(Py_NewRef(held[3])), unseen(Py_NewRef(held[4])), missing(Py_NewRef(held[5])) {}

    const Plan *plan;
    // What the plan lies in; the types of a slate and of what is made of it; tuples of names.
    const Held whole, slate, type, arrays, unseen, missing;
};

// The arrays by their names, as views of the block.
class Views {
public:
    Views(PyObject *names, PyObject *block) : names_(names), block_(block), made_(PyDict_New()) {}

    void add(Array array, int64_t rows, int64_t columns, int type) {
        if (!made_) return;
        auto *const block = reinterpret_cast<PyArrayObject *>(block_);
        const auto &head = *static_cast<const Head *>(PyArray_DATA(block));
        const npy_intp shape[] = {1, rows, columns};
        // Those of the user have two axes.
        const bool flat = array == USER_IDS || array == USER_NUMBERS;
        const Held view(PyArray_New(&PyArray_Type, flat ? 2 : 3, flat ? shape + 1 : shape, type, nullptr,
                                    PyArray_BYTES(block) + head.starts[array], 0, NPY_ARRAY_CARRAY, nullptr));
        if (!view || PyArray_SetBaseObject(reinterpret_cast<PyArrayObject *>(view.get()), Py_NewRef(block_)) < 0 ||
            PyDict_SetItem(made_.get(), PyTuple_GET_ITEM(names_, array), view.get()) < 0) {
            made_.replace(nullptr);
        }
    }

    PyObject *release() { return made_.release(); }

private:
    PyObject *names_, *block_;
    Held made_;
};

PyObject *arrays_of(const Encoder &encoder, PyObject *block, int64_t candidates) {
    const Plan &plan = *encoder.plan;
    const int64_t steps = static_cast<const Head *>(PyArray_DATA(reinterpret_cast<PyArrayObject *>(block)))->steps;
    Views views(encoder.arrays.get(), block);
    views.add(USER_IDS, 1, plan.user_id_width, NPY_INT64);
    views.add(USER_NUMBERS, 1, plan.user_number_width, NPY_FLOAT32);
    views.add(CANDIDATE_IDS, candidates, plan.candidate_id_width, NPY_INT64);
    views.add(CANDIDATE_NUMBERS, candidates, plan.candidate_number_width, NPY_FLOAT32);
    views.add(STEP_IDS, steps, plan.step_id_width, NPY_INT64);
    views.add(STEP_NUMBERS, steps, plan.step_number_width, NPY_FLOAT32);
    views.add(MASK, steps, plan.masks, NPY_BOOL);
    return views.release();
}

PyObject *unseen_of(const Encoder &encoder, const Head &head, const char *block) {
    PyObject *unseen = PyDict_New();
    if (head.unseen == 0) return unseen;
    const auto *counts = reinterpret_cast<const int64_t *>(block + head.counts);
    for (int64_t field = 0; unseen != nullptr && field < encoder.plan->unseen_count; ++field) {
        if (counts[field] <= 0) continue;
        const Held count(PyLong_FromLongLong(counts[field]));
        if (!count || PyDict_SetItem(unseen, PyTuple_GET_ITEM(encoder.unseen.get(), field), count.get()) < 0) {
            Py_CLEAR(unseen);
        }
    }
    return unseen;
}

PyObject *missing_of(const Encoder &encoder, const Head &head, const char *block) {
    PyObject *missing = PyTuple_New(head.missing);
    Py_ssize_t place = 0;
    for (int64_t flag = 0; missing != nullptr && flag < encoder.plan->missing_count; ++flag) {
        if (!block[head.flags + flag]) continue;
        PyTuple_SET_ITEM(missing, place++, Py_NewRef(PyTuple_GET_ITEM(encoder.missing.get(), flag)));
    }
    return missing;
}

bool bytes_or_none(PyObject *object) { return object == Py_None || PyBytes_Check(object); }

PyObject *encode_slate(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    const auto &encoder = state_of<Encoder>(self);
    if (count != 5 || !Py_IS_TYPE(given[0], reinterpret_cast<PyTypeObject *>(encoder.slate.get())) ||
        !bytes_or_none(given[1]) || !bytes_or_none(given[2])) {
        return wrong("(slate: Slate, sequence: bytes | None, features: bytes | None, max_events: int, now: float)");
    }
    const int64_t most = PyLong_AsLongLong(given[3]);
    const double now = PyFloat_AsDouble(given[4]);
    if (PyErr_Occurred()) return nullptr;
    const Stored stored = {
        given[1] == Py_None ? nullptr : PyBytes_AS_STRING(given[1]),
        given[1] == Py_None ? 0 : PyBytes_GET_SIZE(given[1]),
        given[2] == Py_None ? nullptr : PyBytes_AS_STRING(given[2]),
        given[2] == Py_None ? 0 : PyBytes_GET_SIZE(given[2]),
    };
    const Plan &plan = *encoder.plan;
    const auto &slate = *reinterpret_cast<const Slate *>(PyBytes_AS_STRING(PyTuple_GET_ITEM(given[0], SLATE_BLOCK)));
    const int64_t events = std::min(most, stored.sequence_length / History::RECORD);
    const int64_t columns = plan.candidate_id_width + plan.candidate_number_width;
    if (slate.candidates * (columns + events * plan.match_count) > LONG) Py_RETURN_NONE;
    npy_intp room = room_for(plan, slate.candidates, events);
    const Held block(PyArray_ZEROS(1, &room, NPY_UINT8, 0));
    if (!block) return nullptr;
    char *start = PyArray_BYTES(reinterpret_cast<PyArrayObject *>(block.get()));
    const char *body = PyBytes_AS_STRING(PyTuple_GET_ITEM(given[0], SLATE_BODY));
    if (!Encoding(plan, slate, body, Room(start, room)).run(stored, most, now)) Py_RETURN_NONE;
    const auto &head = *reinterpret_cast<const Head *>(start);
    return named_tuple(encoder.type.get(), {
        arrays_of(encoder, block.get(), slate.candidates),
        PyLong_FromLongLong(head.length),
        unseen_of(encoder, head, start),
        missing_of(encoder, head, start),
    });
}

PyMethodDef ENCODE = method("encode", encode_slate, "The network's inputs; None where the ordinary way has to answer.");

}  // namespace

// (address of the plan, what it lies in, type of slates, type of what is made, names of the arrays, names of fields
// whose unseen ids are counted, names of features that may be missing) -> encode
PyObject *make_slate_encoder(PyObject *, PyObject *const *given, Py_ssize_t count) {
    if (count != 7) return wrong("(address, plan, slate, type, arrays, unseen, missing)");
    const auto *plan = static_cast<const Plan *>(PyLong_AsVoidPtr(given[0]));
    if (plan == nullptr) return PyErr_Occurred() ? nullptr : wrong("the address of a plan first");
    const Held capsule(capsule_of(new (std::nothrow) Encoder(plan, given + 1)));
    return capsule ? PyCFunction_New(&ENCODE, capsule.get()) : nullptr;
}
