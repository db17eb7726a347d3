"""Replacing Pipecat's classes where Pipecat's own code looks for them."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pipecat.audio.utils as audio_utils
import pipecat.serializers.twilio as serializer_module
import pipecat.transports.base_output as output_module
import pipecat.transports.websocket.fastapi as transport_module
import pytest
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from starlette.websockets import WebSocketState
from streams import CALL_SID, STREAM_SID, documented

from pipecat_twilio import SincStreamResampler, TwilioTransport, install, uninstall
from pipecat_twilio import TwilioFrameSerializer as Ours

PLACES = {
    "serializer": (serializer_module, "TwilioFrameSerializer"),
    "transport": (transport_module, "FastAPIWebsocketTransport"),
    "resampler": (audio_utils, "create_stream_resampler"),
}
PIPECATS = {what: getattr(*place) for what, place in PLACES.items()}


def in_place() -> dict[str, Any]:
    return {what: getattr(*place) for what, place in PLACES.items()}


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token")
    for name in ("TWILIO_API_KEY", "TWILIO_API_SECRET", "TWILIO_REGION", "TWILIO_EDGE"):
        monkeypatch.delenv(name, raising=False)
    yield
    uninstall()
    assert in_place() == PIPECATS


class Socket:
    """What the runner reads a call's first messages from."""

    headers: dict[str, str] = {}  # noqa: RUF012
    client_state = application_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self._messages = [json.dumps(documented(event)) for event in ("connected", "start")]

    async def iter_text(self) -> Any:
        while self._messages:
            yield self._messages.pop(0)


def answered() -> Any:
    """Returns the transport that Pipecat's runner makes for a call."""
    arguments = WebSocketRunnerArguments(websocket=Socket())  # type: ignore[arg-type]
    return asyncio.run(create_transport(arguments, {"twilio": FastAPIWebsocketParams}))


def serializer_of(transport: Any) -> Any:
    return transport.output()._params.serializer


@pytest.fixture
def bot(monkeypatch: pytest.MonkeyPatch) -> Any:
    bot = ModuleType("a_bot")
    monkeypatch.setitem(sys.modules, "a_bot", bot)
    return bot


class TestWhatIsReplaced:
    def test_a_call_on_the_development_runner_gets_all_three(self) -> None:
        install()
        transport = answered()
        assert type(transport) is TwilioTransport
        assert type(serializer_of(transport)) is Ours
        serializer = serializer_of(transport)
        assert (serializer._stream_sid, serializer._call_sid) == (STREAM_SID, CALL_SID)
        resampler = output_module.create_stream_resampler(quality="QQ", clear_after_secs=None)
        assert type(resampler) is SincStreamResampler

    def test_a_bots_own_module_keeps_the_classes_and_gets_the_factory(self, bot, log) -> None:
        for module, name in PLACES.values():
            setattr(bot, name, getattr(module, name))
        install(resampler=False, transport=False)
        install()
        assert bot.TwilioFrameSerializer is PIPECATS["serializer"]
        assert bot.FastAPIWebsocketTransport is PIPECATS["transport"]
        assert type(bot.create_stream_resampler()) is SincStreamResampler
        uninstall()
        assert bot.create_stream_resampler is PIPECATS["resampler"]
        warnings = [line for line in log if line.startswith("WARNING") and "a_bot" in line]
        for name, warned in (
            ("TwilioFrameSerializer", [True, False]),
            ("FastAPIWebsocketTransport", [False, True]),
        ):
            named = re.compile(rf"\b{name} in [^;]*\ba_bot\b")
            assert [bool(named.search(line)) for line in warnings] == warned
        assert "before install()" in warnings[0]
        assert "create_stream_resampler" not in "".join(warnings)

    @pytest.mark.parametrize("left_out", PLACES)
    def test_each_can_be_left_out_and_is_then_pipecats_again(self, left_out: str) -> None:
        for arguments in ({left_out: False}, {}, {left_out: False}):
            install(**arguments)
            same = {what for what, value in in_place().items() if value is PIPECATS[what]}
            assert same == set(arguments)

    def test_subclasses_of_pipecats_transport_still_work(self) -> None:
        class Derived(transport_module.FastAPIWebsocketTransport):
            pass

        install(region="ie1", edge="dublin", lead_secs=0.5)

        class DerivedLater(transport_module.FastAPIWebsocketTransport):
            pass

        for kind in (Derived, DerivedLater):
            transport = kind(Socket(), FastAPIWebsocketParams(), output_name="out")
            assert transport.output().name == "out"
            assert isinstance(transport, PIPECATS["transport"])
        assert isinstance(transport, TwilioTransport)
        assert isinstance(serializer_of(answered()), PIPECATS["serializer"])
        assert not isinstance(object(), PIPECATS["serializer"])


