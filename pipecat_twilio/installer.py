"""Puts this package's classes where Pipecat's own code looks for them.

Pipecat's runner builds the serializer and the transport itself, and its services make resamplers
through a factory. So `install` replaces these names wherever they are defined or were imported.
"""

import inspect
import sys
from abc import ABCMeta
from copy import copy
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from loguru import logger
from pipecat import version
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pydantic import BaseModel

from pipecat_twilio.params import check_lead_secs
from pipecat_twilio.serializer import TwilioFrameSerializer
from pipecat_twilio.stream_resampler import SincStreamResampler
from pipecat_twilio.twilio.call_resource import call_url, without_traceback


def make_stream_resampler(**kwargs: Any) -> BaseAudioResampler:
    """Replaces Pipecat's `create_stream_resampler`."""
    return SincStreamResampler(**kwargs)


@dataclass
class _Name:
    """A Pipecat name that can be set to an object of ours."""

    module: str
    name: str
    original: Any = None  # Pipecat's object
    current: Any = None  # what the name is set to now

    def find_original(self, argument: str, ours: Any) -> Any:
        """Returns Pipecat's own object; raises RuntimeError if ours cannot replace it."""
        found = getattr(import_module(self.module), self.name)
        if found is self.current is not self.original:  # ours, which the bot may have patched
            return self.original
        if _takes_same_arguments(found, ours):
            return found
        raise RuntimeError(
            f"pipecat-ai {version()} has a {found.__module__}.{found.__qualname__} that this "
            f"package does not know how to replace; install({argument}=False) leaves it alone"
        )

    def set(self, value: Any) -> tuple[list[str], list[str]]:
        """Sets the name in modules that have it; returns those, and those that keep Pipecat's.

        Classes are replaced in Pipecat's own modules only: others may derive from them.
        """
        changed, kept = [], []
        for module_name, module in list(sys.modules.items()):
            found = vars(module).get(self.name) if isinstance(module, ModuleType) else None
            if found is None or found is value or found not in (self.original, self.current):
                continue
            package = module_name.partition(".")[0]
            if package == "pipecat" or isinstance(self.original, FunctionType):
                setattr(module, self.name, value)
                changed.append(module_name)
            elif package != "pipecat_twilio" and found is self.original:
                kept.append(module_name)
        self.current = value
        return changed, kept


_NAMES = {  # by the argument of `install` that leaves a name alone
    "serializer": _Name("pipecat.serializers.twilio", "TwilioFrameSerializer"),
    "transport": _Name("pipecat.transports.websocket.fastapi", "FastAPIWebsocketTransport"),
    "resampler": _Name("pipecat.audio.utils", "create_stream_resampler"),
}
_derived: dict[type, tuple[dict[str, Any], type]] = {}


