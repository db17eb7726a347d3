"""Audio that skips empty queues and short frames that share a message, in virtual time."""

import asyncio
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import (
    BotSpeakingFrame,
    BotStartedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMTextFrame,
    MixerEnableFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketOutputTransport,
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)
from starlette.websockets import WebSocketState
from virtual_call import (
    RATE,
    Bot,
    Hum,
    Play,
    Twilio,
    VirtualLoop,
    interrupt_right_behind_audio,
    no_hang_up,
    say_two_seconds,
)

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport, messages, ulaw
from pipecat_twilio.transport import check_pipecat

HAS_INTERRUPTIBLE = hasattr(EndFrame(), "interruptible")
HAS_FILTER = "audio_out_filter" in FastAPIWebsocketParams.model_fields


class TestQueues:
    """Audio skips a queue that is empty, and never overtakes a frame that is in one."""

    @staticmethod
    def seen_with_both(play: Play, scenario: Any, serializer: type = TwilioFrameSerializer) -> Any:
        """Plays a scenario with our transport and with Pipecat's, which must show the same."""

        def seen(kind: type) -> tuple[list[Any], list[Any]]:
            bot = play(scenario, kind, serializer=no_hang_up(serializer))
            behind = [
                getattr(frame, "text", None) or getattr(frame, "audio", None)
                for _, frame in bot.downstream.seen
                if isinstance(frame, LLMTextFrame | OutputAudioRawFrame)
            ]
            return [message for _, message in bot.twilio.received], behind

        ours = seen(TwilioTransport)
        assert ours == seen(FastAPIWebsocketTransport)
        return ours

    def test_frames_keep_their_order(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            random = np.random.default_rng(1)
            for number, kind in enumerate(random.choice(3, 99)):
                frame = (
                    OutputAudioRawFrame(bytes([number]) * 640, RATE, 1),
                    OutputTransportMessageFrame(messages.mark("MZ1", str(number))),
                    LLMTextFrame(str(number)),
                )[kind]
                await bot.transport.output().queue_frame(frame)
                for _ in range(random.choice(4)):  # the frame may be in either queue, or out
                    await asyncio.sleep(0)
                if number % 7 == 6:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(3)

        sent, behind = self.seen_with_both(play, scenario)
        assert len(sent) > 50
        assert len(behind) > 50

    def test_a_slow_handler_delays_the_same_frames_as_in_pipecat(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            output = bot.transport.output()
            await bot.speak(0.04)
            await asyncio.sleep(0.5)

            async def handle(_: Any, frame: Frame) -> None:
                await asyncio.sleep(0.05 * isinstance(frame, OutputAudioRawFrame))

            for event in ("on_before_process_frame", "on_after_process_frame"):
                output.add_event_handler(event, handle)
                before = loop.now
                await output.queue_frame(TTSAudioRawFrame(bytes(640), RATE, 1))
                assert loop.now == before
                await output.queue_frame(OutputTransportMessageFrame(messages.mark("MZ1", event)))
                await asyncio.sleep(0.5)
                await output.queue_frame(TTSAudioRawFrame(bytes(640), RATE, 1))
                await asyncio.sleep(0.02)
                await bot.interrupt()
                await asyncio.sleep(0.5)

        sent, _ = self.seen_with_both(play, scenario)
        kinds = [message["event"] for message in sent]
        assert kinds == ["media", "media", "mark", "clear", "media", "mark", "clear"]

    def test_what_is_said_while_an_interruption_is_handled_is_heard(self, play) -> None:
        class Slow(TwilioFrameSerializer):
            async def serialize(self, frame: Frame) -> str | bytes | None:
                if isinstance(frame, InterruptionFrame):
                    await asyncio.sleep(0.1)
                return await super().serialize(frame)

        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(0.4)
            await asyncio.sleep(1)
            for interruption in [InterruptionFrame()] * 2:
                await bot.transport.output().queue_frame(interruption)
            await asyncio.sleep(0.15)  # the second one is being handled
            await bot.speak(0.4)
            await asyncio.sleep(1)

        sent, _ = self.seen_with_both(play, scenario, Slow)
        kinds = [message["event"] for message in sent]
        assert kinds == ["media"] * 10 + ["clear"] * 2 + ["media"] * 10

    def test_an_interruption_right_behind_audio_drops_it(self, play) -> None:
        bot = play(interrupt_right_behind_audio)
        assert bot.twilio.received[-1][1]["event"] == "clear"

    def test_audio_waits_for_a_mixer_that_is_being_told_something(self, play) -> None:
        class Slow(Hum):
            async def process_frame(self, frame: Frame) -> None:
                await asyncio.sleep(0.2)

        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(0.4)
            await asyncio.sleep(1)
            told = loop.now
            await bot.transport.output().queue_frame(MixerEnableFrame(enable=True))
            await asyncio.sleep(0.1)
            await bot.speak(0.4)
            await asyncio.sleep(1)
            assert bot.downstream.times(TTSAudioRawFrame)[10] >= told + 0.2

        play(scenario, audio_out_mixer=Slow())

    @pytest.mark.parametrize("frames", ["frames", "system_frames"])
    def test_audio_waits_while_the_output_is_paused(self, play, frames) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output = bot.transport.output()
            await bot.speak(0.4)
            await asyncio.sleep(1)
            await getattr(output, f"pause_processing_{frames}")()
            await bot.speak(0.4)
            await asyncio.sleep(1)
            assert len(bot.twilio.received) == 10
            await getattr(output, f"resume_processing_{frames}")()
            await asyncio.sleep(1)
            assert len(bot.twilio.received) == 20

        self.seen_with_both(play, scenario)

    def test_audio_before_the_start_and_after_the_end_is_treated_as_pipecat_treats_it(
        self, play
    ) -> None:  # before the start it is heard, except in pipecat-ai 1.7
        def seen(kind: type[FastAPIWebsocketTransport]) -> tuple[int, int]:
            async def queue(bot: FastAPIWebsocketTransport) -> None:
                frame = OutputAudioRawFrame(b"\x10\x10" * 320, RATE, 1)
                await bot.output().queue_frame(frame)

            def made(*args: Any) -> FastAPIWebsocketTransport:
                transport = kind(*args)
                early.append(asyncio.ensure_future(queue(transport)))
                return transport

            async def scenario(bot: Bot, _: VirtualLoop) -> None:
                await early[-1]
                await asyncio.sleep(1)
                await bot.worker.cancel()
                await bot.ended
                await queue(bot.transport)
                [sender] = bot.transport.output()._media_senders.values()
                queued.append(sender._audio_queue.qsize())

            queued: list[int] = []
            return len(play(scenario, made).twilio.received), queued[0]

        early: list[asyncio.Future[None]] = []
        assert seen(TwilioTransport) == seen(FastAPIWebsocketTransport)

    def test_who_pushes_the_end_does_not_wait_for_the_last_word(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(0.1)
            pushed = loop.now
            await bot.transport.output().queue_frame(EndFrame())
            assert loop.now == pushed
            await asyncio.sleep(0.1)
            await bot.speak(1)  # too late
            await asyncio.sleep(2)
            assert bot.downstream.times(EndFrame)

        sent, _ = self.seen_with_both(play, scenario)
        assert len(sent) == 25

    def test_only_what_may_have_to_wait_is_queued(self, play, monkeypatch) -> None:
        async def queue_frame(self: Any, frame: Frame, *args: Any) -> None:
            queued.append(frame)
            await original(self, frame, *args)

        async def callback(*_: Any) -> None: ...

        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output, up = bot.transport.output(), FrameDirection.UPSTREAM
            for _ in range(10):
                await output.queue_frame(audio[0])
                await asyncio.sleep(0.04)
            await output.queue_frame(LLMTextFrame("before audio"))
            await output.queue_frame(audio[1])
            await asyncio.sleep(0.04)
            await output.queue_frame(audio[2], up)
            await asyncio.sleep(0.04)
            await output.queue_frame(audio[3], FrameDirection.DOWNSTREAM, callback)

        audio = [TTSAudioRawFrame(bytes(640), RATE, 1) for _ in range(4)]
        queued: list[Frame] = []
        original = FastAPIWebsocketOutputTransport.queue_frame
        monkeypatch.setattr(FastAPIWebsocketOutputTransport, "queue_frame", queue_frame)
        play(scenario)
        assert [frame for frame in queued if frame in audio] == audio[1:]


def audio_sent(twilio: Twilio) -> list[tuple[float, bytes]]:
    """Returns the audio of each message, after the time it came at."""
    return [
        (at, b64decode(message["media"]["payload"]))
        for at, message in twilio.received
        if message["event"] == "media"
    ]


def numbered(number: int, ms: int = 20) -> TTSAudioRawFrame:
    """Returns a frame of audio that can be told from others; the number is below 128."""
    return TTSAudioRawFrame(ulaw.decode(bytes([number]) * (RATE * ms // 1000)), RATE, 1)


def numbers_in(audio: bytes) -> list[int]:
    """Returns the numbers of the frames that audio was made of, in order."""
    return [number for i, number in enumerate(audio) if i == 0 or number != audio[i - 1]]


class Slow(FrameProcessor):
    """Whoever pushes such a frame to it waits, so many times."""

    def __init__(
        self, kind: type[Frame] = OutputAudioRawFrame, *, secs: float = 0.05, times: int = 9999
    ) -> None:
        super().__init__(enable_direct_mode=True)
        self._kind, self._secs, self._times = kind, secs, times
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append(frame)
        if isinstance(frame, self._kind) and self._times:
            self._times -= 1
            await asyncio.sleep(self._secs)
        await self.push_frame(frame, direction)


class TestShortFrames:
    """Frames of less than 40 ms share a message if they are there at the same time."""

    @pytest.mark.parametrize(("chunks", "samples"), [(1, 320), (2, 320), (3, 240), (4, 320)])
    def test_what_is_ready_is_sent_in_messages_of_up_to_40_ms(self, play, chunks, samples) -> None:
        ours, theirs = (
            play(say_two_seconds, kind, audio_out_10ms_chunks=chunks)
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        audio, expected = (
            b"".join(audio for _, audio in audio_sent(bot.twilio)) for bot in (ours, theirs)
        )
        assert audio == expected
        assert {len(audio) for _, audio in audio_sent(ours.twilio)[:-1]} == {samples}
        assert ours.twilio.silences == []
        for one, other in ((ours.upstream, theirs.upstream), (ours.downstream, theirs.downstream)):
            frames, others = (
                [(type(f), f.audio) for _, f in w.seen if isinstance(f, OutputAudioRawFrame)]
                for w in (one, other)
            )
            assert frames == others

    def test_a_frame_waits_for_none_that_is_not_there(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            for number in range(20):
                pushed.append(loop.now)
                await bot.transport.output().queue_frame(numbered(number))
                await asyncio.sleep(0.02)

        pushed: list[float] = []
        bot = play(scenario, audio_out_10ms_chunks=2)
        assert [at for at, _ in audio_sent(bot.twilio)] == pushed

    @pytest.mark.parametrize("lead_secs", [0.2, 60])
    @pytest.mark.parametrize("chunks", [1, 2])
    def test_each_frame_is_pushed_when_the_caller_hears_it(self, play, chunks, lead_secs) -> None:
        bot = play(say_two_seconds, audio_out_10ms_chunks=chunks, lead_secs=lead_secs)
        times, count = bot.downstream.times(TTSAudioRawFrame), 200 // chunks
        heard = bot.twilio.plays[0][0] + 2 / count * np.arange(count)
        assert len(times) == count
        late = (times - heard)[4:]  # the first ones are heard so soon that they are not held back
        assert np.all((late > -0.002) & (late < 0.041))

    def test_what_is_heard_soon_is_pushed_at_once(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            asked = loop.now
            for number in range(2):
                await bot.transport.output().queue_frame(numbered(number))
            await asyncio.sleep(1)
            assert bot.downstream.times(TTSAudioRawFrame) == [asked] * 2

        play(scenario, audio_out_10ms_chunks=2)

    def test_mono_and_stereo_are_sent_as_by_pipecats_transport(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for number in range(20):
                frame = numbered(number)
                frame.num_channels = 1 + number // 3 % 2
                await bot.transport.output().queue_frame(frame)
            await asyncio.sleep(3)

        ours, theirs = (
            b"".join(a for _, a in audio_sent(play(scenario, kind, audio_out_10ms_chunks=2).twilio))
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert numbers_in(ours) == list(range(20))
        assert ours == theirs

    def test_a_frame_does_not_wait_for_those_of_another_destination(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(2)
            await asyncio.sleep(0.505)  # the next one is sent in 15 ms
            asked, frame = loop.now, numbered(1)
            frame.transport_destination = "other"
            await bot.transport.output().queue_frame(frame)
            await asyncio.sleep(0.001)
            at, audio = audio_sent(bot.twilio)[-1]
            assert at == asked
            assert numbers_in(audio) == [1]

        play(scenario, audio_out_10ms_chunks=2, audio_out_destinations=["other"])

    def test_what_stands_between_two_frames_stays_between_them(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            random = np.random.default_rng(2)
            for number, is_mark in enumerate(random.choice(2, 99, p=[0.7, 0.3])):
                mark = OutputTransportMessageFrame(messages.mark("MZ1", str(number)))
                await bot.transport.output().queue_frame(mark if is_mark else numbered(number))
                for _ in range(random.choice(3)):
                    await asyncio.sleep(0)
            await asyncio.sleep(3)

        twilio = play(scenario, audio_out_10ms_chunks=2).twilio
        sent = []
        for _, message in twilio.received:
            if message["event"] == "mark":
                sent.append(int(message["mark"]["name"]))
            else:
                sent += numbers_in(b64decode(message["media"]["payload"]))
        assert sent == list(range(99))
        assert len(twilio.received) < 90

    def test_nobody_behind_the_output_delays_what_is_sent(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            asked = loop.now
            for number in range(2):
                await bot.transport.output().queue_frame(numbered(number))
            await asyncio.sleep(1)
            [(at, audio)] = audio_sent(bot.twilio)
            assert at == asked
            assert numbers_in(audio) == [0, 1]

        play(scenario, behind=[Slow()], audio_out_10ms_chunks=2)

    @pytest.mark.parametrize("after_secs", [0, 0.01, 0.1, 0.515])
    @pytest.mark.parametrize("chunks", [1, 2])
    def test_an_interruption_keeps_what_was_not_heard_from_those_behind(
        self, play, chunks, after_secs
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(2)
            await asyncio.sleep(0.001 + after_secs)
            await bot.interrupt()
            await asyncio.sleep(1)

        bot = play(scenario, audio_out_10ms_chunks=chunks)
        pushed_secs = 0.01 * chunks * len(bot.downstream.times(TTSAudioRawFrame))
        heard_secs = bot.twilio.heard_until - bot.twilio.plays[0][0]
        assert heard_secs - 0.041 < pushed_secs < heard_secs + 0.041

    def test_what_is_said_is_in_order_with_the_start_of_speech(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for number in range(5):
                frame = numbered(number)
                if number < 3:  # such as music: not speech
                    frame = OutputAudioRawFrame(frame.audio, RATE, 1)
                await bot.transport.output().queue_frame(frame)
            await asyncio.sleep(1)

        def pushed(kind: type) -> list[Any]:
            behind = Slow(times=0)
            play(scenario, kind, behind=[behind], audio_out_10ms_chunks=2)
            return [
                getattr(frame, "audio", type(frame))
                for frame in behind.seen
                if isinstance(frame, OutputAudioRawFrame | BotStartedSpeakingFrame)
            ]

        ours = pushed(TwilioTransport)
        assert len(ours) == 6
        assert ours == pushed(FastAPIWebsocketTransport)

    @pytest.mark.parametrize("secs", [0.3, 1.5])
    def test_someone_slow_behind_the_output_is_not_taken_for_a_caller_who_has_gone(
        self, play, secs
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(5)
            assert not bot.upstream.times(ErrorFrame)
            assert len(bot.downstream.times(TTSAudioRawFrame)) == 50

        slow = Slow(secs=secs, times=1)
        play(scenario, behind=[slow], audio_out_10ms_chunks=2, audio_out_write_timeout_secs=1)

    @pytest.mark.parametrize("method", ["write_audio_frame", "_write_frame"])
    @pytest.mark.parametrize("by", ["subclass", "assignment"])
    def test_a_method_of_someone_else_is_given_each_frame(self, play, method, by) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output = bot.transport.output()

            async def own(frame: OutputAudioRawFrame) -> bool:
                given.append(numbers_in(ulaw.encode(frame.audio)))
                return await original(frame)

            original = getattr(output, method)
            if by == "assignment":
                setattr(output, method, own)
            else:
                own_method = {method: lambda self, frame: own(frame)}
                output.__class__ = type("Derived", (type(output),), own_method)
            for number in range(20):
                await output.queue_frame(numbered(number))
            await asyncio.sleep(1)
            assert [numbers_in(audio) for _, audio in audio_sent(bot.twilio)] == given

        given: list[list[int]] = []
        play(scenario, audio_out_10ms_chunks=2)
        assert given == [[number] for number in range(20)]

    def test_a_frame_that_waits_when_the_caller_leaves_holds_nothing_up(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output = bot.transport.output()
            await output.queue_frame(OutputAudioRawFrame(numbered(1).audio, RATE, 1))
            await output.queue_frame(numbered(2))
            await asyncio.sleep(0.01)  # the first one waits while Slow has the second one wait
            bot.twilio.client_state = WebSocketState.DISCONNECTED
            await output.queue_frame(TTSStoppedFrame())
            await asyncio.sleep(1)

        bot = play(scenario, behind=[Slow(BotSpeakingFrame)], audio_out_10ms_chunks=2)
        assert bot.twilio.received == []
        assert bot.downstream.times(OutputAudioRawFrame) == []
        assert bot.downstream.speaking == ["started", "stopped"]

    def test_a_frame_written_directly_is_sent_and_not_pushed(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output, own = bot.transport.output(), numbered(1)
            await output.queue_frame(numbered(2))  # is ready, but not yet sent
            assert await output.write_audio_frame(own)
            await asyncio.sleep(1)
            [(_, audio)] = audio_sent(bot.twilio)
            assert numbers_in(audio) == [1, 2]
            assert len(bot.downstream.times(TTSAudioRawFrame)) == 1

        play(scenario, audio_out_10ms_chunks=2)

    @pytest.mark.parametrize("chunks", [1, 2])
    @pytest.mark.parametrize("turns", range(16))
    def test_nothing_from_before_an_interruption_is_heard_after_it(
        self, play, chunks, turns
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output = bot.transport.output()
            for _ in range(12):
                await output.queue_frame(numbered(1))
            for _ in range(turns):
                await asyncio.sleep(0)
            await output.queue_frame(InterruptionFrame())
            await asyncio.sleep(0.01)
            for _ in range(4):
                await output.queue_frame(numbered(2))
            await asyncio.sleep(1)

        bot = play(scenario, audio_out_10ms_chunks=chunks)
        sent_secs = sum(len(audio) for _, audio in audio_sent(bot.twilio)) / RATE
        assert 0.01 * chunks * len(bot.downstream.times(TTSAudioRawFrame)) < sent_secs + 0.001
        received = [message for _, message in bot.twilio.received]
        after = received[[message["event"] for message in received].index("clear") + 1 :]
        heard = b"".join(b64decode(message["media"]["payload"]) for message in after)
        assert numbers_in(heard) == [2]
        assert len(heard) == 4 * 160

    @pytest.mark.parametrize(
        ("is_interruptible", "heard"),
        [
            (True, [2]),
            pytest.param(
                False,
                [3, 2],
                marks=pytest.mark.skipif(not HAS_INTERRUPTIBLE, reason="before pipecat-ai 1.11"),
            ),
        ],
    )
    def test_a_frame_that_waits_for_the_next_one_can_be_interrupted(
        self, play, is_interruptible, heard
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output = bot.transport.output()
            # That the bot speaks is told before the speech is sent, and Slow takes its time.
            frame = OutputAudioRawFrame(numbered(3).audio, RATE, 1)
            if not is_interruptible:
                frame.interruptible = False
            await output.queue_frame(frame)
            await output.queue_frame(numbered(1))
            await asyncio.sleep(0.01)
            await output.queue_frame(InterruptionFrame())
            await asyncio.sleep(0.2)
            await output.queue_frame(numbered(2))
            await asyncio.sleep(1)

        slow = Slow(BotSpeakingFrame)
        twilio = play(scenario, behind=[slow], audio_out_10ms_chunks=2).twilio
        assert [numbers_in(audio) for _, audio in audio_sent(twilio)] == [[each] for each in heard]
        pushed = [numbers_in(ulaw.encode(f.audio))[0] for f in slow.seen if hasattr(f, "audio")]
        assert pushed == heard

    def test_a_frame_from_before_an_interruption_that_is_written_again_is_heard(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            output, frame = bot.transport.output(), numbered(1)
            await output.queue_frame(InterruptionFrame())
            await asyncio.sleep(0.2)
            await output.queue_frame(numbered(2))  # is ready, but not yet sent
            assert await output.write_audio_frame(frame)
            await asyncio.sleep(1)

        twilio = play(scenario, audio_out_10ms_chunks=2).twilio
        assert [numbers_in(audio) for _, audio in audio_sent(twilio)] == [[1], [2]]

    @pytest.mark.skipif(not HAS_FILTER, reason="this pipecat-ai has no filters for output")
    def test_with_a_filter_each_frame_is_sent_alone(self, play) -> None:
        class EverySecond(BaseAudioFilter):
            calls = 0

            async def start(self, sample_rate: int) -> None: ...

            async def stop(self) -> None: ...

            async def process_frame(self, frame: Any) -> None: ...

            async def filter(self, audio: bytes) -> bytes:
                self.calls += 1
                return audio if self.calls % 2 else b""

        ours, theirs = (
            audio_sent(
                play(
                    say_two_seconds,
                    kind,
                    audio_out_10ms_chunks=2,
                    audio_out_filter=EverySecond(),
                ).twilio
            )
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert [audio for _, audio in ours] == [audio for _, audio in theirs]


class TestAnotherPipecat:
    @pytest.mark.parametrize(
        ("kind", "method", "missing"),
        [
            (FrameProcessor, "queue_frame", "_enable_direct_mode, _FrameProcessor__process_frame"),
            (
                FrameProcessor,
                "__init__",
                "_FrameProcessor__input_queue, .*, on_before_process_frame, on_after",
            ),
            (FrameProcessor, "add_event_handler", "_event_handlers"),
            (BaseOutputTransport, "__init__", "_media_senders"),
            (BaseOutputTransport.MediaSender, "handle_sync_frame", "_audio_queue"),
        ],
    )
    def test_one_whose_queues_are_others_is_refused(
        self, monkeypatch, kind, method, missing
    ) -> None:
        def other(self: Any, *args: Any) -> None: ...

        monkeypatch.setattr(kind, method, other)
        with pytest.raises(RuntimeError, match=f"does not use {missing}"):
            check_pipecat()
