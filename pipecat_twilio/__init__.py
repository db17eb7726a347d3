"""The phone side of a Pipecat bot: Twilio Media Streams, on Cython codec kernels.

The names below are the package's public interface. They are imported on first use, so that the
codec and the resampler can be used on their own without loading Pipecat.
"""

from importlib import import_module
from importlib.metadata import version

_PLACES = {  # by name, the module that has it; __init__.pyi has the same for type checkers
    "MarkFrame": "frames",
    "SincResampler": "audio.resampler",
    "SincStreamResampler": "stream_resampler",
    "TwilioFrameSerializer": "serializer",
    "TwilioTransport": "transport",
    "install": "installer",
    "is_valid_signature": "twilio.signature",
    "messages": "twilio.messages",
    "ulaw": "audio.ulaw",
    "uninstall": "installer",
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("pipecat-twilio")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_PLACES[name]}")
    return module if name in ("messages", "ulaw") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
