"""How the compiled modules take their argument: any C-contiguous buffer."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyObject_GetBuffer


cdef inline int get_buffer(data, Py_buffer *view, str name) except -1:
    """Fills `view`, which the caller releases, or raises an error that names the argument."""
    try:
        return PyObject_GetBuffer(data, view, PyBUF_C_CONTIGUOUS)
    except TypeError:
        raise TypeError(f"{name} must be bytes-like, got {type(data).__name__}") from None
    except (BufferError, ValueError):  # which of the two is up to the object's own type
        raise ValueError(f"{name} must be C-contiguous, got {data!r:.99}") from None
