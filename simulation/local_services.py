"""Stand-ins for STT, LLM and TTS that need no network and take the time that real ones take.

    python simulation/local_services.py BASE_URL examples/bot.py -t twilio

runs a bot's file with them in place of Deepgram and OpenAI; BASE_URL is a REST API in place of
Twilio's. They use Pipecat's own base classes. The LLM gives the same answer to everything, but at
the second question it calls the first of its tools. The TTS says the sentence in speech.wav,
whatever the text, and delivers it four times as fast as it is spoken, as real ones do.
"""

import asyncio
import functools
import runpy
import sys
import time
import wave
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import fields
from types import ModuleType
from typing import Any

import numpy as np
from listening import SPEECH, resampled
from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import FunctionCallFromLLM, LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.utils.time import time_now_iso8601

SENTENCE_SECS = (0.24, 1.66)  # of speech.wav; both ends have sound, so that loss is seen
SHORTER_SECS = 0.05  # less in each answer: what filters hold back depends on the length
STALL_AT_SECS, STALL_SECS = 0.9, 0.3  # of the sentence: in the middle of a word
LLM_SECS = 0.1
CHUNK_SECS, SPEED = 0.1, 4  # of the TTS: how much it delivers at once, and how fast
MODEL_RATE = 24000


@functools.cache
def sentence(rate: int, answer: int) -> np.ndarray:
    """Returns what the bot says in an answer, counted from 0, as samples at a rate in Hz.

    It whispers: speech.wav with random phases. A voice repeats itself 200 times a second, but no
    two parts of a whisper are alike, so that each can be found in what was heard.
    """
    with wave.open(str(SPEECH)) as file:
        own_rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    begin, end = (round(secs * own_rate) for secs in SENTENCE_SECS)
    end -= round(answer * SHORTER_SECS * own_rate)
    size = own_rate // 100
    window, whisper = np.hanning(size), np.zeros(end - begin)
    phases = np.random.default_rng(1).uniform(0, 2 * np.pi, (len(whisper), size // 2 + 1))
    for start in range(0, len(whisper) - size, size // 4):
        spectrum = np.abs(np.fft.rfft(samples[begin + start :][:size] * window))
        piece = np.fft.irfft(spectrum * np.exp(1j * phases[start]), size)
        whisper[start : start + size] += piece * window
    return resampled(whisper, own_rate, rate)


class LocalSTT(SegmentedSTTService):
    """Transcribes every piece of speech that the VAD finds."""

    def __init__(self, **_: Any) -> None:
        super().__init__(ttfs_p99_latency=0, settings=STTSettings(model=None, language=None))

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:  # noqa: ARG002
        """Returns a transcript of a piece of speech."""
        yield TranscriptionFrame("Can you hear me?", "caller", time_now_iso8601(), finalized=True)


class LocalLLM(LLMService):
    """Gives the same answer to everything, after the time that an LLM takes."""

    Settings = LLMSettings

    def __init__(self, **_: Any) -> None:
        none = {f.name: None for f in fields(LLMSettings) if f.name != "extra"}
        super().__init__(settings=LLMSettings(**none))
        self._questions = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answers a context; passes all else on."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        self._questions += 1
        await asyncio.sleep(LLM_SECS)
        if self._functions and self._questions > 1:
            name = next(iter(self._functions))
            await self.run_function_calls([FunctionCallFromLLM(name, "1", {}, frame.context)])
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame("Hello can you hear me."))
        await self.push_frame(LLMFullResponseEndFrame())


class LocalTTS(TTSService):
    """Speaks the sentence in chunks, ahead of time, unless it stalls.

    Args:
        kind: "pipeline" speaks at the pipeline's rate; "24 kHz" at that rate, whatever the
            pipeline; "resampled" too, and converts it to the pipeline's rate inside `TTSService`.
        stalls_from: The first answer, counted from 0, in which it stalls for 0.3 s in mid-word.
    """

    def __init__(self, *, kind: str = "pipeline", stalls_from: int = 1000, **_: Any) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self._kind = kind
        self._stalls_from = stalls_from
        self.said_at: list[float] = []  # when each answer's first byte was there

    async def _stream(self, rate: int) -> AsyncIterator[bytes]:
        """Delivers the sentence as a service on the network does."""
        answer = len(self.said_at)
        pcm = np.clip(np.rint(sentence(rate, answer)), -32768, 32767).astype("<i2").tobytes()
        self.said_at.append(time.perf_counter())
        for number, start in enumerate(range(0, len(pcm), size := 2 * round(rate * CHUNK_SECS))):
            said_secs = number * CHUNK_SECS
            due = said_secs / SPEED
            if answer >= self._stalls_from and said_secs >= STALL_AT_SECS:
                # Wait until 0.3 s after the caller has heard all before it.
                due = STALL_AT_SECS + STALL_SECS + (said_secs - STALL_AT_SECS) / SPEED
            await asyncio.sleep(max(0, self.said_at[-1] + due - time.perf_counter()))
            yield pcm[start : start + size]

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:  # noqa: ARG002
        """Returns the sentence."""
        if self._kind == "resampled":
            chunks = self._stream(MODEL_RATE)
            async for frame in self._stream_audio_frames_from_iterator(
                chunks, in_sample_rate=MODEL_RATE, context_id=context_id
            ):
                yield frame
            return
        rate = MODEL_RATE if self._kind == "24 kHz" else self.sample_rate
        async for chunk in self._stream(rate):
            yield TTSAudioRawFrame(chunk, rate, 1, context_id=context_id)


def stand_in() -> dict[str, ModuleType]:
    """Returns modules to take the place of Pipecat's for Deepgram and OpenAI, by name."""
    modules = {}
    for name, service, local in (
        ("deepgram.stt", "DeepgramSTTService", LocalSTT),
        ("deepgram.tts", "DeepgramTTSService", LocalTTS),
        ("openai.llm", "OpenAILLMService", LocalLLM),
    ):
        modules[f"pipecat.services.{name}"] = module = ModuleType(name)
        setattr(module, service, local)
    return modules


def main() -> None:
    """Runs a bot's file with the stand-ins."""
    base_url, bot = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    sys.modules.update(stand_in())
    import pipecat_twilio  # noqa: PLC0415

    # The bot installs it again, which changes no more than what it says.
    pipecat_twilio.install = functools.partial(pipecat_twilio.install, base_url=base_url)
    for answer in range(2):  # takes a while, so do it before a call
        sentence(8000, answer)
    runpy.run_path(bot, run_name="__main__")


if __name__ == "__main__":
    main()
