"""What the transport sends and when, in virtual time, against Pipecat's own transport."""

import asyncio
import importlib
import re
import sys
from importlib import util
from unittest.mock import AsyncMock

import pytest
from pipecat.frames import frames
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from pipecat.transports import base_input, base_output, base_transport
from pipecat.transports.websocket import fastapi
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from virtual_bot import Bot, Hum, Serializer, words
from virtual_call import CHUNK_SECS, END_SECS, RATE, TIMER_SECS, Twilio, stall

import pipecat_twilio
from pipecat_twilio import TwilioTransport

PRIVATE_NAMES = ["_callbacks", "_client", "_input", "_input_name", "_output", "_output_name"]
PRIVATE_NAMES += ["_params", "_write_frame"]


class TestLead:
    @pytest.mark.parametrize("frame_secs", [CHUNK_SECS, 1])
    @pytest.mark.parametrize("lead_secs", [None, 0, 0.1, 1, 2])
    def test_twilio_has_the_lead_or_half_a_second_and_at_most_a_frame_more(
        self, play, lead_secs, frame_secs
    ) -> None:
        async def scenario(bot: Bot) -> None:
            asked = bot.loop.now
            await bot.speak(2)
            await asyncio.sleep(4)
            assert bot.twilio.times("media")[0] == asked

        chunks = round(100 * frame_secs)
        twilio = play(scenario, lead_secs=lead_secs, audio_out_10ms_chunks=chunks).twilio
        lead = max(0.5 if lead_secs is None else lead_secs, frame_secs)
        assert twilio.heard_until - twilio.plays[0].begin == pytest.approx(2)
        assert max(twilio.levels) <= lead + frame_secs + TIMER_SECS
        assert all(level > lead for level in twilio.levels[round(lead / frame_secs) + 1 :])
        assert twilio.silences == []

    @pytest.mark.parametrize("secs", [0.12, 0.25, 0.4])
    @pytest.mark.parametrize("kind", [frames.TTSAudioRawFrame, frames.OutputAudioRawFrame])
    def test_a_stall_of_the_event_loop_is_not_heard(self, play, secs, kind) -> None:
        async def scenario(bot: Bot) -> None:
            bot.loop.call_later(0.1, stall, bot.loop, secs, 0.7)
            await bot.speak(3, kind=kind)
            await asyncio.sleep(5)

        assert play(scenario).twilio.silences == []
        assert sum(play(scenario, FastAPIWebsocketTransport).twilio.silences) > 0.1

    @pytest.mark.parametrize("lead_secs", [-0.001, 2.001, 20, float("nan"), 10**400, "1"])
    def test_a_lead_out_of_range_is_refused_by_name(self, lead_secs) -> None:
        with pytest.raises(ValueError, match=f"lead_secs .* '?{lead_secs}"):
            TwilioTransport(Twilio(None), FastAPIWebsocketParams(), lead_secs=lead_secs)

    @pytest.mark.parametrize("timeout_secs", [10, 0.5])
    def test_a_long_write_never_looks_like_a_caller_who_has_gone(self, play, timeout_secs) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.transport.output().write_audio_frame(
                words(30, 2, kind=frames.OutputAudioRawFrame)
            )
            await bot.speak(3)
            await asyncio.sleep(40)

        bot = play(scenario, audio_out_write_timeout_secs=timeout_secs)
        assert bot.twilio.heard_until - bot.twilio.plays[0].begin == pytest.approx(33)
        assert bot.twilio.silences == []
        assert not bot.upstream.times(frames.ErrorFrame)

    def test_what_the_serializer_does_not_send_takes_its_time_all_the_same(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            bot.serializer.serialize = AsyncMock(return_value=None)
            await bot.speak(2)
            await asyncio.sleep(3)
            assert max(bot.told()) - min(bot.told()) == pytest.approx(2, abs=3 * CHUNK_SECS)

        play(scenario)

    def test_audio_of_two_channels_has_the_same_lead(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            stereo = frames.OutputAudioRawFrame(bytes(4 * RATE), RATE, 2)  # 1 s
            begin = bot.loop.now
            await bot.transport.output().write_audio_frame(stereo)
            await bot.transport.output().write_audio_frame(stereo)
            assert bot.loop.now - begin == pytest.approx(1, abs=TIMER_SECS)

        play(scenario, lead_secs=1)


class TestMixer:
    @pytest.mark.parametrize("lead_secs", [0.2, 0.5, 1])
    @pytest.mark.parametrize(
        ("secs", "every_secs"), [(0.1, 0.08), (0.1, 0.1), (0.02, 0.02), (3, 0)]
    )
    def test_no_background_alone_is_heard_inside_a_word(
        self, play, secs, every_secs, lead_secs
    ) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(5, 2)
            await asyncio.sleep(1)
            await bot.interrupt()
            await bot.queue(words(0.9, 3, kind=frames.OutputAudioRawFrame))  # is no speech
            await asyncio.sleep(1)
            for _ in range(round(3 / secs)):
                await bot.queue(words(secs))
                await asyncio.sleep(every_secs)
            await asyncio.sleep(5)

        ours = play(scenario, audio_out_mixer=Hum(), lead_secs=lead_secs)
        # Where speech comes just as fast as it is played, Pipecat lets background in as well.
        theirs = play(scenario, FastAPIWebsocketTransport, audio_out_mixer=Hum())
        inside_secs = []
        for bot in (ours, theirs):
            pieces = [p for p in bot.twilio.plays if p.heard and p.heard[0] // 8 == 1]
            inside_secs.append(pieces[-1].end - pieces[0].begin - bot.twilio.heard_secs(1))
        assert inside_secs[0] <= inside_secs[1] + 1e-6
        assert ours.twilio.silences == []

    def test_background_does_not_delay_what_is_said_but_a_lead_is_kept(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            for _ in range(20):
                await asyncio.sleep(0.11)
                stall(bot.loop, 0.9 * CHUNK_SECS)
            asked = bot.loop.now
            await bot.speak(2)
            await asyncio.sleep(0.5)
            assert bot.twilio.unplayed_secs > 0.5
            stall(bot.loop, 0.4)
            await asyncio.sleep(4)
            first = next(p for p in bot.twilio.plays if p.ulaw[0] // 8 == 1)
            assert first.begin < asked + 2 * CHUNK_SECS + TIMER_SECS
            assert max(bot.twilio.levels[-25:]) <= 2 * CHUNK_SECS + TIMER_SECS

        assert play(scenario, audio_out_mixer=Hum()).twilio.silences == []

    def test_an_interruption_drops_no_background_that_was_mixed(self, play) -> None:
        async def scenario(bot: Bot) -> None:
            for _ in range(5):
                await asyncio.sleep(0.3)
                await bot.interrupt()

        sent = play(scenario, audio_out_mixer=(hum := Hum())).twilio.times("media")
        assert hum.mixed - len(sent) <= 1

    @pytest.mark.parametrize("gone", ["socket", "serializer"])
    def test_it_is_asked_for_no_more_than_frames_when_nothing_is_sent(self, play, gone) -> None:
        async def scenario(bot: Bot) -> None:
            if gone == "socket":
                await bot.leave()
            else:
                bot.serializer.serialize = AsyncMock(return_value=None)
                await asyncio.sleep(0)
                bot.loop.now += 1
            await asyncio.sleep(0.1)
            hum.mixed = 0
            await asyncio.sleep(10)
            assert 200 < hum.mixed < 260

        play(scenario, audio_out_mixer=(hum := Hum()))


class TestEnd:
    @pytest.mark.parametrize("silence_secs", [0, 2])
    @pytest.mark.parametrize("lead_secs", [0, 0.5, 2])
    @pytest.mark.parametrize("hangs_up", [True, False])
    def test_the_call_is_ended_when_the_last_word_was_heard(
        self, play, lead_secs, silence_secs, hangs_up
    ) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(7)
            await bot.end()

        options = {"lead_secs": lead_secs, "audio_out_end_silence_secs": silence_secs}
        bot = play(scenario, serializer=Serializer(auto_hang_up=hangs_up), **options)
        last_word = bot.twilio.plays[0].begin + 7
        assert bot.serializer.requests == [pytest.approx(last_word, abs=END_SECS)] * hangs_up
        assert bot.twilio.closed_at == pytest.approx(last_word, abs=END_SECS)
        assert bot.twilio.heard_secs(1) == pytest.approx(7, abs=END_SECS)

    @pytest.mark.parametrize("said", [0, 30])
    def test_in_silence_or_when_interrupted_it_ends_at_once(self, play, said) -> None:
        async def scenario(bot: Bot) -> None:
            await bot.speak(said)
            await asyncio.sleep(1)
            ending = asyncio.create_task(bot.end())
            await asyncio.sleep(0 if not said else 1)
            asked = bot.loop.now
            await bot.transport.output().queue_frame(frames.InterruptionFrame())
            await ending
            assert bot.loop.now - asked < END_SECS

        play(scenario, lead_secs=2, audio_out_end_silence_secs=2)


class TestPipecatsOwnClasses:
    async def talk(self, bot: Bot) -> None:
        bot.loop.call_later(0.3, stall, bot.loop, 0.12)
        await bot.speak(2)
        await asyncio.sleep(1)
        await bot.interrupt()
        await bot.speak(1)
        await bot.end()

    def test_with_another_serializer_input_and_output_are_pipecats(self, play) -> None:
        params = PipecatSerializer.InputParams(auto_hang_up=False)
        ours, theirs = (
            play(self.talk, kind, serializer=PipecatSerializer("MZ1", params=params))
            for kind in (TwilioTransport, FastAPIWebsocketTransport)
        )
        assert type(ours.transport.output()) is type(theirs.transport.output())
        assert type(ours.transport.input()) is type(theirs.transport.input())
        assert ours.twilio.received == theirs.twilio.received
        assert ours.twilio.closed_at == theirs.twilio.closed_at

    @pytest.mark.parametrize("name", PRIVATE_NAMES)
    def test_a_pipecat_without_a_private_name_paces_as_ever_and_is_warned_of_once(
        self, play, monkeypatch, log, name
    ) -> None:
        for module in (base_transport, base_input, base_output, fastapi):
            spec = util.find_spec(module.__name__)
            renamed = re.sub(rf"\b{name}\b", f"{name}_1", spec.loader.get_source(spec.name))
            new = util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, spec.name, new)
            monkeypatch.setattr(sys.modules[new.__package__], new.__name__.split(".")[-1], new)
            exec(renamed, vars(new))
        for ours in ("listening", "transport"):  # are imported anew, and afterwards are as before
            monkeypatch.setattr(pipecat_twilio, ours, sys.modules[f"pipecat_twilio.{ours}"])
            monkeypatch.delitem(sys.modules, f"pipecat_twilio.{ours}")
        transport = importlib.import_module("pipecat_twilio.transport")
        ours = [play(self.talk, transport.TwilioTransport) for _ in range(2)][1]
        theirs = play(self.talk, new.FastAPIWebsocketTransport)
        assert ours.twilio.received == theirs.twilio.received
        assert len([line for line in log if line.startswith("WARNING") and name in line]) == 1
