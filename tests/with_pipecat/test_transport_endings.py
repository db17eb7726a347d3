"""How calls end, whoever ends them, and what is read until then; in virtual time."""

import asyncio
import json
from math import inf
from typing import Any

import pytest
from pipecat.frames import frames
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport
from streams import STREAM_SID, documented, media
from virtual_bot import Bot, own_clear
from virtual_call import END_SECS

from pipecat_twilio import MarkFrame, TwilioTransport, messages

DTMF = json.dumps(documented("dtmf"))
TIMEOUT_SECS = 3  # audio_out_write_timeout_secs


def test_the_pipeline_receives_what_it_receives_from_pipecats_transport(play) -> None:
    async def scenario(bot: Bot) -> None:
        unusable = ["", "{"]
        for message in (media(b"1" * 160), *unusable, DTMF, media(b"2" * 160)):
            bot.twilio.sends.put_nowait(message)
        await asyncio.sleep(1)
        assert len(bot.upstream.times(frames.InputDTMFFrame)) == 1

    ours, theirs = (
        [f.audio for _, f in bot.upstream.seen if isinstance(f, frames.InputAudioRawFrame)]
        for kind in (TwilioTransport, FastAPIWebsocketTransport)
        for bot in [play(scenario, kind, audio_in_enabled=True)]
    )
    assert (ours, len(ours)) == (theirs, 2)


class TestGoodbye:
    """The bot says its last words, for 20 s; `frames.EndFrame` is behind them."""

    async def begin(self, bot: Bot, secs: float = 20) -> asyncio.Task[None]:
        await bot.speak(secs)
        ending = asyncio.create_task(bot.end())
        await asyncio.sleep(3)
        return ending

    def test_it_is_heard_to_its_end_and_marks_come_back_but_no_audio(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            bot.loop.call_later(2, bot.twilio.sends.put_nowait, media(bytes(160)))
            await bot.speak(1, 2)
            mark = messages.mark(STREAM_SID, "first word")
            await bot.queue(frames.OutputTransportMessageFrame(mark))
            await (await self.begin(bot))
            came = bot.upstream.times(MarkFrame)[0]
            assert came == pytest.approx(bot.twilio.plays[0].begin + 1)
            assert bot.twilio.heard_secs(1) == pytest.approx(20, abs=END_SECS)
            assert bot.twilio.closed_at == pytest.approx(bot.twilio.heard_until, abs=END_SECS)
            assert bot.upstream.times(frames.InputAudioRawFrame) == []

        play(scenario, audio_in_enabled=True)

    @pytest.mark.parametrize("cancels", [True, False])
    @pytest.mark.parametrize("stop", [True, False])
    def test_a_caller_who_leaves_ends_it_at_once(self, play, stop, cancels) -> None:
        async def scenario(bot: Bot) -> None:
            @bot.transport.event_handler("on_client_disconnected")
            async def on_client_disconnected(*_: Any) -> None:
                if cancels:
                    await bot.worker.cancel()

            ending = await self.begin(bot)
            gone = bot.loop.now
            await bot.leave(stop=stop)
            await ending
            assert bot.loop.now - gone < 0.1
            assert bot.serializer.requests == ([] if stop else [pytest.approx(gone, abs=0.1)])
            assert bot.serializer.close_codes == [1000 if stop else 1006]

        play(scenario)


@pytest.mark.parametrize("frame", [frames.EndFrame, frames.CancelFrame])
@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("speaks", [True, False])
def test_on_a_dead_socket_the_end_makes_the_request_unless_twilio_said_stop(
    play, frame, stop, speaks
) -> None:
    async def scenario(bot: Bot) -> None:
        if speaks:
            await bot.speak(30)
        await asyncio.sleep(1)
        await bot.leave(stop=stop)
        await asyncio.sleep(1)
        begin = bot.loop.now
        await bot.end(frame())
        assert bot.loop.now - begin < 0.1
        assert len(bot.serializer.requests) == (not stop)
        assert bot.serializer.call_report.ended_by
        assert bot.twilio.heard_secs(1) == 0 or bot.twilio.times("media")[-1] < begin - 0.99

    play(scenario)


@pytest.mark.parametrize("frame", [frames.EndFrame, frames.CancelFrame])
@pytest.mark.parametrize("writes", [Bot.interrupt, own_clear, "nothing"])
@pytest.mark.parametrize("speaks", [True, False])
def test_a_peer_that_stops_reading_cannot_delay_the_end_by_more_than_the_limit(
    play, frame, writes, speaks, log
) -> None:
    async def scenario(bot: Bot) -> None:
        if speaks:
            await bot.speak(5)
        await asyncio.sleep(1)
        bot.twilio.send_secs = inf
        stuck = bot.loop.now
        if writes is Bot.interrupt:
            await bot.interrupt()
        elif writes is own_clear:
            await bot.queue(own_clear(), own_clear())
        await asyncio.sleep(0.5)
        await bot.end(frame())
        assert bot.loop.now - stuck < TIMEOUT_SECS + 0.6
        assert len(bot.serializer.requests) == 1
        if writes != "nothing":
            assert bot.serializer.close_codes == [None]
            assert sum("Transport#" in line and "nothing for 3.0 s" in line for line in log) == 1

    play(scenario, audio_out_write_timeout_secs=TIMEOUT_SECS)


@pytest.mark.parametrize("lead_secs", [0, 0.5, 2])
def test_the_report_has_how_long_the_caller_waited_for_an_answer(play, lead_secs) -> None:
    async def scenario(bot: Bot) -> None:
        waits = []
        for stop_secs, thinks_secs in ((0.2, 0.3), (0.8, 1.1), (0.2, 0.6)):
            stopped_at = bot.loop.now - stop_secs
            await bot.queue(frames.VADUserStoppedSpeakingFrame(stop_secs=stop_secs))
            await asyncio.sleep(thinks_secs)
            pieces = len(bot.twilio.plays)
            await bot.speak(1)
            await asyncio.sleep(2)
            waits.append(bot.twilio.plays[pieces].begin - stopped_at)
        report = bot.serializer.call_report
        assert (report.answers, report.gaps) == (3, 0)
        assert report.answer_secs == pytest.approx(sorted(waits)[1], abs=0.03)
        assert report.worst_answer_secs == pytest.approx(max(waits), abs=0.03)

    play(scenario, lead_secs=lead_secs)
