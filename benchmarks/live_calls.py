"""How many live calls one bot process holds: real sockets, real pace, the echo bot.

    python benchmarks/live_calls.py FOLDER

More and more simulated callers, in this process, talk to the bot, in another, until the 99th
percentile of the delay has grown by 20 ms over that of a call alone, or this process is too slow
to call in time. live_calls.md has a line for each step. It takes about five minutes.
"""

import asyncio
import gc
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import call  # noqa: E402
import echo_bot  # noqa: E402
from measuring import speech_like  # noqa: E402
from streamdouble.scenario import Say, Scenario, Wait  # noqa: E402

from pipecat_twilio import ulaw  # noqa: E402

RATE = 16000
SECS = 8  # that all calls of a step are measured for
STARTS_APART_SECS = 0.2  # a pipeline takes the bot some time to set up
STEPS = (1, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80, 100)
MOST_GROWTH_MS = 20
LATE_CALLER_MS = 10
TICK_SECS = 0.02


@dataclass
class Step:
    """What came of so many calls at once; delays in milliseconds."""

    serializer: str
    calls: int
    median: float
    p99: float
    pace_p99: float

    def row(self) -> str:
        """Returns it as a line of a Markdown table."""
        times = (self.median, self.p99, self.pace_p99)
        return f"| {self.serializer} | {self.calls} |" + "".join(f" {t:.1f} |" for t in times)


def run_bot(serializer: str, port: int) -> None:
    """Runs the echo bot, in a process of its own."""
    logger.remove()
    serializers = {"pipecat": call.PipecatSerializer, "ours": call.TwilioFrameSerializer}
    settings = call.Settings(
        account_sid=call.ACCOUNT_SID,
        api_key_sid=call.KEY_SID,
        api_key_secret=call.KEY_SECRET,
        base_url="http://127.0.0.1:9",  # nobody is there: these calls end by themselves
        sample_rate=RATE,
        end_silence_secs=0,
        serializer=serializers[serializer],
    )
    echo_bot.serve(settings, port=port, log_level="critical", lifespan="off")


def delays_ms(log: Any, since: float) -> np.ndarray:
    """Returns, for every message of audio that was sent after `since`, when all of it was back."""
    sent = call.audio_until(float("inf"), log.sent)
    received = call.audio_until(float("inf"), log.received)
    back_at = [at for at, _ in received]
    back = np.cumsum([len(piece) for _, piece in received])
    said = np.cumsum([len(piece) for _, piece in sent])
    at = np.searchsorted(back, said)
    return 1000 * np.array(
        [
            back_at[i] - sent_at
            for i, (sent_at, _) in zip(at, sent, strict=True)
            if i < len(back) and sent_at > since
        ]
    )


def pace_errors_ms(log: Any) -> np.ndarray:
    """Returns how late the caller itself was: the gaps between its messages, beyond 20 ms."""
    return 1000 * np.diff([at for at, _ in call.audio_until(float("inf"), log.sent)]) - 20


async def step(serializer: str, webhook: str, count: int) -> Step:
    """Places so many calls, one after the other, and measures the delays while all talk."""
    codes = ulaw.encode(speech_like(SECS + (count + 1) * STARTS_APART_SECS, 8000))
    speech = [codes[i : i + 160] for i in range(0, len(codes), 160)]
    all_talk = time.perf_counter() + (count + 1) * STARTS_APART_SECS

    async def one(number: int) -> Any:
        # Not on the same tick as the others either.
        wait = (number + number / count / 10) * STARTS_APART_SECS
        await asyncio.sleep(wait)
        rest = speech[int(wait / TICK_SECS) :]
        return (
            await call.place_call(webhook, Scenario("speak", [Say(Path("-"), rest), Wait(0.5)]))
        )[0]

    logs = await asyncio.gather(*(one(number) for number in range(count)))
    delays = np.concatenate([delays_ms(log, all_talk) for log in logs])
    pace = np.concatenate([pace_errors_ms(log) for log in logs])
    return Step(serializer, count, *np.percentile(delays, [50, 99]), float(np.percentile(pace, 99)))


async def climb(serializer: str, webhook: str) -> list[Step]:
    """Adds callers until the delay grows."""
    await call.wait_until_served(webhook)
    steps: list[Step] = []
    for count in STEPS:
        # Not while they talk: Pipecat paces its output, so what stalls once stays late.
        gc.collect()
        gc.disable()
        steps.append(await step(serializer, webhook, count))
        gc.enable()
        print(steps[-1].row(), flush=True)
        grown = steps[-1].p99 - steps[0].p99 > MOST_GROWTH_MS
        if grown or steps[-1].pace_p99 > LATE_CALLER_MS:
            break
    return steps


def main(folder: Path) -> None:
    """Measures both serializers and writes the table."""
    logger.remove()
    lines = [
        "# Live calls in one bot process",
        "",
        f"Echo bot at {RATE // 1000} kHz, {SECS} s while all talk; written by `tox -e calls`.",
        "",
        "| serializer | calls at once | delay, median, ms | 99 % below, ms | caller late, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for number, serializer in enumerate(("pipecat", "ours")):
        port = 18765 + number
        bot = multiprocessing.get_context("spawn").Process(target=run_bot, args=(serializer, port))
        bot.start()
        try:
            steps = asyncio.run(climb(serializer, f"http://127.0.0.1:{port}/"))
        finally:
            bot.terminate()
            bot.join()
        lines += [taken.row() for taken in steps]
    folder.mkdir(exist_ok=True)
    (folder / "live_calls.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
