"""What stands behind the output of the transport gets each frame when the caller hears it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from pipecat.frames.frames import (
    BotSpeakingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.audio import audio_buffer_processor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport
from virtual_call import RATE, Bot, Play, VirtualLoop, say_two_seconds, stall


CHUNK_SECS = 0.04  # of an output frame: audio_out_10ms_chunks is 4

LATE_SECS = 0.032  # a frame may be so much later than what it tells of
BOTH = pytest.mark.parametrize("transport", [None, FastAPIWebsocketTransport])


def audio(secs: float) -> TTSAudioRawFrame:
    return TTSAudioRawFrame(b"\x10\x10" * round(secs * RATE), RATE, 1)


def told(frame_type: type, bot: Bot) -> list[float]:
    return bot.downstream.times(frame_type)


class TestAudio:
    @pytest.mark.parametrize("lead_secs", [0, 0.08, 0.2, 2])
    def test_it_comes_when_the_caller_begins_to_hear_it(self, play: Play, lead_secs) -> None:
        bot = play(say_two_seconds, lead_secs=lead_secs)
        late = [
            at - begin
            for at, (begin, _) in zip(told(TTSAudioRawFrame, bot), bot.twilio.plays, strict=True)
        ]
        assert len(late) == 50
        assert min(late) > -0.002
        assert max(late) < LATE_SECS

    def test_a_late_event_loop_brings_it_late_but_whole_and_in_order(self, play: Play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            loop.call_later(0.1, stall, loop, 0.4, 0.5)  # longer than the lead
            await say_two_seconds(bot, loop)

        frames = [f for _, f in play(scenario).downstream.seen if isinstance(f, TTSAudioRawFrame)]
        assert sum(len(frame.audio) for frame in frames) == 2 * 2 * RATE
        ids = [frame.id for frame in frames]
        assert ids == sorted(ids)

    @pytest.mark.parametrize("secs", [1, 0.1])
    def test_an_interruption_drops_what_was_not_heard(self, play: Play, secs: float) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(secs)
            await asyncio.sleep(0.05)
            await bot.interrupt()
            await asyncio.sleep(2)

        assert len(told(TTSAudioRawFrame, play(scenario))) == 2

    @pytest.mark.parametrize("lead_secs", [0.2, 2])
    def test_a_recorder_keeps_both_voices_as_long_as_the_call(
        self, play: Play, lead_secs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorder = audio_buffer_processor.AudioBufferProcessor(num_channels=2)
        tracks: dict[str, bytes] = {}

        @recorder.event_handler("on_track_audio_data")
        async def on_track_audio_data(_: Any, user: bytes, bot: bytes, *__: Any) -> None:
            tracks.update(user=user, bot=bot)

        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            clock = SimpleNamespace(monotonic=loop.time)
            monkeypatch.setattr(audio_buffer_processor, "time", clock)
            await recorder.start_recording()
            for twentieth in range(800):  # 8 times 2 s, of which the bot speaks 1 s
                frame = InputAudioRawFrame(b"\x01\x01" * 160, RATE, 1)
                await bot.transport.output().queue_frame(frame)
                if twentieth % 100 == 25:
                    await bot.speak(1)
                await asyncio.sleep(0.02)
            await recorder.stop_recording()
            await asyncio.sleep(0.1)

        play(scenario, lead_secs=lead_secs, behind=[recorder])
        assert {voice: len(pcm) / 2 / RATE for voice, pcm in tracks.items()} == pytest.approx(
            {"user": 16, "bot": 16}, abs=0.05
        )
        assert tracks["user"].count(b"\x01\x01") == pytest.approx(16 * RATE, rel=0.005)

    def test_none_comes_after_the_end(self, play: Play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(0.5)
            before = len(told(TTSAudioRawFrame, bot))
            await bot.transport.output().cleanup()
            await asyncio.sleep(2)
            assert len(told(TTSAudioRawFrame, bot)) == before

        play(scenario)


class TestOtherFrames:
    @BOTH
    @pytest.mark.parametrize("lead_secs", [0.2, 1])
    def test_text_behind_audio_comes_when_the_audio_has_been_heard(
        self, play: Play, transport, lead_secs
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for word in ("one", "two", "three"):
                await bot.worker.queue_frames([audio(0.4), LLMTextFrame(word)])
            await asyncio.sleep(3)

        options = {"lead_secs": lead_secs} if transport is None else {}
        bot = play(scenario, *[transport] if transport else [], **options)
        ends = [bot.twilio.plays[0][0] + secs for secs in (0.4, 0.8, 1.2)]
        assert told(LLMTextFrame, bot) == pytest.approx(ends, abs=CHUNK_SECS + LATE_SECS)

    def test_an_interruption_drops_text_that_was_not_heard(self, play: Play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for word in ("one", "two", "three"):
                await bot.worker.queue_frames([audio(0.2), LLMTextFrame(word)])
            await asyncio.sleep(0.3)
            await bot.interrupt()
            await asyncio.sleep(3)

        bot = play(scenario, lead_secs=1)
        assert [f.text for _, f in bot.downstream.seen if isinstance(f, LLMTextFrame)] == ["one"]

    def test_an_interruption_keeps_frames_that_it_must_not_drop(self, play: Play) -> None:
        result = FunctionCallResultFrame("f", "1", {}, "done")

        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.worker.queue_frames([audio(1), result])
            await asyncio.sleep(0.3)
            interrupted = loop.now
            await bot.interrupt()
            await asyncio.sleep(1)
            assert told(FunctionCallResultFrame, bot) == [interrupted]

        play(scenario, lead_secs=1)

    def test_a_frame_with_a_time_of_its_own_keeps_it(self, play: Play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            word = LLMTextFrame("one")
            word.pts = bot.transport.output().get_clock().get_time() + 10**6
            await bot.worker.queue_frames([audio(2), word])
            await asyncio.sleep(0.5)
            assert len(told(LLMTextFrame, bot)) == 1
            assert loop.now < bot.twilio.heard_until - 1

        play(scenario, lead_secs=2)

    def test_system_frames_are_not_held(self, play: Play) -> None:
        bot = play(say_two_seconds, lead_secs=2)
        told_at = told(BotSpeakingFrame, bot)
        assert told_at
        assert told_at[0] < bot.twilio.plays[0][0] + CHUNK_SECS


class TestBeginningOfSpeech:
    @pytest.mark.parametrize("lead_secs", [0.2, 2])
    def test_it_is_told_in_both_directions_when_the_caller_hears_it(
        self, play: Play, lead_secs
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for _ in range(3):
                await bot.speak(0.52)
            await asyncio.sleep(3)

        bot = play(scenario, lead_secs=lead_secs)
        begin = bot.twilio.plays[0][0]
        for witness in (bot.upstream, bot.downstream):
            started, stopped = map(
                witness.times, (BotStartedSpeakingFrame, BotStoppedSpeakingFrame)
            )
            assert started == pytest.approx([begin, begin + 0.52, begin + 1.04], abs=0.03)
            assert stopped == pytest.approx([begin + 0.52, begin + 1.04, begin + 1.56], abs=0.03)


class TestOrder:
    def test_a_slow_processor_behind_the_output_gets_frames_in_order(self, play: Play) -> None:
        """A direct processor holds up whoever pushes to it."""
        seen = []

        class Slow(FrameProcessor):
            def __init__(self) -> None:
                super().__init__(enable_direct_mode=True)

            async def process_frame(self, frame: Any, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                if isinstance(frame, TTSAudioRawFrame | LLMTextFrame):
                    # The first is held up for longer than a frame is long.
                    await asyncio.sleep(0 if frame.id % 3 else 0.05)
                    seen.append(frame)
                await self.push_frame(frame, direction)

        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for word in ("one", "two"):
                await bot.worker.queue_frames([audio(0.4), LLMTextFrame(word)])
            await asyncio.sleep(5)

        play(scenario, behind=[Slow()])
        kinds = [type(frame) for frame in seen]
        assert kinds == ([TTSAudioRawFrame] * 10 + [LLMTextFrame]) * 2
        ids = [frame.id for frame in seen if isinstance(frame, TTSAudioRawFrame)]
        assert ids == sorted(ids)
