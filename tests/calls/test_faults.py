"""Live calls that go wrong, over the real transport on loopback.

The bot is the echo bot; its serializer records the caller's audio as the pipeline gets it. After
each call no task of it may be left, and the next call has to work.
"""

import asyncio
import itertools
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar

import numpy as np
import pytest
from pipecat.frames.frames import Frame, InputAudioRawFrame
from pipecat.pipeline.worker import PipelineWorker
from streamdouble import metrics
from streamdouble.chaos import Network
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Dtmf, Say, Scenario
from streamdouble.session import Session

from pipecat_twilio import SincResampler, TwilioFrameSerializer, ulaw

AUDIO = np.random.default_rng(1).bytes(30 * 160)  # 0.6 s
WORD = Say(Path("-"), [AUDIO[i : i + 160] for i in range(0, len(AUDIO), 160)])
HELLO = Say(Path("-"), WORD.frames[:6])
TAIL = 32  # bytes of mu-law


class Witness(TwilioFrameSerializer):
    """Records the audio that it gives to the pipeline, for each call."""

    of_call: ClassVar[dict[Any, "Witness"]] = {}
    heard = b""

    async def deserialize(self, data: str | bytes) -> Frame | None:
        self.of_call[self._call_sid] = self
        frame = await super().deserialize(data)
        if isinstance(frame, InputAudioRawFrame):
            self.heard += frame.audio
        return frame


class Stalls(Network):
    """A network that twice holds everything back for 0.4 s, and then delivers it all at once."""

    def delay_s(self) -> float:
        return 0.4 if self.frames_considered in (8, 20) else 0


class Caller(Session):
    """A caller who may do something else after each 20 ms of audio."""

    said = b""
    aside: Callable[["Caller", Any], Awaitable[None]] | None = None

    async def _send(self, connection: Any, frame: dict[str, Any]) -> None:
        await super()._send(connection, frame)
        if frame["event"] == "media":
            self.said += b64decode(frame["media"]["payload"])
            if self.aside is not None:
                await self.aside(connection)

    async def _drain(self) -> None:
        """Returns when all has come back, however long a busy machine takes."""
        while not (len(self._audio_received) >= len(self.said) or self._socket_closed.is_set()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # streamdouble has no event for it


class Bot:
    """A running bot, which is called at its webhook."""

    def __init__(self, webhook: str) -> None:
        self._webhook = webhook
        self._idle_tasks = len(asyncio.all_tasks())

    async def takes(self, *steps: Any, network: Network | None = None, aside: Any = None) -> Caller:
        """Calls it, and returns when the caller is done."""
        identity = StreamIdentity()
        url = f"{self._webhook.replace('http', 'ws')}stream/{identity.call_sid}"
        caller = Caller(url, scenario=Scenario("", steps), identity=identity)
        caller.network = network or caller.network
        caller.aside = aside and MethodType(aside, caller)
        await asyncio.wait_for(caller.run(), 60)
        return caller

    async def takes_all(self, *steps: Any, **options: Any) -> None:
        """Calls it; checks that the pipeline got exactly what was said, and echoed it all."""
        caller = await self.takes(*steps, **options)
        assert caller.result.closed_by is None
        # The filter never lost its history.
        resampler = SincResampler(8000, 16000, clear_after_secs=None)
        heard = Witness.of_call[caller.result.identity.call_sid].heard
        assert heard == resampler.process(ulaw.decode(caller.said))
        # The filter's tail comes back too, once for each stall.
        assert (len(caller.result.audio_received) - len(caller.said)) % TAIL == 0

    async def comes_to_rest(self) -> None:
        """Waits until no task of any call is left."""
        async with asyncio.timeout(30):
            while len(asyncio.all_tasks()) > self._idle_tasks:  # noqa: ASYNC110  # has no event
                await asyncio.sleep(0.01)


@pytest.fixture
async def bot(echo_bot, log: list[str]) -> AsyncIterator[Bot]:
    async with echo_bot(output_ms=20, serializer=Witness) as webhook:
        bot = Bot(webhook)
        yield bot
        await bot.comes_to_rest()
        await bot.takes_all(HELLO)
    # The transport's words for an exception that ended its receive loop.
    assert not [line for line in log if "exception receiving data" in line]


async def test_after_stalls_of_the_line_audio_goes_on_and_history_is_kept(bot: Bot) -> None:
    await bot.takes_all(WORD, network=Stalls())


async def test_garbage_between_good_messages_is_ignored(bot: Bot, log: list[str]) -> None:
    garbage = itertools.cycle(["{", b"\xff\xfe\x00", "[" * 100_000, "x" * (1 << 21)])

    async def send_garbage(caller: Caller, connection: Any) -> None:
        await connection.send(next(garbage))

    await bot.takes_all(WORD, aside=send_garbage)
    assert 0 < len([line for line in log if "dropped a" in line]) < 10


async def test_a_call_without_detected_speech_is_not_ended_as_idle(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pipecat's default is five minutes, in which none of the frames came that it waits for.
    monkeypatch.setitem(PipelineWorker.__init__.__kwdefaults__, "idle_timeout_secs", 0.3)
    await bot.takes_all(WORD, WORD)


async def test_a_caller_who_vanishes_in_mid_word_leaves_no_trouble(bot: Bot) -> None:
    async def vanish(caller: Caller, connection: Any) -> None:
        if len(caller.said) == 160 * 15:
            connection.transport.abort()  # no word to the other side
            await connection.wait_closed()

    caller = await bot.takes(WORD, aside=vanish)
    assert len(caller.said) == 160 * 15
    await bot.comes_to_rest()


async def test_the_call_report_has_the_callers_figures(bot: Bot) -> None:
    caller = await bot.takes(Dtmf("1"), WORD, WORD, Dtmf("*"), WORD, Dtmf("#"), *[WORD] * 50)
    report = Witness.of_call[caller.result.identity.call_sid].call_report
    theirs = metrics.compute(caller.result)
    assert report.bot_secs == pytest.approx(theirs.audio_received_ms / 1000, abs=0.02)
    # What the bot had not yet read when it ended the call is not in its report.
    assert round(8000 * report.caller_secs) <= round(8 * theirs.audio_sent_ms)  # samples
    assert report.interruptions == theirs.clears_received == 1
    # That of "#" comes back at the moment at which the bot may read no more.
    assert theirs.marks_echoed - 1 <= report.marks_played <= theirs.marks_echoed
    assert report.marks_played >= 1
    assert report.dropped == {}
    assert (report.ended_by, report.rest_answer) == ("EndFrame", "200")
