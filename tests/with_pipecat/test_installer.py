"""Replacing Pipecat's classes where Pipecat's own code looks for them."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import pipecat.audio.utils as audio_utils
import pipecat.serializers.telnyx as telnyx_module
import pipecat.serializers.twilio as serializer_module
import pipecat.transports.base_output as output_module
import pipecat.transports.websocket.fastapi as transport_module
import pytest
from loguru import logger
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pipecat.audio.resamplers.soxr_stream_resampler import SOXRStreamAudioResampler
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from starlette.websockets import WebSocketState
from streams import CALL_SID, STREAM_SID, documented

from pipecat_twilio import (
    SincStreamResampler,
    TwilioFrameSerializer,
    TwilioTransport,
    install,
    uninstall,
)

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
    monkeypatch.setenv("TELNYX_API_KEY", "key")
    for name in ("TWILIO_API_KEY", "TWILIO_API_SECRET", "TWILIO_REGION", "TWILIO_EDGE"):
        monkeypatch.delenv(name, raising=False)
    yield
    uninstall()
    assert in_place() == PIPECATS


class Socket:
    """What the runner reads a call's first messages from."""

    headers: dict[str, str] = {}  # noqa: RUF012
    client_state = application_state = WebSocketState.CONNECTED

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = [json.dumps(message) for message in messages]

    async def receive_text(self) -> str:
        return self._messages.pop(0)

    async def iter_text(self) -> Any:
        while self._messages:
            yield self._messages.pop(0)


TWILIOS_FIRST = (documented("connected"), documented("start"))
TELNYXS_FIRST = (
    {"event": "connected", "version": "1.0.0"},
    {
        "event": "start",
        "stream_id": "S1",
        "start": {"call_control_id": "C1", "media_format": {"encoding": "PCMU"}},
    },
)


def answered(*first: dict[str, Any]) -> Any:
    """Returns the transport that Pipecat's runner makes for a call."""
    arguments = WebSocketRunnerArguments(websocket=Socket(*first or TWILIOS_FIRST))  # type: ignore[arg-type]
    params = dict.fromkeys(("twilio", "telnyx"), FastAPIWebsocketParams)
    return asyncio.run(create_transport(arguments, params))


def serializer_of(transport: Any) -> Any:
    return transport.output()._params.serializer


class TestInstalled:
    def test_a_call_on_the_development_runner_gets_all_three(self) -> None:
        install()
        transport = answered()
        assert type(transport) is TwilioTransport
        assert type(serializer_of(transport)) is TwilioFrameSerializer
        assert serializer_of(transport)._stream_sid == STREAM_SID
        assert serializer_of(transport)._call_sid == CALL_SID
        assert type(output_module.create_stream_resampler()) is SincStreamResampler

    def test_without_it_a_call_gets_pipecats(self) -> None:
        transport = answered()
        assert type(transport) is PIPECATS["transport"]
        assert type(serializer_of(transport)) is PIPECATS["serializer"]
        assert type(output_module.create_stream_resampler()) is SOXRStreamAudioResampler

    def test_calls_of_other_providers_get_our_transport_and_their_serializer(self) -> None:
        install()
        transport = answered(*TELNYXS_FIRST)
        assert type(transport) is TwilioTransport
        assert type(serializer_of(transport)) is TelnyxFrameSerializer

    def test_the_factory_takes_what_pipecats_takes(self) -> None:
        install()
        resampler = audio_utils.create_stream_resampler(quality="QQ", clear_after_secs=None)
        assert type(resampler) is SincStreamResampler

    def test_every_module_that_had_imported_the_factory_has_ours(self) -> None:
        def having(value: Any) -> set[str]:
            return {n for n, m in sys.modules.items() if any(v is value for v in vars(m).values())}

        before = having(PIPECATS["resampler"])
        assert {"pipecat.audio.utils", "pipecat.transports.base_output"} <= before
        install()
        assert having(PIPECATS["resampler"]) == set()
        assert having(audio_utils.create_stream_resampler) > before

    def test_a_bots_own_module_keeps_the_classes_and_gets_the_factory(self, monkeypatch) -> None:
        bot = ModuleType("a_bot")
        monkeypatch.setitem(sys.modules, "a_bot", bot)
        for module, name in PLACES.values():
            setattr(bot, name, getattr(module, name))
        install()
        assert bot.TwilioFrameSerializer is PIPECATS["serializer"]
        assert bot.FastAPIWebsocketTransport is PIPECATS["transport"]
        assert type(bot.create_stream_resampler()) is SincStreamResampler
        uninstall()
        assert bot.create_stream_resampler is PIPECATS["resampler"]

    def test_an_object_that_stands_in_for_a_module_is_left_alone(self, monkeypatch) -> None:
        odd = SimpleNamespace(create_stream_resampler=PIPECATS["resampler"])
        monkeypatch.setitem(sys.modules, "odd", odd)
        install()
        assert odd.create_stream_resampler is PIPECATS["resampler"]

    def test_isinstance_in_a_bot_that_imported_pipecats_classes_is_true_of_ours(self) -> None:
        install(region="ie1", edge="dublin", lead_secs=0.5)
        transport = answered()
        assert isinstance(transport, PIPECATS["transport"])
        assert isinstance(serializer_of(transport), PIPECATS["serializer"])
        assert not isinstance(object(), PIPECATS["serializer"])

    @pytest.mark.parametrize("left_out", PLACES)
    def test_each_can_be_left_out(self, left_out: str) -> None:
        install(**{left_out: False})
        same = {what for what, value in in_place().items() if value is PIPECATS[what]}
        assert same == {left_out}

    def test_subclasses_of_pipecats_transport_still_work(self) -> None:
        class Derived(transport_module.FastAPIWebsocketTransport):
            pass

        install()

        class DerivedLater(transport_module.FastAPIWebsocketTransport):
            pass

        for kind in (Derived, DerivedLater):
            transport = kind(Socket(), FastAPIWebsocketParams(), output_name="out")
            assert transport.output().name == "out"
            assert isinstance(transport, PIPECATS["transport"])
        assert isinstance(transport, TwilioTransport)


