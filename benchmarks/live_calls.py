"""What a live call costs a bot's process: real sockets, real pace, two pipelines, six bots.

    python benchmarks/live_calls.py FOLDER

Simulated callers in this process talk to examples/echo_bot.py in two others, at 16 kHz: to the bot
in question in one, and at the same time to a bot with Pipecat's serializer in the other. Machines
and processes vary in speed, so there are four such pairs. live_calls.md says what CPU that takes
and how late the echo is. It takes a quarter of an hour.
"""

import asyncio
import gc
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import echo_bot
import numpy as np
from caller import WireLog, place_call
from listening import audio_in
from loguru import logger
from measuring import machine, pieces, speech_like
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport
from serving import wait_until_served
from streamdouble.scenario import Say, Scenario, Step, Wait

from pipecat_twilio import TwilioFrameSerializer, ulaw

PORTS, URL = (18766, 18767), "http://127.0.0.1:{}/"
SECS = 8  # that all calls are measured for
ROUNDS = 2  # of two pairs, one for each order of the bots
APART_SECS = 0.1
TOO_LATE_MS, TRIES = 10, 3

HEAD = """# What a live call costs

Calls of {secs} s, at 16 kHz, with Pipecat's output frames of 40 ms, on
{machine}; written by `tox -e results`. Each bot is compared with one that has Pipecat's serializer
and as many calls at the same time. The figures are medians of four such pairs of processes; nan: in
one of them the machine itself was late in every try. The first row of each pipeline, of two equal
bots, shows how exact they are.

| pipeline | calls at once | bot | CPU, ms per call-second | to Pipecat's | wait for a core, ms \
| delay, median, ms | 99 % below, ms |
|---|---:|---|---:|---:|---:|---:|---:|"""


def collecting(secs: float) -> type[TwilioFrameSerializer]:
    """Returns a serializer that collects so much audio to a frame."""

    class InputParams(TwilioFrameSerializer.InputParams):
        input_frame_secs: float = secs

    return type("Collecting", (TwilioFrameSerializer,), {"InputParams": InputParams})


PIPECATS, TUNED = "Pipecat's serializer", "ours, everything tuned"  # by docs/performance.md
UNTUNED = {"allow_anyone": True}
ON_PIPECATS = {**UNTUNED, "transport": FastAPIWebsocketTransport}
BOTS = {
    PIPECATS: echo_bot.Settings(serializer=PipecatSerializer, **ON_PIPECATS),
    "one import swapped, 20 ms input frames": echo_bot.Settings(**ON_PIPECATS),
    "ours, 20 ms input frames": echo_bot.Settings(**UNTUNED),
    "ours, 40 ms input frames": echo_bot.Settings(serializer=collecting(0.04), **UNTUNED),
    "ours, 60 ms input frames": echo_bot.Settings(serializer=collecting(0.06), **UNTUNED),
    TUNED: echo_bot.Settings(serializer=collecting(0.06), output_ms=60, **UNTUNED),
}
LONG = "echo, 4 more processors, default observers"
RUNS = [  # pipeline, more processors, calls at once, bots
    ("echo", 0, 10, BOTS),
    (LONG, 4, 10, BOTS),
    (LONG, 4, 20, (PIPECATS, "ours, 20 ms input frames", "ours, 40 ms input frames", TUNED)),
]


def serve(bot: str, more: int, port: int) -> None:
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
    app = echo_bot.create_app(BOTS[bot])
    echo_bot.serve(app, port=port, log_level="critical", lifespan="off", loop=loop)


def delays_ms(log: Any, since: float) -> np.ndarray:
    """Returns, for each message of the SECS after `since`, when all of it was back."""
    sent, received = audio_in(log.sent), audio_in(log.received)
    back = np.cumsum([len(piece) for _, piece in received])
    said = np.cumsum([len(piece) for _, piece in sent])
    at = np.searchsorted(back, said)
    pairs = [(received[i][0], s) for i, (s, _) in zip(at, sent, strict=True) if i < len(back)]
    return 1000 * np.array(
        [back_at - sent_at for back_at, sent_at in pairs if 0 < sent_at - since < SECS]
    )


