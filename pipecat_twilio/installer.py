"""Puts this package's classes where Pipecat's own code looks for them.

Pipecat's development runner builds the serializer and the transport itself, and its services and
transports make their resamplers through a factory. A bot cannot pass in its own. So `install`
replaces these names in the modules that define them, and in those that have already imported them.
"""

import inspect
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from threading import RLock
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
    """Replaces Pipecat's `create_stream_resampler`.

    Args:
        kwargs: The arguments of `SincStreamResampler`, which are those of Pipecat's resampler.

    Returns:
        A new `SincStreamResampler`.
    """
    return SincStreamResampler(**kwargs)


@dataclass
class _Change:
    """What became of a name of Pipecat's."""

    name: str
    whose: str
    modules: list[str]  # where it was set
    kept: list[str]  # where it was imported before, and stays what it is


@dataclass
class _Place:
    """A name of Pipecat's that can be set to an object of ours."""

    module: str
    name: str
    argument: str  # of `install`, that leaves the name alone
    original: Any = None  # Pipecat's object
    current: Any = None  # the object that the name is set to now

    def modules(self) -> Iterator[tuple[str, ModuleType]]:
        """Yields the imported modules in which the name is Pipecat's object or our replacement."""
        for module_name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType):
                value = vars(module).get(self.name)
                if value is not None and (value is self.original or value is self.current):
                    yield module_name, module

    def set(self, value: Any) -> _Change:
        """Sets the name in these modules.

        Classes are replaced in Pipecat's own modules only: other modules may derive from them, and
        call their methods by the class's name. Functions are replaced everywhere.
        """
        whose = "Pipecat" if value is self.original else "pipecat_twilio"
        change = _Change(self.name, whose, [], [])
        for module_name, module in self.modules():
            package, found = module_name.partition(".")[0], vars(module)[self.name]
            if package == "pipecat" or isinstance(self.original, FunctionType):
                if found is not value:
                    setattr(module, self.name, value)
                    change.modules.append(module_name)
            elif package != "pipecat_twilio" and found is self.original is not value:
                change.kept.append(module_name)
        self.current = value
        return change


_SERIALIZER = _Place("pipecat.serializers.twilio", "TwilioFrameSerializer", "serializer")
_TRANSPORT = _Place(
    "pipecat.transports.websocket.fastapi", "FastAPIWebsocketTransport", "transport"
)
_RESAMPLER = _Place("pipecat.audio.utils", "create_stream_resampler", "resampler")
_PLACES = (_SERIALIZER, _TRANSPORT, _RESAMPLER)
_lock = RLock()  # a second thread would take what the first has set for Pipecat's

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

    Pipecat's own modules then have our objects, whether they are imported before or after. A bot's
    own module keeps the classes that it has already imported from Pipecat, and the log warns of
    it: so call this in the first line of the bot. Code that uses `SOXRStreamAudioResampler` by
    that name (Genesys, RNNoise) keeps it.

    For `isinstance`, our serializers are instances of Pipecat's class too, from then on.

    It may be called again: the new arguments then replace the old ones.

    Args:
        serializer: Whether to replace `TwilioFrameSerializer`.
        transport: Whether to replace `FastAPIWebsocketTransport` by our `TwilioTransport`. With
            the serializers of other providers that does what Pipecat's does.
        resampler: Whether `create_stream_resampler` makes our `SincStreamResampler`.
        params: Default parameters of a serializer: each one that is built without `params` gets a
            copy. The development runner passes none.
        base_url: Default root of Twilio's REST API.
        region: Default Twilio region.
        edge: Default Twilio edge.
        lead_secs: Default lead of a transport; None is `TwilioTransport`'s own.

    Raises:
        ImportError: FastAPI, which Pipecat's transport needs, is not installed.
        RuntimeError: This release of Pipecat calls one of the three in a way that ours does not
            support. Nothing was changed.
        TypeError: `params` is not an `InputParams`. Nothing was changed.
        ValueError: `lead_secs`, `base_url`, `region` or `edge` is not usable. Nothing was changed.
    """
    if params is not None and not isinstance(params, BaseModel):
        raise TypeError(f"params must be InputParams, got {type(params).__name__}")
    # Raises if one is wrong. Region and edge may come separately: the runner may pass the other.
    call_url("AC0", "CA0", region=region or edge, edge=edge or region, base_url=base_url)
    with _lock:
        originals: dict[str, Any] = {}
        ours: dict[str, Any] = {}
        if serializer:
            originals[_SERIALIZER.name] = _original(
                _SERIALIZER, lambda theirs: _accepts_same_arguments(theirs, TwilioFrameSerializer)
            )
            ours[_SERIALIZER.name] = _with_defaults(
                TwilioFrameSerializer, params=params, base_url=base_url, region=region, edge=edge
            )
        if transport:
            from pipecat_twilio.transport import TwilioTransport  # noqa: PLC0415

            if lead_secs is not None:
                check_lead_secs(lead_secs)
            originals[_TRANSPORT.name] = _original(
                _TRANSPORT, lambda theirs: _accepts_same_arguments(theirs, TwilioTransport)
            )
            ours[_TRANSPORT.name] = _with_defaults(TwilioTransport, lead_secs=lead_secs)
        if resampler:
            originals[_RESAMPLER.name] = _original(_RESAMPLER, _accepts_same_calls)
            ours[_RESAMPLER.name] = make_stream_resampler
        for place in _PLACES:
            place.original = originals.get(place.name, place.original)
        if serializer and isinstance(_SERIALIZER.original, ABCMeta):
            _SERIALIZER.original.register(TwilioFrameSerializer)
        _log([place.set(ours.get(place.name, place.original)) for place in _PLACES])


def uninstall() -> None:
    """Undoes `install`, also in modules of Pipecat that were imported after it.

    Only what `isinstance` says of our serializers stays.
    """
    with _lock:
        _log([place.set(place.original) for place in _PLACES])


def _original(place: _Place, ours_fits: Callable[[Any], bool]) -> Any:
    """Returns Pipecat's own object, if ours can replace it."""
    original = getattr(import_module(place.module), place.name)
    if original is place.current is not place.original:  # ours, which the bot may have patched
        return place.original
    if not ours_fits(original):
        theirs = f"{original.__module__}.{original.__qualname__}"
        raise RuntimeError(
            f"pipecat-ai {version()} has a {theirs} that pipecat_twilio does not know how to "
            f"replace; install({place.argument}=False) leaves it alone"
        )
    return original


