"""Builds the compiled modules; everything else about the package is in pyproject.toml."""

import sys

from setuptools import Extension, setup

# Cython replaces parts of setuptools when it is imported, so it comes second.
from Cython.Build import cythonize  # isort: skip

# -fno-math-errno and -fno-trapping-math let lrintf be one instruction; the kernels read neither
# errno nor the floating-point flags. Sums keep the order the source gives them: no -ffast-math.
FLAGS = ["/O2"] if sys.platform == "win32" else ["-O3", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"pipecat_twilio.{name}",
                [f"pipecat_twilio/{name}.pyx"],
                depends=[f"pipecat_twilio/{header}.h", "pipecat_twilio/vectors.h"],
                extra_compile_args=FLAGS,
            )
            for name, header in (("ulaw", "ulaw"), ("resampler", "fir"))
        ],
        compiler_directives={"language_level": 3, "embedsignature": True},
    ),
)