@without_traceback
def install(
    *,
    serializer: bool = True,
    transport: bool = True,
    resampler: bool = True,
    params: TwilioFrameSerializer.InputParams | None = None,
    base_url: str | None = None,
    region: str | None = None,
    edge: str | None = None,
    lead_secs: float | None = None,
) -> None:
    """Makes Pipecat use this package's serializer, transport and stream resampler.

    Call this in the first line of the bot: Pipecat's modules get our objects whenever they are
    imported, but a bot's own module keeps the classes that it has already imported, and the log
    warns of it. Code that names `SOXRStreamAudioResampler` (Genesys, RNNoise) keeps it. For
    `isinstance`, our serializers are then of Pipecat's class too. A second call replaces the
    arguments of the first. After an error, nothing was changed.

    Args:
        serializer: Whether to replace `TwilioFrameSerializer`.
        transport: Whether to replace `FastAPIWebsocketTransport` by our `TwilioTransport`, which
            does what Pipecat's does for other providers.
        resampler: Whether `create_stream_resampler` makes our `SincStreamResampler`.
        params: Default parameters: each serializer that is built without `params` gets a copy.
        base_url: Default root of Twilio's REST API.
        region: Default Twilio region.
        edge: Default Twilio edge.
        lead_secs: Default lead of a transport; None is `TwilioTransport`'s own.

    Raises:
        ImportError: FastAPI, which Pipecat's transport needs, is not installed.
        RuntimeError: This release of Pipecat calls one of the three in an unsupported way.
        TypeError: `params` is not an `InputParams`.
        ValueError: `lead_secs`, `base_url`, `region` or `edge` is not usable.
    """
    if params is not None and not isinstance(params, BaseModel):
        raise TypeError(f"params must be InputParams, got {type(params).__name__}")
    # A check. Region and edge may come separately: the runner may pass the other.
    call_url("AC0", "CA0", region or edge, edge or region, base_url)
    check_lead_secs(0 if lead_secs is None else lead_secs)
    ours: dict[str, Any] = {}
    if serializer:
        defaults = {"params": params, "base_url": base_url, "region": region, "edge": edge}
        ours["serializer"] = _with_defaults(TwilioFrameSerializer, **defaults)
    if transport:
        from pipecat_twilio import TwilioTransport  # noqa: PLC0415  # needs FastAPI

        ours["transport"] = _with_defaults(TwilioTransport, lead_secs=lead_secs)
    if resampler:
        ours["resampler"] = make_stream_resampler
    originals = {name: _NAMES[name].find_original(name, ours[name]) for name in ours}
    for name, original in originals.items():
        _NAMES[name].original = original
    if isinstance(theirs := originals.get("serializer"), ABCMeta):
        theirs.register(TwilioFrameSerializer)
    _set_all(ours)


def uninstall() -> None:
    """Undoes `install` in all modules; only what `isinstance` says of our serializers stays."""
    _set_all({})


def _set_all(ours: dict[str, Any]) -> None:
    """Sets each name to our object, or to Pipecat's own, and logs what has changed."""
    done, kept = [], []
    for argument, place in _NAMES.items():
        changed, keeping = map(", ".join, place.set(ours.get(argument, place.original)))
        whose = "pipecat_twilio" if argument in ours else "Pipecat"
        if changed:
            done.append(f"{place.name} is now {whose}'s in {changed}")
        if changed and keeping and argument in ours:
            kept.append(f"{place.name} in {keeping}")
    if done:
        logger.info("; ".join(done))
    if kept:
        logger.warning(f"imported before install(), and still Pipecat's: {'; '.join(kept)}")


def _takes_same_arguments(theirs: Any, ours: Any) -> bool:
    """Whether ours accepts every call that Pipecat's object accepts; ours may take more."""
    methods_fit = ours is not make_stream_resampler or all(
        _arguments(function) == _arguments(vars(SincStreamResampler).get(name, object))
        for name, function in vars(BaseAudioResampler).items()
        if inspect.iscoroutinefunction(function)
    )
    return methods_fit and _arguments(theirs) == _arguments(ours)[: len(_arguments(theirs))]


def _arguments(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


def _with_defaults(ours: type, **defaults: Any) -> type:
    """Returns a subclass of ours with these defaults; ours itself if all are None."""
    defaults = {name: value for name, value in defaults.items() if value is not None}
    if not defaults:
        return ours
    if ours not in _derived or _derived[ours][0] != defaults:
        original_init = ours.__init__  # type: ignore[misc]

        @without_traceback
        @wraps(original_init)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            given = inspect.signature(original_init).bind(self, *args, **kwargs)
            for name, value in defaults.items():
                if given.arguments.get(name) in (None, ""):
                    given.arguments[name] = copy(value)  # for this call alone
            original_init(*given.args, **given.kwargs)

        names = {"__init__": init, "__module__": ours.__module__, "__doc__": ours.__doc__}
        _derived[ours] = (defaults, type(ours.__name__, (ours,), names))
    return _derived[ours][1]
