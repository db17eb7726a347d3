"""The call report of live calls, against the simulated caller's own figures."""

import asyncio
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from phoning import EXAMPLES
from pipecat.frames.frames import Frame, OutputAudioRawFrame
from streamdouble import audio, metrics
from streamdouble.scenario import Dtmf, Say, Scenario, Wait

from pipecat_twilio import TwilioFrameSerializer
from pipecat_twilio.twilio.call_report import MIN_GAP_SECS

STALL_SECS = 0.3


class Reporting(TwilioFrameSerializer):
    """Keeps the serializer of each call, and delays its output once, as a stalled TTS does."""

    of_call: ClassVar[dict[Any, "Reporting"]] = {}
    stall_at_frame: ClassVar[int] = 10**6

    async def serialize(self, frame: Frame) -> str | bytes | None:
        self.of_call[self._call_sid] = self
        if isinstance(frame, OutputAudioRawFrame):
            self.frames = getattr(self, "frames", 0) + 1
            if self.frames == self.stall_at_frame:
                await asyncio.sleep(STALL_SECS)
        return await super().serialize(frame)


def silences(is_playing: np.ndarray) -> list[float]:
    """Returns the length in seconds of each time with nothing to play between two sounds."""
    at = np.flatnonzero(is_playing)
    return [(step - 1) / 8000 for step in np.diff(at) if step > 1]


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_its_figures_are_those_of_the_caller(
    call: ModuleType, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from listening import play

    monkeypatch.setattr(Reporting, "stall_at_frame", 20)
    speech = audio.wav_to_ulaw_frames(EXAMPLES / "speech.wav")
    scenario = Scenario(
        "speak, press a key, hang up",
        [Say(Path("-"), speech), Dtmf("1"), Wait(0.5), Dtmf("#"), Wait(5)],
    )
    api = call.RestApi()
    async with api.serve() as base_url:
        settings = call.local_settings(base_url, sample_rate=rate, serializer=Reporting)
        async with call.serve_bot(settings) as webhook:
            log, result = await call.place_call(webhook, scenario)
    report = Reporting.of_call[result.identity.call_sid].call_report
    theirs = metrics.compute(result)
    # Within 20 ms: a message.
    assert report.bot_secs == pytest.approx(theirs.audio_received_ms / 1000, abs=0.02)
    # What the bot had not yet read when it ended the call is not in its report.
    assert report.caller_secs <= theirs.audio_sent_ms / 1000
    assert report.first_audio_secs == pytest.approx(theirs.time_to_first_audio_ms / 1000, abs=0.02)
    played = play(log.received, log.sent[0][0], log.received[-1][0] + 5)
    gaps = [gap for gap in silences(played.is_playing) if gap > MIN_GAP_SECS]
    assert report.gap_secs == pytest.approx(sum(gaps), abs=0.02)
    assert report.gap_secs > STALL_SECS / 2
    # That of "#" comes back at the moment at which the bot reads no more: it may be in the report.
    assert theirs.marks_echoed == 2
    assert report.marks_played in (1, 2)
    assert report.interruptions == theirs.clears_received
    assert report.dropped == {}
    assert (report.ended_by, report.rest_answer) == ("EndFrame", "200")
