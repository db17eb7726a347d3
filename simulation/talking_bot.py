"""A typical phone bot: Silero VAD, and stand-ins for STT, LLM and TTS that need no network.

A stand-in for a speech-to-speech model listens too. The `<Parameter>`s of the stream say how the
bot is built, see `Bot`.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields

import pipecat.serializers.twilio as pipecat_serializer
import pipecat.transports.websocket.fastapi as pipecat_transport
from fastapi import FastAPI, WebSocket
from local_services import (
    MODEL_RATE,
    SENTENCE_SECS,
    STALL_SECS,
    LocalLLM,
    LocalSTT,
    LocalTTS,
    sentence,
)
from pipecat.audio import utils as pipecat_audio
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import Frame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

import pipecat_twilio
from pipecat_twilio import messages

ANSWERS = 5  # at most, in a call


@dataclass
class Bot:
    """How a bot is built, and what is known of its call; answers are counted from 0."""

    in_rate: int = 16000  # of the pipeline, in Hz
    out_rate: int = 24000
    tts: str = "24 kHz"  # its kind, see `LocalTTS`
    serializer: str = "pipecat"  # its module's class, which `install` replaces; or "ours"
    stalls_from: int = 1000  # the first answer in which TTS stalls for 0.3 s in mid-word
    held_up_from: int = 0  # the first answer in which the event loop may be held up
    said_at: list[float] = field(default_factory=list)  # when each answer's first byte left TTS
    model_heard: list[tuple[float, bytes]] = field(default_factory=list)  # at MODEL_RATE, and when

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


class Model(FrameProcessor):
    """Listens as speech-to-speech services do: at its own rate, through Pipecat's resampler."""

    def __init__(self, bot: Bot) -> None:
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
    serializer = serializer_class(
        stream_sid, params=serializer_class.InputParams(auto_hang_up=False)
    )
    params = pipecat_transport.FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
    )
    transport = pipecat_transport.FastAPIWebsocketTransport(websocket, params)
    turns = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.2)])
    user, assistant = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(), user_turn_strategies=turns
        ),
    )
    tts = LocalTTS(kind=bot.tts, stalls_from=bot.stalls_from)
    bot.said_at = tts.said_at
    steps = [Model(bot), LocalSTT(), user, LocalLLM(), tts, transport.output(), assistant]
    worker = PipelineWorker(
        Pipeline([transport.input(), *steps]),
        params=PipelineParams(audio_in_sample_rate=bot.in_rate, audio_out_sample_rate=bot.out_rate),
    )

    @transport.event_handler("on_client_disconnected")
    async def stop(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def create_app(hold_up_secs: float = 0.0) -> FastAPI:
    """Returns the web application, whose `state.bots` has the bot of each call by its SID.

    Args:
        hold_up_secs: For how long, twice a second while a bot talks, the event loop is held up: as
            it is by whatever a bot computes without a thread of its own. Half of the time, at most.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for answer in range(ANSWERS):  # takes a while, so do it before a call
            for rate in (8000, 16000, 24000):
                sentence(rate, answer)

        async def hold_up() -> None:
            while True:
                await asyncio.sleep(max(0.5 - hold_up_secs, hold_up_secs))
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
        await websocket.receive_text()  # connected
        start = messages.parse(await websocket.receive_text())
        bot = Bot.from_parameters(start.start.custom_parameters)
        app.state.bots[start.start.call_sid] = bot
        await run_bot(websocket, start.stream_sid, bot)

    return app
