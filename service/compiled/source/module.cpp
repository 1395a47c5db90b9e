// The part of the library that Python imports; see library.py.

#define CTRLIFT_MODULE
#include "python.h"

#include "module.h"

namespace {

int begin(PyObject *) {
    import_array1(-1);
    return 0;
}

PyMethodDef functions[] = {
    method("head_reader", make_head_reader, "Two functions: one reads a request, one says what it lacks."),
    method("slate_reader", make_slate_reader, "A function that reads bodies."),
    method("slate_encoder", make_slate_encoder, "A function that encodes slates."),
    method("reply_writer", make_reply_writer, "A function that writes replies."),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void *>(begin)},
    {0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_compiled", nullptr, 0, functions, slots, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__compiled() { return PyModuleDef_Init(&module); }