class TestDefaults:
    def test_defaults_are_used_for_what_the_runner_does_not_pass(self) -> None:
        params = Ours.InputParams(sample_rate=12345)
        install(params=params, lead_secs=0.5, base_url="https://example.com")
        first, second = answered(), answered()
        assert first.output()._lead_secs == 0.5
        assert serializer_of(first)._params == params
        serializer_of(first)._params.auto_hang_up = False  # as public bots do, for one call
        assert serializer_of(second)._params.auto_hang_up
        install(params=Ours.InputParams(sample_rate=22222))
        assert serializer_of(answered())._params.sample_rate == 22222
        install()
        assert in_place()["serializer"] is Ours

    def test_calls_are_ended_at_the_installed_address(self) -> None:
        install(region="ie1", edge="dublin")
        arguments = {"region": "", "edge": "", "base_url": ""}
        serializer = serializer_module.TwilioFrameSerializer(
            "MZ1", "CA1", "AC1", "token", **arguments
        )
        assert serializer._call_resource().url.startswith("https://api.dublin.ie1.twilio.com/")

    def test_arguments_that_are_passed_take_precedence(self) -> None:
        defaults = Ours.InputParams(auto_hang_up=False)
        install(params=defaults, lead_secs=0.5, region="ie1")
        own = Ours.InputParams(auto_hang_up=False, sample_rate=12345)
        assert serializer_module.TwilioFrameSerializer("MZ1", params=own)._params is own
        params = FastAPIWebsocketParams(serializer=serializer_of(answered()))
        transport = transport_module.FastAPIWebsocketTransport(Socket(), params, lead_secs=0)
        assert transport.output()._lead_secs == 0

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"params": 5}, TypeError),
            ({"base_url": "ftp://example.com"}, ValueError),
            ({"region": "evil.com/"}, ValueError),
            ({"lead_secs": "soon"}, ValueError),
            ({"lead_secs": 2.1}, ValueError),
        ],
    )
    def test_an_unusable_argument_is_refused_and_nothing_is_replaced(self, arguments, error):
        (name,) = arguments
        with pytest.raises(error, match=name):
            install(**arguments)
        assert in_place() == PIPECATS


class TestRepeating:
    @pytest.mark.parametrize("arguments", [{}, {"lead_secs": 1.0, "region": "ie1"}])
    def test_one_line_says_what_was_replaced_where_and_a_repetition_says_nothing(
        self, log: list[str], bot, arguments
    ) -> None:
        install(**arguments)
        bot.TwilioFrameSerializer = serializer_module.TwilioFrameSerializer  # not warned about
        before = in_place()
        told = len(log)
        (line,) = [line for line in log if line.startswith("INFO")]
        for module, name in PLACES.values():
            assert name in line
            assert module.__name__ in line
        assert output_module.__name__ in line
        install(**arguments)
        assert in_place() == before
        assert len(log) == told

    def test_uninstall_restores_modules_that_were_imported_since_and_says_so_once(
        self, monkeypatch, log: list[str], bot
    ) -> None:
        bot.TwilioFrameSerializer = Ours
        install(lead_secs=1)
        late = ModuleType("pipecat.late")
        monkeypatch.setitem(sys.modules, "pipecat.late", late)
        for module, name in PLACES.values():
            setattr(late, name, getattr(module, name))
        for _ in range(2):
            uninstall()
        assert in_place() == PIPECATS
        assert {what: getattr(late, name) for what, (_, name) in PLACES.items()} == PIPECATS
        assert output_module.create_stream_resampler is PIPECATS["resampler"]
        assert len([line for line in log if line.startswith("INFO")]) == 2
        assert bot.TwilioFrameSerializer is Ours


class FromTheFuture:
    def __init__(self, stream_sid: str, *, codec: str = "opus") -> None: ...


class TestAnotherPipecat:
    @pytest.mark.parametrize("what", PLACES)
    @pytest.mark.parametrize("installed", [False, True])
    def test_a_class_that_is_called_in_a_new_way_is_refused_unless_it_is_left_out(
        self, what: str, installed: bool
    ) -> None:
        if installed:
            install()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*PLACES[what], FromTheFuture)
            before = in_place()
            told = rf"pipecat-ai .*FromTheFuture.* does not know .*{what}=False"
            with pytest.raises(RuntimeError, match=told):
                install(lead_secs=1)
            assert in_place() == before
            if not installed:
                install(**{what: False})
                assert in_place()[what] is FromTheFuture

    def test_a_resampler_that_is_called_in_a_new_way_is_refused(self, monkeypatch) -> None:
        async def theirs(self: Any, audio: bytes, rates: tuple[int, int]) -> bytes:
            return audio

        monkeypatch.setattr(BaseAudioResampler, "resample", theirs)
        with pytest.raises(RuntimeError, match="create_stream_resampler"):
            install()


@pytest.mark.parametrize(
    "refused",
    [
        lambda: install(base_url="https://user:hidden@example.com"),
        lambda: serializer_module.TwilioFrameSerializer("MZ1", "CA1/", "AC1", auth_token="hidden"),
        lambda: serializer_module.TwilioFrameSerializer("MZ1", auth_tokn="hidden"),
    ],
)
def test_the_traceback_of_a_refused_argument_has_no_line_that_holds_a_secret(refused) -> None:
    install(region="ie1", edge="dublin")
    with pytest.raises((ValueError, TypeError)) as error:
        refused()
    # Loguru shows the variables in each line: `checked` has none of them.
    assert error.traceback[-1].name == "checked"
