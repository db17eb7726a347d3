"""Fifty calls at once against one bot's process, at the pace of speech, for ten minutes.

    python benchmarks/soak.py FOLDER

The callers talk to the echo bot for 20 to 60 s, then they hang up, or have the bot end the call
over REST, and call again. soak.md has the figures; the exit status is 1 if audio was lost, if the
bot's memory grew, or if the bot logged a warning. Linux only: /proc has the bot's memory.
"""

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
from measuring import machine, pieces
from rest_api import API_KEY, RestApi
from serving import wait_until_served
from streamdouble.scenario import Dtmf, Say, Scenario, Wait

PORT = 18790
CALLERS, MINUTES = 50, 10
CALL_SECS = (20, 60)
PATIENCE_SECS = 10  # for what is still to come back, and for the bot's hang-up
MAX_GROWTH_MIB = 4  # with 50 callers, 10 KiB for each call that came and went in that time
CODES = np.random.default_rng(1).bytes(8000 * CALL_SECS[1])

TEXT = """# Ten minutes of fifty calls at once

On {machine}; written by `tox -e results`. The callers talk for 20 to 60 s each, and every other
call is ended by the bot, over REST. The memory is that of the bot's process in each tenth of the
time, in the median; it may grow by {max_growth} MiB in the second half.

| | |
|---|---|
| calls | {calls}, {ended} of them ended over REST |
| messages of 20 ms | {sent} sent, {lost:g} lost |
| delay of the echo | {median:.1f} ms in the median, 99 % below {below:.1f} ms |
| memory, MiB | {memory} |
| warnings of the bot | {warnings} |
| broken promises | {broken} |
"""


def run_bot(base_url: str, log: Path) -> None:
    """Runs the bot; called in its own process."""
    logger.remove()
    logger.add(log, level="WARNING")
    settings = Settings(ACCOUNT_SID, **API_KEY, base_url=base_url, allow_anyone=True)
    serve(create_app(settings), port=PORT, log_level="critical", lifespan="off")


@dataclass
class Tally:
    """The results of all calls; `delays` are in seconds."""

    calls: int = 0
    ended: int = 0
    sent: int = 0
    lost: float = 0
    failures: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    async def call(self, count: int, *, bot_ends: bool) -> None:
        """Calls, says `count` messages of 20 ms, ends the call, and adds what came back."""
        # In the silence after it, the last words come back.
        steps = [Say(Path("-"), pieces(CODES, 160)[:count]), Wait(1)]
        steps += [Dtmf("#"), Wait(PATIENCE_SECS)] if bot_ends else []
        try:
            log, result = await place_call(f"http://127.0.0.1:{PORT}/", Scenario("", steps))
        except CallError as error:
            self.failures.append(str(error))
            return
        sent_at = [at for at, _ in audio_in(log.sent)]
        back = 0
        for at, piece in audio_in(log.received):
            back += len(piece)
            # Measured from the newest message that it holds something of.
            self.delays.append(at - sent_at[-(-back // 160) - 1])
        self.calls += 1
        self.sent += count
        self.lost += max(0, count - back / 160)
        self.ended += bot_ends and result.closed_by == "agent"

    async def keep_calling(self, number: int, end: float) -> None:
        """Calls again and again until the end, as one caller."""
        rng = random.Random(number)
        await asyncio.sleep(number * 0.1 + rng.random() * 0.02)
        for turn in itertools.count(number):
            secs = min(rng.uniform(*CALL_SECS), end - time.monotonic())
            if secs < 1:
                return
            # The bot echoes whole messages of its own, of 40 ms.
            await self.call(int(secs / 0.04) * 2, bot_ends=turn % 2 == 0)


async def watch(pid: int, resident_mib: list[float]) -> None:
    """Records the memory of a process every second."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240  # no disk
        resident_mib.append(float(status.split("VmRSS:")[1].split()[0]) / 1024)
        await asyncio.sleep(1)


async def soak(log: Path) -> tuple[Tally, list[float]]:
    """Returns the results of all calls, and the bot's memory in MiB at each second."""
    tally, api, resident_mib = Tally(), RestApi(), []
    async with api.serve() as base_url:
        process = multiprocessing.get_context("spawn").Process(target=run_bot, args=(base_url, log))
        process.start()
        try:
            await wait_until_served(f"http://127.0.0.1:{PORT}/")
            watching = asyncio.create_task(watch(process.pid, resident_mib))
            end = time.monotonic() + 60 * MINUTES
            async with asyncio.timeout(60 * MINUTES + 4 * PATIENCE_SECS):
                await asyncio.gather(*(tally.keep_calling(n, end) for n in range(CALLERS)))
            watching.cancel()
        finally:
            process.terminate()
            process.join()
    if api.ended.total() != tally.ended:
        tally.failures.append(f"{api.ended.total()} calls were ended over REST")
    return tally, resident_mib


def main(folder: Path) -> int:
    """Runs it, writes the figures, and returns the exit status."""
    logger.remove()
    with TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        tally, resident_mib = asyncio.run(soak(log))
        warnings = log.read_text().splitlines()
    # In the first half, every caller calls several times, and the heap finds its size.
    tenths = [np.median(part) for part in np.array_split(resident_mib, 10)]
    broken = [*tally.failures[:5], *warnings[:5]]
    broken += ["messages were lost"] * (tally.lost > 0)
    broken += ["the memory grew"] * bool(tenths[-1] - tenths[4] > MAX_GROWTH_MIB)
    median, below = np.percentile(1000 * np.array(tally.delays), [50, 99])
    text = TEXT.format(
        machine=machine(),
        max_growth=MAX_GROWTH_MIB,
        memory=" ".join(f"{mib:.0f}" for mib in tenths),
        warnings=len(warnings),
        broken="; ".join(broken) or "none",
        median=median,
        below=below,
        **vars(tally),
    )
    (folder / "soak.md").write_text(text)
    print(text)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
