"""What is heard after an interruption, in virtual time."""

import asyncio

import numpy as np
import pytest
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames import frames
from virtual_bot import Bot, own_clear, words
from virtual_call import CHUNK_SECS, RATE

from pipecat_twilio.audio.ulaw import encode

KEY_SECS = 0.5


def keys(count: int) -> frames.OutputDTMFUrgentFrame:
    return frames.OutputDTMFUrgentFrame(buttons=[KeypadEntry("5")] * count)


def keys_secs(bot: Bot) -> float:
    """How much of the keys was heard; each is a message of its own."""
    pieces = [piece for piece in bot.twilio.plays if len(piece.ulaw) > KEY_SECS * RATE * 0.9]
    return sum(piece.end - piece.begin for piece in pieces)


class TestInterruption:
    @pytest.mark.parametrize("lead_secs", [0, 0.5, 2])
    @pytest.mark.parametrize("send_secs", [0, 0.03])
    @pytest.mark.parametrize("offset_secs", np.arange(0, 0.04, 0.005))
    def test_clear_is_sent_at_once_and_nothing_follows(
        self, play, lead_secs, send_secs, offset_secs
    ) -> None:
        async def scenario(bot: Bot) -> None:
            bot.twilio.send_secs = send_secs
            await bot.speak(90)
            await asyncio.sleep(5 + offset_secs)
            interrupted = bot.loop.now
            await bot.interrupt()
            await asyncio.sleep(2)
            assert bot.twilio.times("clear") == [interrupted + send_secs]
            assert bot.twilio.heard_until <= interrupted + send_secs
            asked = bot.loop.now
            await bot.speak(1, 2)
            await asyncio.sleep(3)
            assert bot.twilio.plays[-25].begin == asked + send_secs
            assert bot.twilio.heard_secs(2) == 1

        play(scenario, lead_secs=lead_secs)

    @pytest.mark.parametrize("turns", range(12))
    def test_nothing_is_sent_after_it_that_was_about_to_be_sent(self, play, turns) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(2)
            await asyncio.sleep(0.541)
            sent = len(bot.twilio.received)
            while len(bot.twilio.received) == sent:  # noqa: ASYNC110  # the next one
                await asyncio.sleep(0.001)
            await asyncio.sleep(CHUNK_SECS - 0.001)
            for _ in range(turns):  # of the event loop; in one of them another one is sent
                await asyncio.sleep(0)
            await bot.transport.output().queue_frame(frames.InterruptionFrame())
            await asyncio.sleep(1)

        assert play(scenario).twilio.received[-1][1]["event"] == "clear"

    @pytest.mark.parametrize("number", [1, 10])  # which is pushed at once; which is held
    def test_it_may_come_from_whoever_receives_a_frame(self, play, number) -> None:
        async def scenario(bot: Bot) -> None:
            @bot.transport.output().event_handler("on_after_push_frame")
            async def on_after_push_frame(output, frame) -> None:
                if isinstance(frame, frames.TTSAudioRawFrame) and len(bot.told()) == number:
                    await output.queue_frame(frames.InterruptionFrame())

            for number_said in (1, 2):
                await bot.speak(2, number_said)
                await asyncio.sleep(3)
            assert bot.twilio.heard_secs(1) < 0.5
            assert bot.twilio.heard_secs(2) == 2

        play(scenario)


class TestUninterruptibleAudio:
    @pytest.mark.parametrize("lead_secs", [0.2, 0.5, 2])
    @pytest.mark.parametrize("at", [0.01, *np.arange(0.2, 0.4, 0.01)])
    def test_it_is_heard_whole_and_at_most_a_frame_behind_it(self, play, lead_secs, at) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.queue(words(0.32, 1, interruptible=False), words(1, 2))
            await asyncio.sleep(at)
            await bot.interrupt()
            before = bot.twilio.heard_secs(2)
            await asyncio.sleep(3)
            assert bot.twilio.heard_secs(1) == 0.32
            after = bot.twilio.heard_secs(2)
            assert after <= (CHUNK_SECS if at < 0.32 else before)

        play(scenario, lead_secs=lead_secs)

    @pytest.mark.parametrize("send_secs", [0, 0.005, 0.01])
    def test_it_is_sent_again_where_it_had_not_begun(self, play, send_secs) -> None:
        async def scenario(bot: Bot) -> None:
            bot.twilio.send_secs = send_secs
            await bot.queue(words(0.4, 1), words(0.8, 2, interruptible=False), words(1, 3))
            await asyncio.sleep(0.2)
            await bot.interrupt()
            await asyncio.sleep(3)
            secs = [bot.twilio.heard_secs(number) for number in (1, 2, 3)]
            assert secs == [pytest.approx(0.2, abs=0.02), 0.8, 0]
            heard = [piece.heard for piece in bot.twilio.plays][-20:]
            assert b"".join(heard) == encode(words(0.8, 2).audio)
            assert b"".join(bot.downstream.speech[-20:]) == words(0.8, 2).audio

        play(scenario)

    @pytest.mark.parametrize("at", [0.1, 0.6, 3, 7, 9])
    def test_no_speech_that_was_waiting_is_sent_behind_keys(self, play, at) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.queue(words(0.2, 1, interruptible=False), words(20, 2))
            await asyncio.sleep(0.05)
            await bot.queue(keys(20))
            await asyncio.sleep(at)
            await bot.interrupt()
            await asyncio.sleep(30)
            assert keys_secs(bot) == pytest.approx(20 * KEY_SECS, rel=0.01)
            assert bot.twilio.heard_secs(2) <= CHUNK_SECS

        play(scenario)

    def test_a_cancellation_does_not_wait_for_keys(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.queue(keys(10))
            await asyncio.sleep(0.1)
            asked = bot.loop.now
            await bot.end(frames.CancelFrame())
            assert bot.loop.now == bot.serializer.requests[0] == asked

        play(scenario)

    def test_the_bots_own_clear_takes_its_time_away(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.queue(words(0.4, 1), words(0.32, 2, interruptible=False))
            await asyncio.sleep(0.25)
            await bot.queue(own_clear())
            asked = bot.loop.now
            await bot.queue(words(0.4, 3))
            await asyncio.sleep(2)
            assert bot.twilio.heard_until == pytest.approx(asked + 0.4)
            assert (bot.twilio.heard_secs(2), bot.twilio.heard_secs(3)) == (0, 0.4)
            assert b"".join(bot.downstream.speech[7:]) == words(0.4, 3).audio

        play(scenario)
