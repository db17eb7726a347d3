"""What a live call costs a bot's process: real sockets, real pace, two pipelines, four bots.

    python benchmarks/live_calls.py FOLDER

Simulated callers in this process talk to examples/echo_bot.py in another, at 16 kHz. live_calls.md
says what CPU that takes and how late the echo is. A step in which the machine itself was late is
run again. It takes about five minutes.
"""

import asyncio
import gc
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from measuring import machine, pieces, speech_like
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import echo_bot
from caller import place_call, wait_until_served
from listening import audio_in
from streamdouble.scenario import Say, Scenario, Wait

from pipecat_twilio import TwilioFrameSerializer, ulaw

PORT = 18766
URL = f"http://127.0.0.1:{PORT}/"
SECS = 6  # that all calls of a step are measured for
CALLS = (10, 30)
APART_SECS = 0.1
TOO_LATE_MS, TRIES = 10, 3
PIPELINES = {"echo": 0, "echo, 4 more processors, default observers": 4}

HEAD = """# What a live call costs

Calls of {secs} s at 16 kHz on {machine}; written by `tox -e calls`. A step in which the machine
itself was late each time it was run has no figures.

| pipeline | bot | calls at once | CPU, ms per call-second | to Pipecat's | wait for a core, ms \
| delay, median, ms | 99 % below, ms |
|---|---|---:|---:|---:|---:|---:|---:|"""


class Serializer40Ms(TwilioFrameSerializer):
    """Collects two messages to a frame."""

    class InputParams(TwilioFrameSerializer.InputParams):
        """Differs in one default."""

        input_frame_secs: float = 0.04


class Serializer60Ms(TwilioFrameSerializer):
    """Collects three messages to a frame."""

    class InputParams(Serializer40Ms.InputParams):
        """Differs in the same default."""

        input_frame_secs: float = 0.06


UNTUNED = {"allow_anyone": True, "output_ms": 20, "transport": FastAPIWebsocketTransport}
PIPECATS, TUNED = "Pipecat's serializer", "ours, everything tuned"  # by README, "Scaling out"
BOTS = {
    PIPECATS: echo_bot.Settings(serializer=PipecatSerializer, **UNTUNED),
    "ours, 20 ms input frames": echo_bot.Settings(**UNTUNED),
    "ours, 40 ms input frames": echo_bot.Settings(serializer=Serializer40Ms, **UNTUNED),
    "ours, 60 ms input frames": echo_bot.Settings(serializer=Serializer60Ms, **UNTUNED),
    TUNED: echo_bot.Settings(serializer=Serializer40Ms, allow_anyone=True),
}


def serve(bot: str, more: int) -> None:
    """Serves a bot with so many more processors, in a process of its own."""
    logger.remove()

    def longer_pipeline(processors: list[Any]) -> Pipeline:
        passing = [IdentityFilter(enable_direct_mode=bot == TUNED) for _ in range(more)]
        return Pipeline([processors[0], *passing, *processors[1:]])

    def observed_worker(pipeline: Pipeline, params: PipelineParams, **_: Any) -> PipelineWorker:
        return PipelineWorker(pipeline, params=params)

    echo_bot.Pipeline = longer_pipeline
    if more and bot != TUNED:  # the example has Pipecat's default observers off
        echo_bot.PipelineWorker = observed_worker
    loop = "uvloop" if bot == TUNED else "asyncio"
    echo_bot.serve(BOTS[bot], port=PORT, log_level="critical", lifespan="off", loop=loop)


def delays_ms(log: Any, since: float) -> np.ndarray:
    """Returns, for every message of audio that was sent after `since`, when all of it was back."""
    sent, received = audio_in(log.sent), audio_in(log.received)
    back = np.cumsum([len(piece) for _, piece in received])
    said = np.cumsum([len(piece) for _, piece in sent])
    at = np.searchsorted(back, said)
    pairs = [(received[i][0], s) for i, (s, _) in zip(at, sent, strict=True) if i < len(back)]
    return 1000 * np.array([back_at - sent_at for back_at, sent_at in pairs if sent_at > since])


def scheduled_secs(pid: int) -> np.ndarray:
    """Returns how long all threads of a process have run, and how long they waited to run."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return np.sum([np.array(f.read_text().split()[:2], float) for f in files], axis=0) / 1e9


async def step(pid: int, count: int) -> tuple[np.ndarray, float]:
    """Places so many calls; returns the row's figures, and how late the callers were, in ms."""
    ramp = (count + 1) * APART_SECS
    speech = pieces(ulaw.encode(speech_like(SECS + ramp, 8000)), 160)
    all_talk = time.perf_counter() + ramp

    async def one(number: int) -> Any:
        wait = (number + number / count / 5) * APART_SECS  # nor on the same tick as the others
        await asyncio.sleep(wait)
        script = Scenario("speak", [Say(Path("-"), speech[round(wait / 0.02) :]), Wait(0.5)])
        return (await place_call(URL, script))[0]

    calls = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(all_talk - time.perf_counter())
    before = scheduled_secs(pid)
    await asyncio.sleep(SECS - 0.5)
    used = 1000 * (scheduled_secs(pid) - before) / (SECS - 0.5) / count
    logs = await asyncio.gather(*calls)
    delays = np.concatenate([delays_ms(log, all_talk) for log in logs])
    late = [np.diff([at for at, _ in audio_in(log.sent)]) * 1000 - 20 for log in logs]
    figures = np.array([*used, *np.percentile(delays, [50, 99])])
    return figures, float(np.percentile(np.concatenate(late), 99))


async def measure(bot: str, more: int) -> list[np.ndarray]:
    """Calls a bot; returns the figures for each number of calls, or NaN if the machine was late."""
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(bot, more))
    process.start()
    rows = []
    try:
        await wait_until_served(URL)
        for count in CALLS:
            for _ in range(TRIES):
                gc.collect()
                figures, late = await step(process.pid or 0, count)
                print(bot, more, count, np.round(figures, 2), f"late by {late:.1f} ms", flush=True)
                if late < TOO_LATE_MS:
                    break
            rows.append(figures if late < TOO_LATE_MS else figures * np.nan)
    finally:
        process.terminate()
        process.join()
    return rows


def main(folder: Path) -> None:
    """Measures all bots and writes the table."""
    logger.remove()
    lines = [HEAD.format(secs=SECS, machine=machine())]
    for pipeline, more in PIPELINES.items():
        measured = {bot: asyncio.run(measure(bot, more)) for bot in BOTS}
        for bot, rows in measured.items():
            for count, figures, first in zip(CALLS, rows, measured[PIPECATS], strict=True):
                cpu, *others = [f"{figure:.1f}" for figure in figures]
                cells = (pipeline, bot, str(count), cpu, f"{figures[0] / first[0]:.2f} x", *others)
                lines.append(f"| {' | '.join(cells)} |")
    (folder / "live_calls.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
