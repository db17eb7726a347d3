"""A low-latency Twilio Media Streams serializer for Pipecat, on Cython codec kernels.

The names below are the package's public interface. They are imported on first use, so that the
codec and the resampler can be used on their own without loading Pipecat.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipecat_twilio.resampler import SincResampler
    from pipecat_twilio.runner import install, uninstall
    from pipecat_twilio.serializer import TwilioFrameSerializer
    from pipecat_twilio.signature import is_valid_signature

__all__ = [
    "SincResampler",
    "TwilioFrameSerializer",
    "install",
    "is_valid_signature",
    "uninstall",
]

_MODULES = {
    "SincResampler": "resampler",
    "TwilioFrameSerializer": "serializer",
    "install": "runner",
    "is_valid_signature": "signature",
    "uninstall": "runner",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