class TestDefaults:
    def test_defaults_are_used_for_what_the_runner_does_not_pass(self) -> None:
        params = TwilioFrameSerializer.InputParams(auto_hang_up=False, hang_up_timeout_secs=9)
        install(params=params, lead_secs=0.5)
        transport = answered()
        assert isinstance(serializer_of(transport), TwilioFrameSerializer)
        assert serializer_of(transport)._params == params
        assert isinstance(transport, TwilioTransport)
        assert transport.output()._lead_secs == 0.5

    @pytest.mark.parametrize(
        ("defaults", "root"),
        [
            ({"region": "ie1", "edge": "dublin"}, "https://api.dublin.ie1.twilio.com/"),
            ({"base_url": "https://example.com"}, "https://example.com/"),
        ],
    )
    def test_calls_are_ended_at_the_installed_address(self, defaults, root) -> None:
        install(**defaults)
        serializer = serializer_module.TwilioFrameSerializer(
            "MZ1", "CA1", "AC1", "token", region="", edge="", base_url=""
        )
        assert serializer._call_resource().url.startswith(root)

    def test_arguments_that_are_passed_take_precedence(self) -> None:
        install(
            params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
            lead_secs=0.5,
            region="ie1",
        )
        own = serializer_module.TwilioFrameSerializer.InputParams(
            auto_hang_up=False, sample_rate=12345
        )
        assert serializer_module.TwilioFrameSerializer("MZ1", params=own)._params is own
        params = FastAPIWebsocketParams(serializer=serializer_of(answered()))
        transport = transport_module.FastAPIWebsocketTransport(Socket(), params, lead_secs=0)
        assert transport.output()._lead_secs == 0

    def test_each_call_has_its_own_copy_of_the_params(self) -> None:
        install(params=TwilioFrameSerializer.InputParams(sample_rate=12345))
        first, second = serializer_of(answered()), serializer_of(answered())
        first._params.auto_hang_up = False  # as public bots do, for one call
        assert second._params.auto_hang_up
        assert second._params.sample_rate == 12345

    def test_a_second_install_replaces_the_defaults(self) -> None:
        for rate in (11111, 22222):
            install(params=TwilioFrameSerializer.InputParams(sample_rate=rate))
            assert serializer_of(answered())._params.sample_rate == rate
        install()
        assert in_place()["serializer"] is TwilioFrameSerializer