def _accepts_same_arguments(original: Callable[..., Any], ours: Callable[..., Any]) -> bool:
    """Tells whether ours takes every argument that Pipecat's takes, in the same position.

    Ours may take more: before pipecat-ai 1.14, Pipecat's took no API key.
    """
    their_arguments = _arguments(original)
    return their_arguments == _arguments(ours)[: len(their_arguments)]


def _arguments(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


def _accepts_same_calls(factory: Callable[..., Any]) -> bool:
    """Tells whether ours accepts every call that Pipecat's factory and resamplers accept.

    Ours may have more methods: pipecat-ai 1.7 has no `flush` and no `reset`.
    """
    theirs = {n: f for n, f in vars(BaseAudioResampler).items() if inspect.iscoroutinefunction(f)}
    return _arguments(factory) == [("kwargs", inspect.Parameter.VAR_KEYWORD)] and all(
        name in vars(SincStreamResampler)
        and _arguments(function) == _arguments(vars(SincStreamResampler)[name])
        for name, function in theirs.items()
    )


def _with_defaults(ours: type, **defaults: Any) -> type:
    """Returns a subclass of ours with these defaults; ours itself if there are none."""
    defaults = {name: value for name, value in defaults.items() if value is not None}
    if not defaults:
        return ours
    if ours in _derived and _derived[ours][0] == defaults:
        return _derived[ours][1]
    original_init = ours.__init__  # type: ignore[misc]
    signature = inspect.signature(original_init)

    @without_traceback
    @wraps(original_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs)
        for name, value in defaults.items():
            if given.arguments.get(name) in (None, ""):
                # A copy: a bot may change the params of one call.
                own = value.model_copy() if isinstance(value, BaseModel) else value
                given.arguments[name] = own
        original_init(*given.args, **given.kwargs)

    derived = type(
        ours.__name__,
        (ours,),
        {"__init__": init, "__module__": ours.__module__, "__doc__": ours.__doc__},
    )
    _derived[ours] = (defaults, derived)
    return derived


def _log(changes: list[_Change]) -> None:
    done = [change for change in changes if change.modules]
    if done:
        logger.info(
            "; ".join(f"{c.name} is now {c.whose}'s in {', '.join(c.modules)}" for c in done)
        )
    if kept := [change for change in done if change.kept]:
        names = "; ".join(f"{c.name} in {', '.join(c.kept)}" for c in kept)
        logger.warning(f"imported before install(), and still Pipecat's: {names}")
