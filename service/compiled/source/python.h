// Python's objects and NumPy's arrays. Python's lock is held in all that is said here, and a function returns null
// only where an exception is set.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ctrlift_arrays
#ifndef CTRLIFT_MODULE
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <cstring>
#include <new>

// A reference to an object, given up at the end.
class Held {
public:
    explicit Held(PyObject *object) : object_(object) {}
    Held(const Held &) = delete;
    Held &operator=(const Held &) = delete;
    ~Held() { Py_XDECREF(object_); }

    PyObject *get() const { return object_; }

    PyObject *release() {
        PyObject *object = object_;
        object_ = nullptr;
        return object;
    }

    void replace(PyObject *object) {
        PyObject *old = object_;
        object_ = object;
        Py_XDECREF(old);
    }

    explicit operator bool() const { return object_ != nullptr; }

private:
    PyObject *object_;
};

using Fast = PyObject *(*)(PyObject *self, PyObject *const *given, Py_ssize_t count);

inline PyMethodDef method(const char *name, Fast function, const char *says) {
    // Through a type that converts to any other: METH_FASTCALL is how Python knows what the function really takes.
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, says};
}

// For functions whose arguments are wrong in number or type, which only a mistake of ours can be.
inline PyObject *wrong(const char *wanted) {
    PyErr_Format(PyExc_TypeError, "the arguments must be %s", wanted);
    return nullptr;
}

// What functions know of their maker: a State that lives as long as one of them.
template <typename State>
PyObject *capsule_of(State *state) {
    if (state == nullptr) return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(state, State::NAME, [](PyObject *dying) {
        delete static_cast<State *>(PyCapsule_GetPointer(dying, State::NAME));
    });
    if (capsule == nullptr) delete state;
    return capsule;
}

template <typename State>
State &state_of(PyObject *capsule) {
    return *static_cast<State *>(PyCapsule_GetPointer(capsule, State::NAME));
}

// An instance of a subclass of tuple, made without its own constructor; takes the references, also where it fails.
template <int N>
PyObject *named_tuple(PyObject *type, PyObject *const (&values)[N]) {
    bool whole = true;
    for (PyObject *value : values) whole = whole && value != nullptr;
    auto *const made = reinterpret_cast<PyTypeObject *>(type);
    PyObject *tuple = whole ? made->tp_alloc(made, N) : nullptr;
    for (int place = 0; place < N; ++place) {
        if (tuple != nullptr) PyTuple_SET_ITEM(tuple, place, values[place]);
        else Py_XDECREF(values[place]);
    }
    return tuple;
}

inline PyObject *ascii(const char *start, Py_ssize_t length) {
    PyObject *text = PyUnicode_New(length, 127);
    if (text != nullptr) std::memcpy(PyUnicode_1BYTE_DATA(text), start, length);
    return text;
}
