"""A typical phone bot that needs no network: Silero VAD, and stand-ins for STT, LLM and TTS.

The stand-ins use Pipecat's own base classes and take the time that real services take. The bot
gives the same answer to everything, the sentence in speech.wav. Its TTS stand-in delivers that
four times as fast as it is spoken, as real ones do. A stand-in for a speech-to-speech model
listens too. The `<Parameter>`s of the stream say how the bot is built, see `Bot`.
"""

import asyncio
import functools
import time
import wave
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pipecat.serializers.twilio as pipecat_serializer
import pipecat.transports.websocket.fastapi as pipecat_transport
from echo_bot import run_worker, stream_start
from fastapi import FastAPI, WebSocket
from listening import resampled
from pipecat.audio import utils as pipecat_audio
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601

import pipecat_twilio

SPEECH = Path(__file__).parent / "speech.wav"
SENTENCE_SECS = (
    0.24,
    1.66,
)  # of speech.wav; both ends have sound, so that loss is seen
SHORTER_SECS = 0.05  # less in each answer: what filters hold back depends on the length
TEXT = "Hello can you hear me."
STALL_AT_SECS, STALL_SECS = 0.9, 0.3  # of the sentence: in the middle of "hear"
ANSWERS = 5  # at most, in a call
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


@dataclass
class Bot:
    """How a bot is built, and what is known of its call.

    Parameters:
        in_rate: The pipeline's input rate, in Hz.
        out_rate: The pipeline's output rate, in Hz.
        tts: "pipeline" speaks at the pipeline's rate; "24 kHz" at that rate, whatever the pipeline;
            "resampled" too, and converts it to the pipeline's rate inside `TTSService`.
        serializer: "pipecat" takes the class that is in Pipecat's module, which `install` replaces;
            "ours" imports this package's, the one-line swap.
        stalls_from: The first answer, counted from 0, in which TTS stalls for 0.3 s in mid-word.
        held_up_from: The first answer in which the event loop may be held up, see `create_app`.
        said_at: When each answer's first byte left the TTS.
        model_heard: What the speech-to-speech model was given at MODEL_RATE, and when.
    """

    in_rate: int = 16000
    out_rate: int = 24000
    tts: str = "24 kHz"
    serializer: str = "pipecat"
    stalls_from: int = 1000
    held_up_from: int = 0
    said_at: list[float] = field(default_factory=list)
    model_heard: list[tuple[float, bytes]] = field(default_factory=list)

    @classmethod
    def from_parameters(cls, parameters: dict[str, str]) -> "Bot":
        """Reads what the stream's `<Parameter>`s say."""
        kinds = {f.name: f.type for f in fields(cls) if f.type in (int, str)}
        return cls(
            **{name: kinds[name](parameters[name]) for name in kinds.keys() & parameters.keys()}
        )

    @property
    def is_held_up(self) -> bool:
        """Whether the bot now speaks an answer in which the event loop may be held up."""
        secs = SENTENCE_SECS[1] - SENTENCE_SECS[0] + STALL_SECS
        answers = self.said_at[self.held_up_from :]
        return bool(answers) and time.perf_counter() < answers[-1] + secs


class Ears(SegmentedSTTService):
    """Transcribes every piece of speech that the VAD finds."""

    def __init__(self) -> None:
        """Takes no settings, and no time."""
        super().__init__(ttfs_p99_latency=0, settings=STTSettings(model=None, language=None))

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:  # noqa: ARG002
        """Returns a transcript of a piece of speech."""
        yield TranscriptionFrame("Can you hear me?", "caller", time_now_iso8601(), finalized=True)


