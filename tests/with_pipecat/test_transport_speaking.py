"""When the pipeline is told that the bot speaks, in virtual time."""

import asyncio

import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
)
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport
from virtual_bot import Bot, Hum, Play
from virtual_call import CHUNK_SECS, LATE_SECS, LEADS, RATE

from pipecat_twilio import TwilioTransport


def told(bot: Bot, kind: type = TTSAudioRawFrame) -> list[float]:
    return bot.downstream.times(kind)


@LEADS
@pytest.mark.parametrize("mixer", [None, Hum()])
def test_they_are_pushed_in_both_directions_when_the_caller_hears_them(
    play: Play, lead_secs, mixer
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
        started = witness.times(BotStartedSpeakingFrame)
        stopped = witness.times(BotStoppedSpeakingFrame)
        assert started == pytest.approx([begin, begin + 0.52, begin + 1.04], abs=late)
        assert stopped == pytest.approx([begin + 0.52, begin + 1.04, begin + 1.56], abs=late)
        assert witness.speaking == ["started", "stopped"] * 3


@pytest.mark.parametrize("after_secs", [0.3, 0.9])  # while it speaks; while that is held
def test_an_interruption_pushes_the_end_at_once_and_only_once(play: Play, after_secs) -> None:
    async def scenario(bot: Bot) -> None:
        await bot.speak(1)
        await asyncio.sleep(after_secs)
        interrupted = bot.loop.now
        await bot.interrupt()
        await asyncio.sleep(0.5)
        for witness in (bot.upstream, bot.downstream):
            assert witness.times(BotStoppedSpeakingFrame) == [interrupted]
        await bot.speak(1)
        await asyncio.sleep(2)

    bot = play(scenario)
    expected = ["started", "interrupted", "stopped", "started", "stopped"]
    assert bot.downstream.speaking == expected


@pytest.mark.parametrize("at", [0.05, 0.2, 0.39])
def test_speech_that_nobody_heard_neither_starts_nor_stops(play: Play, at) -> None:
    async def scenario(bot: Bot) -> None:
        await bot.speak(0.4, 1)
        await bot.speak(0.4, 2)
        await asyncio.sleep(at)
        await bot.interrupt()
        await asyncio.sleep(2)

    bot = play(scenario, lead_secs=1)
    assert bot.downstream.speaking == ["started", "interrupted", "stopped"]


@pytest.mark.parametrize("lead_secs", [0.5, 2])
@pytest.mark.parametrize("stop", [True, False])
def test_when_the_socket_goes_the_end_is_pushed_at_once(play: Play, stop, lead_secs) -> None:
    async def scenario(bot: Bot) -> None:
        await bot.speak(2)
        await asyncio.sleep(1)
        gone = bot.loop.now
        await bot.leave(stop=stop)
        await asyncio.sleep(0.001)
        assert bot.upstream.times(BotStoppedSpeakingFrame) == [gone]
        assert told(bot, BotStoppedSpeakingFrame) == [gone]
        assert bot.serializer.close_codes == [1000 if stop else 1006]

    play(scenario, lead_secs=lead_secs)


def test_without_tts_they_are_pushed_as_by_pipecats_transport(play: Play) -> None:
    async def scenario(bot: Bot) -> None:
        await bot.speak(1, kind=SpeechOutputAudioRawFrame, stop=False)
        await bot.queue(SpeechOutputAudioRawFrame(bytes(2 * RATE), RATE, 1))
        await asyncio.sleep(3)

    ours, theirs = (
        play(scenario, kind).upstream.times(BotStoppedSpeakingFrame)
        for kind in (TwilioTransport, FastAPIWebsocketTransport)
    )
    assert ours == pytest.approx(theirs, abs=CHUNK_SECS + LATE_SECS)


@pytest.mark.parametrize(("ends", "gaps"), [(True, 0), (False, 1)])
def test_the_pause_between_two_answers_is_no_gap_in_the_call_report(play: Play, ends, gaps) -> None:
    async def scenario(bot: Bot) -> None:
        for _ in range(2):
            await bot.speak(0.52, stop=ends)
            await asyncio.sleep(1)

    report = play(scenario).serializer.call_report
    assert (report.gaps, report.bot_secs) == (gaps, pytest.approx(1.04))
