"""The transport that keeps a lead in Twilio's buffer, in virtual time, against Pipecat's own."""

import asyncio
import subprocess
import sys
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    SpeechOutputAudioRawFrame,
    StopFrame,
    TTSAudioRawFrame,
)
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
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
    Twilio,
    VirtualLoop,
    interrupt_right_behind_audio,
    no_hang_up,
    say_two_seconds,
    say_two_seconds_with_stalls,
)

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport, messages

CHUNK_SECS = 0.04  # of an output frame: audio_out_10ms_chunks is 4
NEAR_SECS = 0.06  # the end of speech is told this close to when the caller hears it
TIMER_SECS = 0.002

HAS_INTERRUPTIBLE = hasattr(EndFrame(), "interruptible")


class TestLead:
    @pytest.mark.parametrize("lead_secs", [0.1, 0.2, 1])
    def test_twilio_has_the_lead_unplayed_and_at_most_a_frame_more(self, play, lead_secs) -> None:
        bot = play(say_two_seconds, lead_secs=lead_secs)
        levels, lead = bot.twilio.levels, min(lead_secs, 2)
        filled = round(lead / CHUNK_SECS)
        assert bot.twilio.heard_until - bot.twilio.plays[0][0] == pytest.approx(2)
        assert max(levels) <= lead_secs + CHUNK_SECS + TIMER_SECS
        assert all(level > lead for level in levels[filled + 1 :])
        assert bot.twilio.silences == []

    def test_the_default_lead_is_a_fifth_of_a_second(self, play) -> None:
        assert (
            play(say_two_seconds).twilio.levels
            == play(say_two_seconds, lead_secs=0.2).twilio.levels
        )

    def test_the_first_frame_is_sent_at_once(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            asked = loop.now
            await bot.speak(1)
            await asyncio.sleep(1)
            assert bot.twilio.media_times()[0] == asked

        play(scenario)

    @pytest.mark.parametrize("lead_secs", [0, 0.01])
    def test_the_lead_is_never_less_than_a_frame(self, play, lead_secs) -> None:
        bot = play(say_two_seconds, lead_secs=lead_secs)
        assert bot.twilio.silences == []
        assert max(bot.twilio.levels) <= 2 * CHUNK_SECS + TIMER_SECS

    def test_frames_longer_than_the_lead_follow_each_other_without_a_gap(self, play) -> None:
        bot = play(say_two_seconds, audio_out_10ms_chunks=50)
        assert len(bot.twilio.plays) == 4
        assert bot.twilio.silences == []

    def test_the_caller_hears_nothing_of_a_late_event_loop(self, play) -> None:
        assert play(say_two_seconds_with_stalls).twilio.silences == []

    def test_with_pipecats_transport_each_stall_is_a_gap(self, play) -> None:
        bot = play(say_two_seconds_with_stalls, FastAPIWebsocketTransport)
        assert sum(bot.twilio.silences) > 0.2

    def test_a_late_event_loop_is_made_good_at_once(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(2)
            await asyncio.sleep(0.5)
            loop.now += 0.18
            await asyncio.sleep(0.02)
            assert bot.twilio.unplayed_secs > 0.2

        assert play(scenario).twilio.silences == []

    def test_other_tasks_run_between_the_frames_of_a_long_lead(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(2)
            turns = set()
            while len(bot.twilio.plays) < 2 / CHUNK_SECS:
                turns.add(len(bot.twilio.plays))
                await asyncio.sleep(0)
            assert len(turns) > 1 / CHUNK_SECS

        play(scenario, lead_secs=2)

    @pytest.mark.parametrize("lead_secs", [-0.001, 2.001, float("nan"), float("inf"), 10**400])
    def test_a_lead_out_of_range_is_refused_by_name(self, lead_secs) -> None:
        with pytest.raises(ValueError, match=f"lead_secs .* {lead_secs}"):
            TwilioTransport(Twilio(lambda: 0), FastAPIWebsocketParams(), lead_secs=lead_secs)


class TestAForeignSerializer:
    @pytest.mark.parametrize(
        "scenario", [say_two_seconds, say_two_seconds_with_stalls, interrupt_right_behind_audio]
    )
    def test_it_is_sent_what_pipecats_transport_sends_at_the_same_times(
        self, play, scenario
    ) -> None:
        ours, theirs = (
            play(scenario, transport, serializer=no_hang_up(PipecatSerializer))
            for transport in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert len(ours.twilio.media_times()) >= 50
        assert ours.twilio.received == theirs.twilio.received
        for one, other in ((ours.upstream, theirs.upstream), (ours.downstream, theirs.downstream)):
            assert [(t, type(f)) for t, f in one.seen] == [(t, type(f)) for t, f in other.seen]

    def test_a_call_ends_as_with_pipecats_transport(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            await bot.end()

        ours, theirs = (
            play(
                scenario,
                transport,
                serializer=no_hang_up(PipecatSerializer),
                audio_out_end_silence_secs=2,
            )
            for transport in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert ours.twilio.received == theirs.twilio.received
        assert ours.twilio.closed_at == theirs.twilio.closed_at
        assert ours.downstream.speaking == theirs.downstream.speaking


class TestEndOfSpeech:
    """`BotStoppedSpeakingFrame` comes when the caller has heard the end."""

    @pytest.mark.parametrize("lead_secs", [0, 0.2, 2])
    def test_it_is_told_in_both_directions_when_the_caller_has_heard_it(
        self, play, lead_secs
    ) -> None:
        bot = play(say_two_seconds, lead_secs=lead_secs)
        for witness in (bot.upstream, bot.downstream):
            assert witness.speaking == ["started", "stopped"]
            [stopped] = witness.times(BotStoppedSpeakingFrame)
            assert abs(stopped - bot.twilio.heard_until) < NEAR_SECS

    def test_it_is_told_in_the_course_of_a_longer_stall_no_more_than_once(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(0.9)
            loop.now += 1
            await asyncio.sleep(1)

        assert len(play(scenario).upstream.times(BotStoppedSpeakingFrame)) == 1

    @pytest.mark.parametrize("lead_secs", [0.2, 2])
    def test_of_utterances_without_a_pause_each_one_starts_and_stops_in_order(
        self, play, lead_secs
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for _ in range(3):
                await bot.speak(0.5)
            await asyncio.sleep(3)

        bot = play(scenario, lead_secs=lead_secs)
        assert bot.twilio.silences == []
        for witness in (bot.upstream, bot.downstream):
            assert witness.speaking == ["started", "stopped"] * 3
            last = witness.times(BotStoppedSpeakingFrame)[-1]
            assert abs(last - bot.twilio.heard_until) < NEAR_SECS

    def test_an_utterance_after_a_pause_stops_in_its_own_time(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for _ in range(2):
                await bot.speak(0.5)
                await asyncio.sleep(1)

        bot = play(scenario)
        heard_until = [bot.twilio.plays[12][1], bot.twilio.heard_until]
        for stopped, end in zip(
            bot.upstream.times(BotStoppedSpeakingFrame), heard_until, strict=True
        ):
            assert abs(stopped - end) < NEAR_SECS

    @pytest.mark.parametrize(("ends", "gaps"), [(True, 0), (False, 1)])
    def test_the_pause_between_two_answers_is_no_gap_in_the_call_report(
        self, play, ends: bool, gaps: int
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            for _ in range(2):
                await bot.speak(0.52, stop=ends)
                await asyncio.sleep(1)

        bot = play(scenario)
        report = bot.transport._params.serializer.call_report
        assert report.gaps == gaps
        assert report.bot_secs == pytest.approx(1.04)

    @pytest.mark.parametrize("after_secs", [0.3, 0.9])  # while it speaks; while that is held back
    def test_an_interruption_tells_it_at_once(self, play, after_secs) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(after_secs)
            interrupted = loop.now
            await bot.interrupt()
            await asyncio.sleep(2)
            for witness in (bot.upstream, bot.downstream):
                assert witness.times(BotStoppedSpeakingFrame) == [interrupted]

        bot = play(scenario)
        assert bot.downstream.speaking == ["started", "interrupted", "stopped"]

    def test_an_interruption_does_not_tell_it_again(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(0.9)
            await bot.interrupt()
            await bot.speak(1)
            await asyncio.sleep(2)

        bot = play(scenario)
        expected = ["started", "interrupted", "stopped", "started", "stopped"]
        assert bot.downstream.speaking == expected
        last = bot.downstream.times(BotStoppedSpeakingFrame)[-1]
        assert abs(last - bot.twilio.heard_until) < NEAR_SECS

    @pytest.mark.parametrize("frame", [EndFrame, CancelFrame, StopFrame])
    def test_it_is_told_before_the_pipeline_ends(self, play, frame) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            await asyncio.sleep(0.85)
            await bot.worker.queue_frame(frame())
            await bot.ended

        bot = play(scenario)
        names = [f.name.split("#")[0] for _, f in bot.downstream.seen]
        assert names.count("BotStoppedSpeakingFrame") == 1
        assert names.index("BotStoppedSpeakingFrame") < names.index(frame.__name__)
        if frame is not CancelFrame:  # a cancelled processor takes nothing any more
            assert len(bot.upstream.times(BotStoppedSpeakingFrame)) == 1

    def test_speech_that_tts_does_not_end_is_over_after_pipecats_own_timeout(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1, stop=False)
            await asyncio.sleep(6)

        ours, theirs = (
            play(scenario, kind).upstream.times(BotStoppedSpeakingFrame)
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert len(ours) == 1
        assert abs(ours[0] - theirs[0]) < 0.25  # it counts from the last write

    def test_a_speech_stream_stops_when_the_caller_has_heard_its_silence(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1, SpeechOutputAudioRawFrame, stop=False)
            silence = SpeechOutputAudioRawFrame(bytes(2 * RATE), RATE, 1)
            await bot.worker.queue_frame(silence)
            await asyncio.sleep(3)

        ours, theirs = (
            play(scenario, kind).upstream.times(BotStoppedSpeakingFrame)
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert len(ours) == len(theirs) == 1
        assert abs(ours[0] - theirs[0]) < NEAR_SECS


class TestInterruption:
    def test_nothing_is_heard_after_the_clear(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(2)
            await asyncio.sleep(0.5)
            interrupted = loop.now
            await bot.interrupt()
            await asyncio.sleep(1)
            assert bot.twilio.received[-1] == (
                interrupted,
                {"event": "clear", "streamSid": "MZ1"},
            )
            assert bot.twilio.heard_until == interrupted

        play(scenario)

    @pytest.mark.parametrize("turns", range(12))
    def test_nothing_is_sent_after_it_that_was_about_to_be_sent(self, play, turns) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(2)
            await asyncio.sleep(0.5)
            sent = len(bot.twilio.received)
            while len(bot.twilio.received) == sent:  # noqa: ASYNC110  # the next one
                await asyncio.sleep(0.001)
            await asyncio.sleep(CHUNK_SECS - 0.001)
            for _ in range(turns):  # of the event loop; in one of them another one is sent
                await asyncio.sleep(0)
            await bot.transport.output().queue_frame(InterruptionFrame())
            await asyncio.sleep(1)

        bot = play(scenario)
        assert bot.twilio.received[-1][1]["event"] == "clear"

    @pytest.mark.parametrize(("after_secs", "is_sent"), [(0.05, False), (0.2, True)])
    def test_a_frame_that_was_made_before_it_can_be_written_again_later(
        self, play, after_secs, is_sent
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            frame = OutputAudioRawFrame(b"\x10" * 640, RATE, 1)
            await bot.interrupt()
            await asyncio.sleep(after_secs)
            assert await bot.transport.output().write_audio_frame(frame) is is_sent

        assert len(play(scenario).twilio.media_times()) == is_sent

    @pytest.mark.parametrize("lead_secs", [0.2, 2])
    def test_what_is_said_next_goes_out_at_once_and_with_a_lead(self, play, lead_secs) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(90)
            await asyncio.sleep(40)
            await bot.interrupt()
            await asyncio.sleep(0.01)
            sent, asked = len(bot.twilio.received), loop.now
            await bot.speak(1)
            await asyncio.sleep(0.02)
            assert bot.twilio.received[sent][0] == asked
            assert bot.twilio.unplayed_secs > 0.2
            await asyncio.sleep(2)

        play(scenario, lead_secs=lead_secs)

    def test_it_ends_a_long_wait(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            long = OutputAudioRawFrame(b"\x10" * 20 * RATE, RATE, 1)
            await bot.transport.output().write_audio_frame(long)
            await bot.speak(1)
            await asyncio.sleep(0.5)  # in the middle of a wait of 1 s
            await bot.interrupt()
            await asyncio.sleep(0.01)
            sent, asked = len(bot.twilio.received), loop.now
            await bot.speak(1)
            await asyncio.sleep(0.01)
            assert bot.twilio.received[sent][0] == asked

        play(scenario)

    @pytest.mark.skipif(not HAS_INTERRUPTIBLE, reason="before pipecat-ai 1.11")
    def test_speech_that_must_not_be_interrupted_stays_in_twilios_buffer(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            frame = TTSAudioRawFrame(b"\x10\x10" * RATE, RATE, 1)
            frame.interruptible = False
            await bot.worker.queue_frame(frame)
            for _ in range(13):
                await asyncio.sleep(0.075)
                await bot.interrupt()
            await asyncio.sleep(1)
            await bot.interrupt()
            await asyncio.sleep(1)

        bot = play(scenario)
        assert bot.twilio.heard_until - bot.twilio.plays[0][0] == pytest.approx(1)
        assert [message["event"] for _, message in bot.twilio.received[-2:]] == ["media", "clear"]
        [stopped] = bot.upstream.times(BotStoppedSpeakingFrame)
        assert stopped > bot.twilio.heard_until - NEAR_SECS


class TestEndOfCall:
    @pytest.mark.parametrize("silence_secs", [0, 2])
    @pytest.mark.parametrize("lead_secs", [0, 0.2, 2])
    def test_the_socket_is_closed_when_the_last_word_was_heard(
        self, play, lead_secs, silence_secs
    ) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(7)
            await bot.end()

        bot = play(scenario, lead_secs=lead_secs, audio_out_end_silence_secs=silence_secs)
        last_word = bot.twilio.plays[0][0] + 7
        assert abs(bot.twilio.closed_at - last_word) < NEAR_SECS
        assert bot.twilio.silences == []

    def test_a_call_that_ends_in_silence_ends_at_once(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            ending = loop.now
            await bot.end()
            assert bot.twilio.closed_at - ending < NEAR_SECS

        play(scenario, audio_out_end_silence_secs=2)

    @pytest.mark.skipif(not HAS_INTERRUPTIBLE, reason="no pipeline of pipecat-ai 1.7 ends then")
    def test_an_interruption_ends_the_wait_for_the_last_word(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(9)
            await asyncio.sleep(0.1)
            ending = asyncio.create_task(bot.end())
            await asyncio.sleep(1)
            interrupted = loop.now
            await bot.transport.output().queue_frame(*bot.interruption())
            await ending
            assert bot.twilio.closed_at - interrupted < NEAR_SECS

        play(scenario, lead_secs=2)

    def test_nothing_of_the_transport_s_own_leaves_it(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            await bot.end()

        ours, theirs = (
            play(scenario, kind) for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        for one, other in ((ours.upstream, theirs.upstream), (ours.downstream, theirs.downstream)):
            kinds = [{type(f).__name__ for _, f in w.seen} for w in (one, other)]
            assert kinds[0] == kinds[1]

    def test_a_caller_who_has_gone_is_not_waited_for(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await bot.speak(30)
            await asyncio.sleep(1)
            bot.twilio.client_state = WebSocketState.DISCONNECTED
            begin = loop.now
            await bot.end()
            assert loop.now - begin < 2

        play(scenario, lead_secs=2)


class TestMarks:
    def test_a_mark_behind_speech_is_sent_behind_all_of_its_audio(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await bot.speak(1)
            mark = messages.mark("MZ1", "answer")
            await bot.worker.queue_frame(OutputTransportMessageFrame(mark))
            await asyncio.sleep(2)

        received = [message["event"] for _, message in play(scenario).twilio.received]
        assert received == ["media"] * 25 + ["mark"]


class TestLongWrites:
    async def write_and_speak(self, bot: Bot, _: VirtualLoop) -> None:
        long = OutputAudioRawFrame(b"\x10\x10" * 30 * RATE, RATE, 1)
        await bot.transport.output().write_audio_frame(long)
        await bot.speak(3)
        await asyncio.sleep(40)

    @pytest.mark.parametrize("timeout_secs", [10, 0.5])
    def test_they_never_look_like_a_caller_who_has_gone(self, play, timeout_secs) -> None:
        bot = play(self.write_and_speak, audio_out_write_timeout_secs=timeout_secs)
        assert bot.twilio.heard_until - bot.twilio.plays[0][0] == pytest.approx(33)
        assert bot.twilio.silences == []
        assert not bot.upstream.times(ErrorFrame)

    def test_they_count_fully(self, play) -> None:
        bot = play(self.write_and_speak)
        assert bot.twilio.levels[-1] < 0.2 + CHUNK_SECS + TIMER_SECS


class TestCopies:
    """Pipecat's transport sends a copy of each frame, which is made only for who can see it."""

    @staticmethod
    def audio(bot: Bot) -> bytes:
        messages = [message for _, message in bot.twilio.received if message["event"] == "media"]
        return b"".join(b64decode(message["media"]["payload"]) for message in messages)

    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize(
        "params",
        [{}, {"add_wav_header": True}, {"audio_out_channels": 2}, {"audio_out_10ms_chunks": 1}],
    )
    def test_the_same_is_sent_as_by_pipecats_transport(self, play, channels, params) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            pcm = np.arange(-8000, 8000, dtype="<i2").tobytes()
            await bot.worker.queue_frame(TTSAudioRawFrame(pcm, RATE, channels))
            await asyncio.sleep(3)

        ours = play(scenario, **params)
        theirs = play(scenario, FastAPIWebsocketTransport, **params)
        assert self.audio(ours) == self.audio(theirs) != b""

    def test_a_frame_written_directly_counts_as_of_the_transports_rate(self, play) -> None:
        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            frame = TTSAudioRawFrame(bytes(640), 2 * RATE, 1)
            assert await bot.transport.output().write_audio_frame(frame)
            bot.twilio.client_state = WebSocketState.DISCONNECTED
            frame = TTSAudioRawFrame(bytes(640), RATE, 1)
            assert not await bot.transport.output().write_audio_frame(frame)

        assert self.audio(play(scenario)) == self.audio(play(scenario, FastAPIWebsocketTransport))

    @pytest.mark.parametrize("by", ["subclass", "assignment"])
    def test_a_serializer_of_another_kind_is_given_pipecats_copy(self, play, by) -> None:
        kinds = []

        class Watching(TwilioFrameSerializer):
            async def serialize(self, frame: Frame) -> Any:
                kinds.append(type(frame))
                return await super().serialize(frame)

        serializer = no_hang_up(Watching)
        if by == "assignment":
            serializer = no_hang_up()
            serializer.serialize = no_hang_up(Watching).serialize
        play(say_two_seconds, serializer=serializer)
        assert TTSAudioRawFrame not in kinds
        assert OutputAudioRawFrame in kinds


class TestMixer:
    @pytest.mark.parametrize("chunks", [2, 4])
    def test_background_audio_does_not_delay_what_is_said(self, play, chunks) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await asyncio.sleep(2)
            assert bot.twilio.unplayed_secs < 2 * CHUNK_SECS + TIMER_SECS
            await bot.speak(1)
            await asyncio.sleep(0.5)
            assert bot.twilio.unplayed_secs > 0.2
            await asyncio.sleep(2)
            assert bot.twilio.unplayed_secs < 2 * CHUNK_SECS + TIMER_SECS

        bot = play(scenario, audio_out_mixer=Hum(), audio_out_10ms_chunks=chunks)
        assert bot.twilio.silences == []

    def test_the_end_of_speech_is_told_when_the_caller_has_heard_it(self, play) -> None:
        async def scenario(bot: Bot, loop: VirtualLoop) -> None:
            await asyncio.sleep(1)
            begin = loop.now + bot.twilio.unplayed_secs
            await bot.speak(1)
            await asyncio.sleep(2)
            for witness in (bot.upstream, bot.downstream):
                [stopped] = witness.times(BotStoppedSpeakingFrame)
                assert abs(stopped - (begin + 1)) < NEAR_SECS + CHUNK_SECS  # to the next frame

        play(scenario, audio_out_mixer=Hum())

    def test_a_serializer_that_drops_everything_does_not_spin(self, play) -> None:
        class Dropping(TwilioFrameSerializer):
            async def serialize(self, frame: Frame) -> None:
                return None

        async def scenario(bot: Bot, _: VirtualLoop) -> None:
            await asyncio.sleep(1)

        hum = Hum()
        play(scenario, serializer=no_hang_up(Dropping), audio_out_mixer=hum)
        assert 1 < hum.mixed < 1100


def test_in_two_hours_the_estimate_does_not_drift(play) -> None:
    hours_secs = 2 * 3600

    async def scenario(bot: Bot, loop: VirtualLoop) -> None:
        output, serializer = bot.transport.output(), bot.transport.output()._params.serializer
        random = np.random.default_rng(1)
        begin, worst = loop.now, 0.0
        while loop.now - begin < hours_secs:
            # An utterance, in frames that are no whole number of Twilio's; some stalls; a pause.
            for _ in range(random.integers(10, 200)):
                samples = random.integers(1, 2 * round(0.1 * 24000))
                frame = TTSAudioRawFrame(bytes(2 * samples), 24000, 1)
                assert await output.write_audio_frame(frame)
                if random.random() < 0.02:
                    loop.now += 0.15
                worst = max(worst, abs(serializer.unplayed_secs() - bot.twilio.unplayed_secs))
                assert bot.twilio.unplayed_secs <= 0.2 + 0.001
            await asyncio.sleep(random.uniform(0, 5))
            if random.random() < 0.2:
                await output.process_frame(*bot.interruption())
        assert loop.now - begin >= hours_secs
        assert len(bot.twilio.plays) > 20000
        assert worst < 1e-6

    play(scenario, audio_out_sample_rate=24000)


