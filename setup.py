"""Says how the compiled modules are built; everything else is in pyproject.toml.

setuptools hands the `.pyx` sources to Cython, one of the build requirements.
"""

import sys

from setuptools import Extension, setup

# The filter's inner loop takes a tenth longer where it starts in the middle of a cache line. There
# is no -ffast-math: sums keep the order that the source gives them. Debugging symbols would be four
# fifths of a wheel, and hold the folder that it was built in.
FLAGS = ["/O2"] if sys.platform == "win32" else ["-O3", "-falign-loops=64", "-g0"]

FOLDER = "pipecat_twilio/audio"
HEADERS = {"ulaw": "ulaw.h", "resampler": "fir.h"}

setup(
    ext_modules=[
        Extension(
            f"pipecat_twilio.audio.{name}",
            [f"{FOLDER}/{name}.pyx"],
            depends=[f"{FOLDER}/{file}" for file in (header, "vectors.h", "buffers.pxd")],
            include_dirs=[FOLDER],
            extra_compile_args=FLAGS,
        )
        for name, header in HEADERS.items()
    ],
    # Objects that another build left behind may have been compiled with other flags.
    options={"build_ext": {"force": True}},
)