class Mind(FrameProcessor):
    """Gives the same answer to everything, after the time that an LLM takes."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answers a context; passes all else on."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await asyncio.sleep(LLM_SECS)
        await self.push_frame(LLMFullResponseStartFrame())
        for word in TEXT.split(" "):
            await self.push_frame(LLMTextFrame(f"{word} "))
        await self.push_frame(LLMFullResponseEndFrame())


class Mouth(TTSService):
    """Speaks the sentence in chunks, ahead of time, unless it stalls."""

    def __init__(self, bot: Bot) -> None:
        """Speaks for one bot."""
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self._bot = bot

    async def _stream(self, rate: int) -> AsyncIterator[bytes]:
        """Delivers the sentence as a service on the network does."""
        bot = self._bot
        answer = len(bot.said_at)
        pcm = np.clip(np.rint(sentence(rate, answer)), -32768, 32767).astype("<i2").tobytes()
        bot.said_at.append(time.perf_counter())
        for number, start in enumerate(range(0, len(pcm), size := 2 * round(rate * CHUNK_SECS))):
            said_secs = number * CHUNK_SECS
            due = said_secs / SPEED
            if answer >= bot.stalls_from and said_secs >= STALL_AT_SECS:
                # Wait until 0.3 s after the caller has heard all before it.
                due = STALL_AT_SECS + STALL_SECS + (said_secs - STALL_AT_SECS) / SPEED
            await asyncio.sleep(max(0, bot.said_at[-1] + due - time.perf_counter()))
            yield pcm[start : start + size]

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:  # noqa: ARG002
        """Returns the sentence, at the rate that the bot is built with."""
        if self._bot.tts == "resampled":
            chunks = self._stream(MODEL_RATE)
            async for frame in self._stream_audio_frames_from_iterator(
                chunks, in_sample_rate=MODEL_RATE, context_id=context_id
            ):
                yield frame
            return
        rate = MODEL_RATE if self._bot.tts == "24 kHz" else self.sample_rate
        async for chunk in self._stream(rate):
            yield TTSAudioRawFrame(chunk, rate, 1, context_id=context_id)


class Model(FrameProcessor):
    """Listens as speech-to-speech services do: at its own rate, through Pipecat's resampler."""

    def __init__(self, bot: Bot) -> None:
        """Listens to one call."""
        super().__init__()
        self._bot = bot
        self._resampler = pipecat_audio.create_stream_resampler()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Records what a model would have been sent; passes everything on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            pcm = await self._resampler.resample(frame.audio, frame.sample_rate, MODEL_RATE)
            self._bot.model_heard.append((time.perf_counter(), pcm))
        await self.push_frame(frame, direction)


async def run_bot(websocket: WebSocket, stream_sid: str, bot: Bot) -> None:
    """Runs the bot for one call, until the caller hangs up."""
    module = pipecat_twilio if bot.serializer == "ours" else pipecat_serializer
    serializer_class = module.TwilioFrameSerializer
    transport = pipecat_transport.FastAPIWebsocketTransport(
        websocket,
        pipecat_transport.FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            serializer=serializer_class(
                stream_sid, params=serializer_class.InputParams(auto_hang_up=False)
            ),
        ),
    )
    turns = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.2)])
    aggregators = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(), user_turn_strategies=turns
        ),
    )
    worker = PipelineWorker(
        Pipeline(
            [
                transport.input(),
                Model(bot),
                Ears(),
                aggregators.user(),
                Mind(),
                Mouth(bot),
                transport.output(),
                aggregators.assistant(),
            ]
        ),
        params=PipelineParams(audio_in_sample_rate=bot.in_rate, audio_out_sample_rate=bot.out_rate),
    )
    await run_worker(worker, transport)


def create_app(hold_up_secs: float = 0.0) -> FastAPI:
    """Returns the web application, whose `state.bots` has the bot of each call by its SID.

    Args:
        hold_up_secs: For how long, twice a second while a bot talks, the event loop is held up: as
            it is by whatever a bot computes without a thread of its own.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for answer in range(ANSWERS):  # takes a while, so do it before a call
            for rate in (8000, 16000, 24000):
                sentence(rate, answer)

        async def hold_up() -> None:
            while True:
                await asyncio.sleep(0.5 - hold_up_secs)
                if any(bot.is_held_up for bot in app.state.bots.values()):
                    time.sleep(hold_up_secs)  # noqa: ASYNC251  # not to wait is the point

        task = asyncio.create_task(hold_up())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)
    app.state.bots = {}

    @app.websocket("/")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        start = await stream_start(websocket)
        if start is None:
            await websocket.close()
            return
        bot = Bot.from_parameters(start.start.custom_parameters)
        app.state.bots[start.start.call_sid] = bot
        await run_bot(websocket, start.stream_sid, bot)

    return app