class TestRepeating:
    def test_one_line_says_what_was_replaced_where(self, log: list[str]) -> None:
        install()
        (line,) = [line for line in log if line.startswith("INFO")]
        for module, name in PLACES.values():
            assert name in line
            assert module.__name__ in line
        assert output_module.__name__ in line
        assert telnyx_module.__name__ in line

    def test_a_warning_names_the_modules_that_keep_pipecats_classes(self, monkeypatch, log) -> None:
        bot = ModuleType("a_bot")
        monkeypatch.setitem(sys.modules, "a_bot", bot)
        bot.TwilioFrameSerializer = PIPECATS["serializer"]
        bot.create_stream_resampler = PIPECATS["resampler"]  # is replaced there
        install(resampler=False, transport=False)
        install()
        uninstall()
        warnings = [line for line in log if line.startswith("WARNING") and "a_bot" in line]
        assert len(warnings) == 1
        assert "TwilioFrameSerializer in a_bot" in warnings[0]
        assert "before install()" in warnings[0]
        assert "create_stream_resampler" not in warnings[0]

    def test_a_bot_that_imports_after_it_is_not_warned_about(self, monkeypatch, log) -> None:
        bot = ModuleType("a_bot")
        monkeypatch.setitem(sys.modules, "a_bot", bot)
        install()
        bot.TwilioFrameSerializer = serializer_module.TwilioFrameSerializer
        install(lead_secs=1, region="ie1")
        assert not [line for line in log if "a_bot" in line]

    @pytest.mark.parametrize("arguments", [{}, {"lead_secs": 1.0, "region": "ie1"}])
    def test_it_changes_nothing_and_says_nothing(self, log: list[str], arguments) -> None:
        install(**arguments)
        before = in_place()
        told = len(log)
        install(**arguments)
        assert in_place() == before
        assert len(log) == told

    def test_it_may_be_repeated_when_the_bot_has_patched_what_it_installed(
        self, monkeypatch
    ) -> None:
        """As one does to give each serializer a `base_url`, in a module that runs twice."""
        install()
        original_init = TwilioFrameSerializer.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original_init(self, *args, **kwargs, base_url="https://example.com")

        monkeypatch.setattr(serializer_module.TwilioFrameSerializer, "__init__", init)
        install()
        assert serializer_of(answered())._base_url == "https://example.com"

    def test_a_part_left_out_the_second_time_is_pipecats_again(self) -> None:
        install()
        install(transport=False)
        assert in_place()["transport"] is PIPECATS["transport"]
        assert in_place()["serializer"] is TwilioFrameSerializer

    def test_uninstall_puts_pipecats_back_and_says_so_once(self, log: list[str]) -> None:
        install(lead_secs=1)
        uninstall()
        assert in_place() == PIPECATS
        assert output_module.create_stream_resampler is PIPECATS["resampler"]
        uninstall()
        assert len([line for line in log if line.startswith("INFO")]) == 2

    def test_uninstall_reaches_modules_that_were_imported_since(self, monkeypatch) -> None:
        install(lead_secs=1)
        late = ModuleType("pipecat.late")
        monkeypatch.setitem(sys.modules, "pipecat.late", late)
        for module, name in PLACES.values():
            setattr(late, name, getattr(module, name))
        uninstall()
        assert {what: getattr(late, name) for what, (_, name) in PLACES.items()} == PIPECATS

    def test_uninstall_leaves_a_bot_that_imports_ours_alone(self, monkeypatch) -> None:
        bot = ModuleType("a_bot")
        monkeypatch.setitem(sys.modules, "a_bot", bot)
        bot.TwilioFrameSerializer = TwilioFrameSerializer
        install()
        uninstall()
        assert bot.TwilioFrameSerializer is TwilioFrameSerializer


class TestThreads:
    def test_any_number_may_install_at_once(self) -> None:
        """Each takes only what Pipecat itself had there for Pipecat's."""
        switch_secs = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(40):
                start = threading.Barrier(4)

                def one(lead_secs: float, start: threading.Barrier = start) -> None:
                    start.wait()
                    install(lead_secs=lead_secs, region="ie1", edge="dublin")

                with ThreadPoolExecutor(4) as threads:
                    list(threads.map(one, (0.1, 0.2, 0.3, 0.4)))
                uninstall()
                assert in_place() == PIPECATS
        finally:
            sys.setswitchinterval(switch_secs)


