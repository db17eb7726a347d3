"""Says how the compiled modules are built; everything else is in pyproject.toml.

setuptools hands the `.pyx` sources to Cython, one of the build requirements.
"""

import os
import sys

from setuptools import Extension, setup

# -fno-math-errno and -fno-trapping-math let lrintf be one instruction: nothing here reads errno or
# the floating-point flags. There is no -ffast-math: sums keep the order that the source gives them.
FLAGS = ["/O2"] if sys.platform == "win32" else ["-O3", "-fno-math-errno", "-fno-trapping-math"]

# Lines are traced for `tox -e coverage` only: it makes the loops many times slower.
TRACED = "PIPECAT_TWILIO_COVERAGE" in os.environ
TRACING = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

HEADERS = {
    "ulaw": ["ulaw.h"],
    "resampler": ["fir.h", "fir_whole.h", "floats.h"],
    "base64": ["base64.h"],
    "playback": [],
}

setup(
    ext_modules=[
        Extension(
            f"pipecat_twilio.{name}",
            [f"pipecat_twilio/{name}.pyx"],
            depends=[f"pipecat_twilio/{file}" for file in (*headers, "vectors.h", "buffers.pxd")],
            include_dirs=["pipecat_twilio"],
            extra_compile_args=FLAGS,
            define_macros=TRACING if TRACED else [],
        )
        for name, headers in HEADERS.items()
    ],
    # Objects that another build left behind may have been compiled with other flags.
    options={"build_ext": {"force": True, "cython_directives": {"linetrace": TRACED}}},
)
