"""Fifty calls at once against one bot process, at the pace of speech, for ten minutes.

    PYTHONPATH=simulation:examples python tests/calls/soak.py

The echo bot runs in its own process. The callers in this process talk for 20 to 60 s, then they
hang up, or make the bot end the call over REST, and call again. The soak fails if audio was lost,
if the bot's memory grew, or if the bot logged a warning. Linux only: it reads the bot's memory from
/proc.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from caller import place_call
from dialing import ACCOUNT_SID, CallError
from echo_bot import Settings, create_app, serve
from listening import audio_in
from loguru import logger
from rest_api import API_KEY, RestApi
from serving import wait_until_served
from streamdouble.scenario import Dtmf, Say, Scenario, Wait

from pipecat_twilio import SincResampler, ulaw

PORT = 18790
RATE = 16000
OUTPUT_MS = 40  # in a message, as Pipecat has it by default
CALL_SECS = (20, 60)
PATIENCE_SECS = 10  # for what is still to come back, and for the bot's hang-up
MAX_GROWTH_MIB = 4  # with 50 calls, 10 KiB for each that came and went in that time

CODES = np.random.default_rng(1).bytes(8000 * CALL_SECS[1])
FRAMES = [CODES[i : i + 160] for i in range(0, len(CODES), 160)]
ECHO = ulaw.encode(
    SincResampler(RATE, 8000).process(SincResampler(8000, RATE).process(ulaw.decode(CODES)))
)


def run_bot(base_url: str, log: Path) -> None:
    """Runs the bot; called in its own process."""
    logger.remove()
    logger.add(log, level="WARNING")
    options = {"allow_anyone": True, "sample_rate": RATE, "output_ms": OUTPUT_MS}
    settings = Settings(ACCOUNT_SID, **API_KEY, base_url=base_url, **options)
    serve(create_app(settings), port=PORT, log_level="critical", lifespan="off")


@dataclass
class Tally:
    """The results of all calls; `delays` are in seconds."""

    calls: int = 0
    exact: int = 0
    hung_up_by_bot: int = 0
    sent: int = 0
    lost: float = 0
    failures: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    async def call(self, count: int, *, bot_hangs_up: bool) -> None:
        """Calls, says `count` messages of 20 ms, ends the call, and adds what came back."""
        # In the silence after it, the last words come back.
        steps = [Say(Path("-"), FRAMES[:count]), Wait(1)]
        steps += [Dtmf("#"), Wait(PATIENCE_SECS)] if bot_hangs_up else []
        try:
            log, result = await place_call(f"http://127.0.0.1:{PORT}/", Scenario("", steps))
        except CallError as error:
            self.failures.append(str(error))
            return
        sent_at = [at for at, _ in audio_in(log.sent)]
        back = b""
        for at, piece in audio_in(log.received):
            back += piece
            # Measured from the newest message that it holds something of.
            self.delays.append(at - sent_at[-(-len(back) // 160) - 1])
        self.calls += 1
        self.sent += count
        self.lost += max(0, count - len(back) / 160)
        self.exact += back.startswith(ECHO[: 160 * count])
        self.hung_up_by_bot += bot_hangs_up and result.closed_by == "agent"

    async def keep_calling(self, number: int, end: float) -> None:
        """Calls again and again until the end, as one caller."""
        rng = random.Random(number)
        await asyncio.sleep(number * 0.1 + rng.random() * 0.02)
        for turn in itertools.count(number):
            secs = min(rng.uniform(*CALL_SECS), end - time.monotonic())
            if secs < 1:
                return
            # The bot echoes whole messages of its own.
            count = int(1000 * secs / OUTPUT_MS) * 2
            await self.call(count, bot_hangs_up=turn % 2 == 0)


async def watch(pid: int, resident_mib: list[float]) -> None:
    """Records the memory of a process every second."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240  # no disk
        resident_mib.append(float(status.split("VmRSS:")[1].split()[0]) / 1024)
        await asyncio.sleep(1)


async def soak(minutes: float, callers: int, log: Path) -> tuple[Tally, list[float]]:
    """Returns the results of all calls, and the bot's memory in MiB at each second."""
    tally, api, resident_mib = Tally(), RestApi(), []
    async with api.serve() as base_url:
        process = multiprocessing.get_context("spawn").Process(target=run_bot, args=(base_url, log))
        process.start()
        try:
            await wait_until_served(f"http://127.0.0.1:{PORT}/")
            watching = asyncio.create_task(watch(process.pid, resident_mib))
            end = time.monotonic() + 60 * minutes
            async with asyncio.timeout(60 * minutes + 4 * PATIENCE_SECS):
                await asyncio.gather(*(tally.keep_calling(n, end) for n in range(callers)))
            watching.cancel()
        finally:
            process.terminate()
            process.join()
    if api.ended.total() != tally.hung_up_by_bot:
        tally.failures.append(f"{api.ended.total()} calls were ended over REST")
    return tally, resident_mib


def main() -> int:
    """Runs it, prints the figures, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    logger.remove()
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        tally, resident_mib = asyncio.run(soak(arguments.minutes, arguments.calls, log))
        warnings = log.read_text().splitlines()
    delays = 1000 * np.array(tally.delays)
    # In the first half, every caller calls several times, and the heap finds its size.
    tenths = [np.median(part) for part in np.array_split(resident_mib, 10)]
    growth = tenths[-1] - tenths[4]
    print(f"""\
calls at once      {arguments.calls} for {arguments.minutes:g} minutes
calls              {tally.calls}, {tally.hung_up_by_bot} of them ended by the bot over REST
messages           {tally.sent} of 20 ms sent, {tally.lost:g} lost
exact to the bit   {tally.exact} calls
delay              median {np.median(delays):.1f} ms, 99 % below {np.percentile(delays, 99):.1f} ms
bot's memory       {growth:+.1f} MiB in the second half; MiB in each tenth of the time: \
{" ".join(f"{mib:.0f}" for mib in tenths)}
bot's warnings     {len(warnings)}""")
    broken = [*tally.failures[:5], *warnings[:5]]
    broken += ["messages were lost"] * (tally.lost > 0)
    broken += [f"the memory grew by more than {MAX_GROWTH_MIB} MiB"] * bool(growth > MAX_GROWTH_MIB)
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