def scheduled_secs(pid: int) -> np.ndarray:
    """Returns how long all threads of a process have run, and how long they waited to run."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return np.sum([np.array(f.read_text().split()[:2], float) for f in files], axis=0) / 1e9


async def place_calls(
    port: int, pid: int, count: int, *more: Step, apart_secs: float = APART_SECS
) -> tuple[np.ndarray, float, list[WireLog]]:
    """Places so many calls, which talk until the same time, and then do more, each in turn.

    Returns:
        The process's CPU and its wait for a core while all talked, in ms per call-second; since
        when all talked; and the calls.
    """
    ramp = (count + 1) * apart_secs
    speech = pieces(ulaw.encode(speech_like(SECS + ramp, 8000)), 160)
    all_talk = time.perf_counter() + ramp

    async def one(number: int) -> WireLog:
        wait = (number + number / count / 5) * apart_secs  # callers must not share a tick
        await asyncio.sleep(wait)
        talk = Say(Path("-"), speech[round(wait / 0.02) :])
        script = Scenario("speak", [talk, Wait(0.5 + number / count), *more])
        return (await place_call(URL.format(port), script))[0]

    calls = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(all_talk - time.perf_counter())
    before = scheduled_secs(pid)
    await asyncio.sleep(SECS - 0.5)
    used = 1000 * (scheduled_secs(pid) - before) / (SECS - 0.5) / count
    return used, all_talk, await asyncio.gather(*calls)


async def step(port: int, pid: int, count: int) -> np.ndarray:
    """Places so many calls; returns CPU, wait, two delays and how late the callers were, in ms."""
    used, since, logs = await place_calls(port, pid, count)
    return np.array([*used, *percentiles_ms(logs, since)])


def percentiles_ms(logs: list[WireLog], since: float) -> np.ndarray:
    """Returns the delay, in the median and 99 % below, and below which the callers were late."""
    delays = np.concatenate([delays_ms(log, since) for log in logs])
    sent = [np.diff([at for at, _ in audio_in(log.sent)]) for log in logs]
    late = 1000 * np.concatenate(sent) - 20
    return np.array([*np.percentile(delays, [50, 99]), np.percentile(late, 99)])


async def measure(bot: str, more: int, calls: int, order: int) -> np.ndarray:
    """Calls a bot beside Pipecat's; returns its row's figures, NaN if the machine was late."""
    process = multiprocessing.get_context("spawn").Process
    pair = zip((bot, PIPECATS)[::order], PORTS, strict=True)
    servers = {port: process(target=serve, args=(name, more, port)) for name, port in pair}
    try:
        for port, server in servers.items():
            server.start()
            await wait_until_served(URL.format(port))
        for _ in range(TRIES):
            gc.collect()
            steps = [step(port, server.pid or 0, calls) for port, server in servers.items()]
            ours, pipecats = (await asyncio.gather(*steps))[::order]
            late = max(ours[-1], pipecats[-1])
            figures = np.array([ours[0], ours[0] / pipecats[0], *ours[1:-1]])
            print(bot, more, calls, np.round(figures, 2), f"late by {late:.1f} ms", flush=True)
            if late < TOO_LATE_MS:  # else the machine itself was late
                return figures
    finally:
        for server in servers.values():
            server.terminate()
            server.join()
    return figures * np.nan


def main(folder: Path) -> None:
    """Measures all bots and writes the table."""
    logger.remove()
    lines = [HEAD.format(secs=SECS, machine=machine())]
    for pipeline, more, calls, bots in RUNS:
        for bot in bots:
            pairs = [asyncio.run(measure(bot, more, calls, order)) for order in (1, -1) * ROUNDS]
            cpu, ratio, *others = np.median(pairs, axis=0)
            cells = (f"{cpu:.1f}", f"{ratio:.2f} x", *(f"{figure:.1f}" for figure in others))
            lines.append(f"| {' | '.join((pipeline, str(calls), bot, *cells))} |")
    (folder / "live_calls.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
