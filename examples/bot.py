"""A phone bot: Deepgram hears and speaks, OpenAI thinks, Twilio carries the call.

    pip install "pipecat-ai[deepgram,openai,runner,websocket]"
    python bot.py -t twilio -x bot.example.com

It listens on port 7860. Point your number's voice webhook at the public host given with -x.
"""

import os
import sys

from pipecat_twilio import install

install()

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import EndWorkerFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.services.deepgram.tts import DeepgramTTSService
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner

NEEDED = ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")
PROMPT = "You are on the phone. Answer in one or two short sentences, in plain words."


async def end_call(params: FunctionCallParams) -> None:
    """Say goodbye and hang up, when the caller wants to end the call."""
    await params.llm.push_frame(TTSSpeakFrame("Goodbye!"))
    await params.llm.push_frame(EndWorkerFrame())  # behind the goodbye, which is heard first


async def bot(runner_args: RunnerArguments) -> None:
    """Answers one call; Pipecat's runner calls this."""
    params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
    transport = await create_transport(runner_args, {"twilio": lambda: params})
    stt = DeepgramSTTService(api_key=os.environ["DEEPGRAM_API_KEY"])
    tts = DeepgramTTSService(api_key=os.environ["DEEPGRAM_API_KEY"])
    settings = OpenAILLMService.Settings(system_instruction=PROMPT)
    llm = OpenAILLMService(api_key=os.environ["OPENAI_API_KEY"], settings=settings)
    # With a VAD, the caller interrupts the bot by speaking.
    user, assistant = LLMContextAggregatorPair(
        LLMContext(tools=[end_call]),
        user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer()),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), stt, user, llm, tts, transport.output(), assistant]),
        params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
    )

    @transport.event_handler("on_client_connected")
    async def greet(*_: object) -> None:
        await worker.queue_frame(TTSSpeakFrame("Hello! How can I help you?"))

    @transport.event_handler("on_client_disconnected")
    async def stop(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        sys.exit(f"Please set {', '.join(missing)}.")
    from pipecat.runner.run import main

    main()
