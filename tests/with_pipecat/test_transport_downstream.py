"""When the pipeline is told what the caller hears, in virtual time."""

import asyncio
from typing import Any

import numpy as np
import pytest
from pipecat.frames import frames
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport
from streams import media
from virtual_bot import Bot, Hum, words
from virtual_call import CHUNK_SECS, EARLY_SECS, LATE_SECS, RATE, stall

from pipecat_twilio import TwilioTransport

LEADS = pytest.mark.parametrize("lead_secs", [0, 0.08, 0.5, 2])


async def cancel(bot: Bot) -> None:
    await bot.end(frames.CancelFrame())


class TestAudio:
    @LEADS
    def test_audio_is_pushed_when_the_caller_begins_to_hear_it(self, play, lead_secs) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(2)
            await asyncio.sleep(4)

        bot = play(scenario, lead_secs=lead_secs)
        late = [at - p.begin for at, p in zip(bot.told(), bot.twilio.plays, strict=True)]
        assert -EARLY_SECS < min(late) <= max(late) < LATE_SECS
        assert bot.told(frames.BotSpeakingFrame)[0] < bot.twilio.plays[0].begin + CHUNK_SECS

    @LEADS
    @pytest.mark.parametrize("how", [Bot.interrupt, Bot.leave, cancel])
    def test_audio_that_was_not_heard_is_not_pushed(self, play, how, lead_secs) -> None:
        async def scenario(bot: Bot) -> None:
            for word in range(10):
                await bot.queue(words(0.2, word), frames.LLMTextFrame(str(word)))
            await asyncio.sleep(0.5)  # two words, and a half, which is 13 frames
            await how(bot)
            await asyncio.sleep(3)

        bot = play(scenario, lead_secs=lead_secs)
        assert len(bot.told()) in (13, 14)  # a frame may be pushed a little before it is heard
        if how is not Bot.leave:
            assert len(bot.told(frames.LLMTextFrame)) == 2

    def test_audio_heard_in_a_stall_is_pushed_before_an_interruption(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(2)
            await asyncio.sleep(1)
            stall(bot.loop, 0.3)
            await bot.transport.output().queue_frame(frames.InterruptionFrame())
            await asyncio.sleep(1)

        assert len(play(scenario).told()) in (33, 34)  # 1.3 s

    @pytest.mark.parametrize("mixer", [Hum(), None])
    def test_background_is_pushed_too_and_silence_at_the_end_is_not(self, play, mixer) -> None:
        async def scenario(bot: Bot) -> None:
            await asyncio.sleep(1)
            await bot.end()

        options = {"audio_out_mixer": mixer, "audio_out_end_silence_secs": 1}
        kinds = (TwilioTransport, FastAPIWebsocketTransport)
        ours, theirs = (play(scenario, k, **options).told(frames.AudioRawFrame) for k in kinds)
        assert len(ours) == pytest.approx(len(theirs), abs=1 if mixer else 0)


class TestBotStartedAndStoppedSpeaking:
    @LEADS
    @pytest.mark.parametrize("mixer", [None, Hum()])
    def test_they_are_pushed_in_both_directions_when_the_caller_hears_them(
        self, play, lead_secs, mixer
    ) -> None:
        async def scenario(bot: Bot) -> None:
            await asyncio.sleep(0.5)
            for _ in range(3):
                await bot.speak(0.52)
            await asyncio.sleep(3)

        bot = play(scenario, lead_secs=lead_secs, audio_out_mixer=mixer)
        begin = next(piece.begin for piece in bot.twilio.plays if piece.ulaw[0] // 8 == 1)
        late = CHUNK_SECS if mixer else 0.005  # to the next frame
        for witness in (bot.upstream, bot.downstream):
            started = witness.times(frames.BotStartedSpeakingFrame)
            stopped = witness.times(frames.BotStoppedSpeakingFrame)
            assert started == pytest.approx([begin, begin + 0.52, begin + 1.04], abs=late)
            assert stopped == pytest.approx([begin + 0.52, begin + 1.04, begin + 1.56], abs=late)
            assert witness.speaking == ["started", "stopped"] * 3

    @pytest.mark.parametrize("after_secs", [0.3, 0.9])  # while it speaks; while that is held
    def test_an_interruption_stops_speech_at_once_and_only_once(self, play, after_secs) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(1)
            await asyncio.sleep(after_secs)
            interrupted = bot.loop.now
            await bot.interrupt()
            await asyncio.sleep(0.5)
            for witness in (bot.upstream, bot.downstream):
                assert witness.times(frames.BotStoppedSpeakingFrame) == [interrupted]
            await bot.speak(1)
            await asyncio.sleep(2)

        speaking = play(scenario).downstream.speaking
        assert speaking == ["started", "interrupted", "stopped", "started", "stopped"]

    @pytest.mark.parametrize("at", [0.05, 0.2, 0.39])
    def test_speech_that_nobody_heard_neither_starts_nor_stops(self, play, at) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(0.4, 1)
            await bot.speak(0.4, 2)
            await asyncio.sleep(at)
            await bot.interrupt()
            await asyncio.sleep(2)

        speaking = play(scenario, lead_secs=1).downstream.speaking
        assert speaking == ["started", "interrupted", "stopped"]

    @pytest.mark.parametrize("lead_secs", [0.5, 2])
    @pytest.mark.parametrize("stop", [True, False])
    def test_speech_stops_at_once_when_the_socket_is_closed(self, play, stop, lead_secs) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(2)
            await asyncio.sleep(1)
            closed = bot.loop.now
            await bot.leave(stop=stop)
            await asyncio.sleep(0.001)
            for witness in (bot.upstream, bot.downstream):
                assert witness.times(frames.BotStoppedSpeakingFrame) == [closed]
            assert bot.serializer.close_codes == [1000 if stop else 1006]

        play(scenario, lead_secs=lead_secs)

    def test_without_tts_they_are_pushed_as_by_pipecats_transport(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(1, kind=frames.SpeechOutputAudioRawFrame, stop=False)
            await bot.queue(frames.SpeechOutputAudioRawFrame(bytes(2 * RATE), RATE, 1))
            await asyncio.sleep(3)

        ours, theirs = (
            play(scenario, kind).upstream.times(frames.BotStoppedSpeakingFrame)
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert ours == pytest.approx(theirs, abs=CHUNK_SECS + LATE_SECS)

    @pytest.mark.parametrize(("ends", "gaps"), [(True, 0), (False, 1)])
    def test_the_pause_between_two_answers_is_no_gap_in_the_call_report(
        self, play, ends, gaps
    ) -> None:
        async def scenario(bot: Bot) -> None:
            for _ in range(2):
                await bot.speak(0.52, stop=ends)
                await asyncio.sleep(1)

        report = play(scenario).serializer.call_report
        assert (report.gaps, report.bot_secs) == (gaps, pytest.approx(1.04))


class TestOtherFrames:
    @LEADS
    def test_text_behind_audio_is_pushed_when_the_audio_has_been_heard(
        self, play, lead_secs
    ) -> None:
        async def scenario(bot: Bot) -> None:
            for word in ("one", "two", "three"):
                await bot.queue(words(0.4), frames.LLMTextFrame(word))
            await asyncio.sleep(3)

        bot = play(scenario, lead_secs=lead_secs)
        ends = [bot.twilio.plays[0].begin + secs for secs in (0.4, 0.8, 1.2)]
        assert bot.told(frames.LLMTextFrame) == pytest.approx(ends, abs=CHUNK_SECS + LATE_SECS)

    @pytest.mark.parametrize("pts", [None, 10**12])
    def test_tts_stopped_frame_is_pushed_behind_its_audio_even_with_a_pts(self, play, pts) -> None:
        async def scenario(bot: Bot) -> None:
            stopped = frames.TTSStoppedFrame()
            stopped.pts = pts
            await bot.queue(words(1), stopped)
            await asyncio.sleep(2)

        kinds = [type(frame) for _, frame in play(scenario).downstream.seen]
        last = [frames.TTSAudioRawFrame, frames.BotStoppedSpeakingFrame, frames.TTSStoppedFrame]
        assert [kind for kind in kinds if kind in last][-3:] == last

    def test_other_frames_with_a_pts_are_pushed_by_pipecats_clock(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            word = frames.LLMTextFrame("one")
            word.pts = bot.transport.output().get_clock().get_time() + 3 * 10**8
            await bot.queue(words(2), word)
            await asyncio.sleep(0.5)
            assert len(bot.told(frames.LLMTextFrame)) == 1

        play(scenario, lead_secs=2)

    def test_an_interruption_pushes_uninterruptible_frames_at_once(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.queue(words(1), frames.FunctionCallResultFrame("f", "1", {}, "done"))
            await asyncio.sleep(0.3)
            interrupted = bot.loop.now
            word, output = frames.LLMTextFrame("up"), bot.transport.output()
            await output.queue_frame(word, FrameDirection.UPSTREAM)
            await bot.interrupt()
            await asyncio.sleep(1)
            assert bot.told(frames.FunctionCallResultFrame) == [interrupted]
            assert bot.upstream.times(frames.LLMTextFrame) == [interrupted]

        play(scenario, lead_secs=1)

    @LEADS
    @pytest.mark.parametrize("stall_secs", [0, 0.9])
    def test_a_slow_processor_behind_the_output_receives_all_frames_in_order(
        self, play, lead_secs, stall_secs
    ) -> None:
        seen = []

        class Slow(FrameProcessor):
            """It holds up whoever pushes to it."""

            async def process_frame(self, frame: Any, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                if isinstance(frame, frames.TTSAudioRawFrame | frames.LLMTextFrame):
                    await asyncio.sleep(0.001 if frame.id % 3 else 0.05)
                    seen.append(getattr(frame, "audio", b"text"))
                await self.push_frame(frame, direction)

        async def scenario(bot: Bot) -> None:
            bot.loop.call_later(0.1, stall, bot.loop, stall_secs, 1)
            await bot.queue(
                words(0.4, 1), frames.LLMTextFrame("one"), words(0.4, 2), frames.LLMTextFrame("two")
            )
            await asyncio.sleep(30)

        play(scenario, behind=[Slow(enable_direct_mode=True)], lead_secs=lead_secs)
        expected = [words(0.4, 1).audio, b"text", words(0.4, 2).audio, b"text"]
        assert b"".join(seen) == b"".join(expected)


@pytest.mark.parametrize("stall_secs", [0, 0.12, 0.4])
@pytest.mark.parametrize("jitter_secs", [0, 0.01, 0.03])
def test_a_recording_behind_the_output_is_no_longer_than_with_pipecats_transport(
    play, stall_secs, jitter_secs
) -> None:
    async def scenario(bot: Bot) -> None:
        @recorder.event_handler("on_track_audio_data")
        async def on_track_audio_data(_: Any, user: bytes, *__: Any) -> None:
            tracks.append((len(user) / 2 / RATE, user.count(b"\x84\x82")))

        random = np.random.default_rng(1)
        for message in range(800):
            delay_secs = message / 50 + random.uniform(0, jitter_secs)
            bot.loop.call_later(delay_secs, bot.twilio.sends.put_nowait, media(bytes(160)))
        await recorder.start_recording()
        for turn in range(8):
            await asyncio.sleep(0.3)
            bot.loop.call_later(0.5, stall, bot.loop, stall_secs)
            await bot.speak(1, turn)
            await asyncio.sleep(1.7)
        await recorder.stop_recording()
        await asyncio.sleep(0.1)

    tracks: list[tuple[float, int]] = []
    for lead_secs in (None, 0.2, 0.5, 2):
        kind = TwilioTransport if lead_secs else FastAPIWebsocketTransport
        recorder = AudioBufferProcessor(num_channels=2)
        play(scenario, kind, behind=[recorder], audio_in_enabled=True, lead_secs=lead_secs)
    (theirs_secs, _), *ours = tracks
    # Gaps of more than 0.2 s are filled by the recorder, from the last frame of either voice. That
    # may have come a frame of the caller's earlier.
    frames_secs = 8 * 0.02 if stall_secs > 0.2 else 0
    for ours_secs, samples in ours:
        assert ours_secs <= theirs_secs + frames_secs + 0.001
        assert samples == pytest.approx(16 * RATE, rel=0.005)
