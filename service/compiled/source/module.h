// What Python makes its readers and writers with; each is described where it is.
#pragma once

#include "python.h"

PyObject *make_head_reader(PyObject *, PyObject *const *given, Py_ssize_t count);
PyObject *make_slate_reader(PyObject *, PyObject *const *given, Py_ssize_t count);
PyObject *make_slate_encoder(PyObject *, PyObject *const *given, Py_ssize_t count);
PyObject *make_reply_writer(PyObject *, PyObject *const *given, Py_ssize_t count);
