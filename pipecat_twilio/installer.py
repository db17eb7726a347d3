"""Puts this package's classes where Pipecat's own code looks for them.

Pipecat's development runner builds the serializer and the transport itself, and its services and
transports make their resamplers through a factory. No argument lets a bot pass its own. So
`install` sets the names that this code reads: in the modules that define them, and in those that
have already imported them.
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

from pipecat_twilio.serializer import TwilioFrameSerializer
from pipecat_twilio.stream_resampler import SincStreamResampler
from pipecat_twilio.twilio.call_resource import call_url


def make_stream_resampler(**kwargs: Any) -> BaseAudioResampler:
    """Stands in for Pipecat's `create_stream_resampler`.

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
    """A name of Pipecat's that can be set to something of ours."""

    module: str
    name: str
    argument: str  # of `install`, that leaves it alone
    original: Any = None  # what was there before anything of ours
    current: Any = None

    def modules(self) -> Iterator[tuple[str, ModuleType]]:
        """Yields the imported modules in which the name means Pipecat's object, or ours for it."""
        for module_name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType):
                value = vars(module).get(self.name)
                if value is not None and (value is self.original or value is self.current):
                    yield module_name, module

    def set(self, value: Any) -> _Change:
        """Sets the name in these modules.

        A class is set in Pipecat's own modules: others may derive from it, and call its methods by
        its name. A function is set everywhere.
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
    """Has Pipecat use this package's serializer, transport and stream resampler.

    What is imported from Pipecat later is ours, and what Pipecat's own modules have imported is
    replaced. A bot's own module keeps the classes that it has already imported from Pipecat, of
    which the log warns, so call this in the first line of the bot. Code that uses
    `SOXRStreamAudioResampler` by that name (Genesys, RNNoise) keeps it.

    `isinstance(serializer, TwilioFrameSerializer)` is true of ours with Pipecat's class too.

    Repeating it is harmless; other arguments take the place of those before.

    Args:
        serializer: Whether `TwilioFrameSerializer` is ours.
        transport: Whether `FastAPIWebsocketTransport` is our `TwilioTransport`, which with the
            serializers of other providers does what Pipecat's does.
        resampler: Whether `create_stream_resampler` makes our `SincStreamResampler`.
        params: Each call's serializer gets a copy of these where it is given none, as the
            development runner gives none.
        base_url: Root of Twilio's REST API where the serializer is given none.
        region: Twilio region where the serializer is given none.
        edge: Twilio edge where the serializer is given none.
        lead_secs: Lead of a transport that is given none; None leaves `TwilioTransport`'s.

    Raises:
        ImportError: FastAPI, which Pipecat's transport needs, is not installed.
        RuntimeError: This release of Pipecat calls one of the three in a way that ours does not
            know. Nothing was changed.
        TypeError: `params` are none. Nothing was changed.
        ValueError: `lead_secs`, `base_url`, `region` or `edge` is one that no call could be made
            with. Nothing was changed.
    """
    if params is not None and not isinstance(params, BaseModel):
        raise TypeError(f"params must be InputParams, got {type(params).__name__}")
    # Raises if one is wrong; the runner may pass the other one of region and edge.
    call_url("AC0", "CA0", region=region or edge, edge=edge or region, base_url=base_url)
    with _lock:
        originals: dict[str, Any] = {}
        ours: dict[str, Any] = {}
        if serializer:
            originals[_SERIALIZER.name] = _known(
                _SERIALIZER, lambda theirs: _accepts_all_of(theirs, TwilioFrameSerializer)
            )
            ours[_SERIALIZER.name] = _with_defaults(
                TwilioFrameSerializer, params=params, base_url=base_url, region=region, edge=edge
            )
        if transport:
            from pipecat_twilio.transport import TwilioTransport, check_lead_secs  # noqa: PLC0415

            if lead_secs is not None:
                check_lead_secs(lead_secs)
            originals[_TRANSPORT.name] = _known(
                _TRANSPORT, lambda theirs: _accepts_all_of(theirs, TwilioTransport)
            )
            ours[_TRANSPORT.name] = _with_defaults(TwilioTransport, lead_secs=lead_secs)
        if resampler:
            originals[_RESAMPLER.name] = _known(_RESAMPLER, _makes_what_ours_can_be)
            ours[_RESAMPLER.name] = make_stream_resampler
        for place in _PLACES:
            place.original = originals.get(place.name, place.original)
        if serializer and isinstance(_SERIALIZER.original, ABCMeta):
            _SERIALIZER.original.register(TwilioFrameSerializer)
        _log([place.set(ours.get(place.name, place.original)) for place in _PLACES])


def uninstall() -> None:
    """Undoes `install`, also in modules of Pipecat that were imported since."""
    with _lock:
        _log([place.set(place.original) for place in _PLACES])


def _known(place: _Place, is_known: Callable[[Any], bool]) -> Any:
    """Returns Pipecat's own object, if ours can stand in for it."""
    original = getattr(import_module(place.module), place.name)
    if original is place.current is not place.original:  # ours, which the bot may have patched
        return place.original
    if not is_known(original):
        theirs = f"{original.__module__}.{original.__qualname__}"
        raise RuntimeError(
            f"pipecat-ai {version()} has a {theirs} that pipecat_twilio does not know how to "
            f"stand in for; install({place.argument}=False) leaves it alone"
        )
    return original


def _accepts_all_of(original: Callable[..., Any], ours: Callable[..., Any]) -> bool:
    """Tells whether ours takes every argument that Pipecat's takes, in the same place.

    API keys came with pipecat-ai 1.14; releases before it take all but those.
    """
    their_arguments = _arguments(original)
    return their_arguments == _arguments(ours)[: len(their_arguments)]


def _arguments(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


def _makes_what_ours_can_be(factory: Callable[..., Any]) -> bool:
    """Tells whether ours accepts every call that Pipecat's factory and resamplers accept.

    `flush` and `reset` came after pipecat-ai 1.7.
    """
    theirs = {n: f for n, f in vars(BaseAudioResampler).items() if inspect.iscoroutinefunction(f)}
    return _arguments(factory) == [("kwargs", inspect.Parameter.VAR_KEYWORD)] and all(
        name in vars(SincStreamResampler)
        and _arguments(function) == _arguments(vars(SincStreamResampler)[name])
        for name, function in theirs.items()
    )


def _with_defaults(ours: type, **defaults: Any) -> type:
    """Returns a class like ours that fills in these where it is given nothing; ours if none."""
    defaults = {name: value for name, value in defaults.items() if value is not None}
    if not defaults:
        return ours
    if ours in _derived and _derived[ours][0] == defaults:
        return _derived[ours][1]
    original_init = ours.__init__  # type: ignore[misc]
    signature = inspect.signature(original_init)

    @wraps(original_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs)
        for name, value in defaults.items():
            if given.arguments.get(name) in (None, ""):
                # A bot may change the params of one call.
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
