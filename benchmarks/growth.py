"""How cost grows with the calls at once, until the core of the bot's process is full.

    python benchmarks/growth.py FOLDER

The bot has the last of the machine's cores, the callers have the others. Each caller talks and is
echoed, for CPU and delay; then it presses a key twice, and the bot says a sentence, which it has at
once, for the silence inside. growth.md has the table, growth.png a picture. It takes five minutes.
"""

import asyncio
import multiprocessing
import os
import sys
from pathlib import Path

import echo_bot
import live_calls
import numpy as np
from caller import WireLog
from dialing import CallError
from listening import play
from live_calls import PIPECATS, PORTS, TOO_LATE_MS, TUNED, URL, percentiles_ms, place_calls
from loguru import logger
from matplotlib.figure import Figure
from measuring import machine, speech_like
from pipecat.frames.frames import Frame, InputDTMFFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection
from player import RATE
from serving import wait_until_served
from streamdouble.scenario import Dtmf, Wait

BOTS = (PIPECATS, "ours, 20 ms input frames", TUNED)
COUNTS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 100, 120, 140, 160)
APART_SECS = 0.04
SENTENCE_SECS, SENTENCES = 1.5, 2
PAUSE_SECS = 0.5  # a silence from here on is one between sentences
HURTS_MS = 20  # more than with one call: a frame more
FULL = 0.97  # of the bot's core
TOO_SLOW_MS = 1000  # nobody talks to a bot that is so late
CORES = sorted(os.sched_getaffinity(0))
FIGURES = ("CPU, ms per call-second", "99 % of delays below, ms", "silence in a sentence, ms")

HEAD = """# How cost grows with the calls at once

Echo at 16 kHz, 4 more processors, default observers, Pipecat's output frames of 40 ms; on
{machine}; written by `tox -e results`. The bot's process has a core of its own, and the callers the
rest. It hurts where the 99th percentile of the delay, or the silence inside a sentence of 1.5 s, is
{hurts} ms above that of one call. Where the callers were late themselves, they say so.

| bot | calls at once | CPU, ms per call-second | of the core | delay, median, ms \
| 99 % below, ms | silence in a sentence, ms | callers late, 99 % below, ms |
|---|---:|---:|---:|---:|---:|---:|---:|"""


class Talker(echo_bot.Echo):
    """Echoes until the first key, and says a sentence for each key."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Says a sentence; all else is as in the echo bot."""
        if isinstance(frame, InputDTMFFrame):
            self._ending = True
            speech = speech_like(SENTENCE_SECS, 16000)
            await self.push_frame(TTSAudioRawFrame(speech, 16000, 1))
        else:
            await super().process_frame(frame, direction)


def serve(bot: str, port: int) -> None:
    """Serves a bot on the last core, in a process of its own."""
    os.sched_setaffinity(0, CORES[-1:])
    echo_bot.Echo = Talker
    live_calls.serve(bot, 4, port)


def silence_ms(log: WireLog) -> float:
    """Returns how long, inside a sentence, there was nothing to play."""
    key_at = next(at for at, message in log.sent if message["event"] == "dtmf")
    begin, end = log.sent[0][0], log.sent[-1][0]
    is_playing = play(log.received, begin, end).is_playing[round((key_at - begin) * RATE) :]
    gaps = np.diff(np.flatnonzero(is_playing)) - 1
    return 1000 / RATE * gaps[gaps < PAUSE_SECS * RATE].sum() / SENTENCES


async def grow(bot: str) -> dict[int, np.ndarray]:
    """Returns the figures of a bot for each number of calls, up to the first that is too many."""
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(bot, PORTS[0]))
    server.start()
    rows: dict[int, np.ndarray] = {}
    keys = [Dtmf("1"), Wait(SENTENCE_SECS + 2 * PAUSE_SECS)] * SENTENCES
    try:
        await wait_until_served(URL.format(PORTS[0]))
        for count in COUNTS:
            calls = place_calls(PORTS[0], server.pid or 0, count, *keys, apart_secs=APART_SECS)
            try:
                used, since, logs = await calls
            except CallError as error:
                print(bot, count, error)
                break
            median, below, late = percentiles_ms(logs, since)
            silence = np.mean([silence_ms(log) for log in logs])
            rows[count] = np.array([used[0], used[0] * count / 1000, median, below, silence, late])
            print(bot, count, np.round(rows[count], 2), flush=True)
            if rows[count][1] > FULL or late > TOO_LATE_MS or below > TOO_SLOW_MS:
                break
    finally:
        server.terminate()
        server.join()
    return rows


def hurts_from(rows: dict[int, np.ndarray]) -> str:
    """Says from how many calls on it hurts."""
    first = next(iter(rows.values()))
    hurting = (n for n, row in rows.items() if any(row[3:5] > first[3:5] + HURTS_MS))
    count = next(hurting, None)
    return f"from {count} calls on" if count else f"not yet with {max(rows)} calls"


def draw(bots: dict[str, dict[int, np.ndarray]], path: Path) -> None:
    """Draws the three figures over the calls at once."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for ax, name, column in zip(figure.subplots(1, 3), FIGURES, (0, 3, 4), strict=True):
        for bot, rows in bots.items():
            ax.plot(list(rows), [row[column] for row in rows.values()], "o-", ms=3, label=bot)
        ax.set_title(name, fontsize=10)
        ax.set(xlabel="calls at once", ylim=(0, None) if column == 0 else (0, 300))
    figure.axes[0].legend(fontsize=7)
    figure.supxlabel(machine(), fontsize=6)
    figure.savefig(path, dpi=130)


def main(folder: Path) -> None:
    """Measures the bots in turn; writes the table and the picture."""
    logger.remove()
    os.sched_setaffinity(0, CORES[:-1] or CORES)
    bots = {bot: asyncio.run(grow(bot)) for bot in BOTS}
    lines = [HEAD.format(machine=machine(), hurts=HURTS_MS)]
    for bot, rows in bots.items():
        for count, row in rows.items():
            cells = (f"{row[0]:.1f}", f"{100 * row[1]:.0f} %", *(f"{ms:.1f}" for ms in row[2:]))
            lines.append(f"| {' | '.join((bot, str(count), *cells))} |")
    hurting = [f"{bot}: it hurts {hurts_from(rows)}." for bot, rows in bots.items()]
    (folder / "growth.md").write_text("\n".join([*lines, "", *hurting, ""]))
    draw(bots, folder / "growth.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