class FromTheFuture:
    def __init__(self, stream_sid: str, *, codec: str = "opus") -> None: ...


class TestAnotherPipecat:
    """A Pipecat that calls one of the three in a new way is refused, and not changed."""

    @pytest.mark.parametrize("what", PLACES)
    @pytest.mark.parametrize("installed", [False, True])
    def test_it_is_refused_and_not_changed(self, what: str, installed: bool) -> None:
        if installed:
            install()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*PLACES[what], FromTheFuture)
            before = in_place()
            with pytest.raises(
                RuntimeError,
                match=rf"pipecat-ai .*FromTheFuture.* does not know .*{what}=False",
            ):
                install(lead_secs=1)
            assert in_place() == before

    @pytest.mark.parametrize("what", PLACES)
    def test_a_part_that_is_left_out_is_not_checked(self, what: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*PLACES[what], FromTheFuture)
            install(**{what: False})
            assert in_place()[what] is FromTheFuture

    @pytest.mark.parametrize("method", ["resample", "a_method_that_ours_lacks"])
    def test_a_resampler_that_is_called_in_another_way_is_refused(
        self, monkeypatch, method: str
    ) -> None:
        async def theirs(self: Any, audio: bytes, rates: tuple[int, int]) -> bytes:
            return audio

        monkeypatch.setattr(BaseAudioResampler, method, theirs, raising=False)
        with pytest.raises(RuntimeError, match="create_stream_resampler"):
            install()
        assert in_place() == PIPECATS


@pytest.mark.parametrize(
    "imports",
    [
        "import pipecat.runner.utils, pipecat.services.tts_service; install()",
        "install(); import pipecat.runner.utils, pipecat.services.tts_service",
    ],
)
def test_whichever_was_imported_first_pipecat_uses_ours(imports: str) -> None:
    program = f"""
from pipecat_twilio import install
{imports}
import pipecat_twilio, pipecat.transports.websocket.fastapi, pipecat.serializers.twilio
assert pipecat.serializers.twilio.TwilioFrameSerializer is pipecat_twilio.TwilioFrameSerializer
transport = pipecat.transports.websocket.fastapi.FastAPIWebsocketTransport
assert transport is pipecat_twilio.TwilioTransport
resampler = pipecat.services.tts_service.create_stream_resampler()
assert type(resampler) is pipecat_twilio.SincStreamResampler
"""
    subprocess.run([sys.executable, "-c", program], check=True)


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
def test_an_unusable_argument_is_refused_before_anything_is_changed(arguments, error) -> None:
    before = serializer_module.TwilioFrameSerializer
    (name,) = arguments
    with pytest.raises(error, match=name):
        install(**arguments)
    assert serializer_module.TwilioFrameSerializer is before


class Arguments(dict):
    """Arguments that a log of the test's own variables does not show."""

    def __repr__(self) -> str:
        return "..."


@pytest.mark.parametrize(
    "wrong",
    [
        {"auth_token": b"hidden token"},
        {"auth_token": "hidden token", "api_key_secret": "hidden secret"},
        {"api_key_secret": "hidden secret"},
        {"auth_token": "hidden token", "call_sid": "CA1/"},
        {"auth_token": "hidden token", "auth_tokn": "hidden token"},
    ],
)
@pytest.mark.parametrize("defaults", [{}, {"base_url": "https://pbx.example.com"}])
def test_no_secret_is_in_the_variables_of_a_traceback(defaults, wrong) -> None:
    install(**defaults)
    shown: list[str] = []
    sink = logger.add(shown.append, backtrace=False, diagnose=True)
    arguments = Arguments({"stream_sid": "MZ1", "call_sid": "CA1", "account_sid": "AC1"} | wrong)
    with logger.catch():
        serializer_module.TwilioFrameSerializer(**arguments)
    arguments = Arguments(base_url="https://user:hidden@example.com")
    with logger.catch():
        install(**arguments)
    logger.remove(sink)
    refusals = [line for line in "".join(shown).splitlines() if "Error: " in line]
    assert len(refusals) == 2
    assert "hidden" not in "".join(shown)
