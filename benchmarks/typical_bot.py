"""What callers of a typical bot hear: Pipecat's, one import swapped, and everything installed.

    python benchmarks/typical_bot.py FOLDER

The bot of simulation/talking_bot.py is called at three pairs of rates with three kinds of TTS, nine
calls at once; with each bot once undisturbed, and while its event loop is held up for 60 and for
120 ms twice a second. typical_bot.md has the table, typical_bot.png one answer as it was heard. It
takes about three minutes.
"""

import asyncio
import sys
from itertools import product
from pathlib import Path

import numpy as np
import talking_bot
from conversation import BOTS, Conversation, built_as, converse
from local_services import sentence
from loguru import logger
from matplotlib.figure import Figure
from measuring import machine
from player import RATE
from serving import serve_in_thread

RATES = ((8000, 8000), (16000, 16000), (16000, 24000))
TTS = ("pipeline", "24 kHz", "resampled")
KINDS = tuple(product(RATES, TTS))
HOLD_UPS_MS = (0, 60, 120)
CLEAN = 3  # answers before the one in which TTS stalls
APART_SECS = 0.23  # the calls of a batch
TOO_LATE_MS, TRIES = 30, 4  # of a caller, who is never held up: then the machine was, so again
PICTURED = ((16000, 24000), "24 kHz")

Batch = dict[tuple[tuple[int, int], str], Conversation]

HEAD = """# What callers of a typical bot hear

In ms, on {machine}; written by `tox -e results`. Where there are three figures, TTS speaks at the
pipeline's rate / at 24 kHz whatever the pipeline / at 24 kHz and is resampled inside `TTSService`.
Silence is that inside a sentence of 1.4 s while the event loop is held up for so long, twice a
second. The last columns are a speech-to-speech model at 24 kHz that hears the caller: how late in
the median and at worst, and how much is missing when the caller has stopped.

| rates, kHz | bot | first sound after TTS's first byte | cut off at the end | lost in mid-word \
when TTS stalls | silence at 0 ms | at 60 ms | at 120 ms | model hears, late | missing |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"""


async def batch(bot: str, hold_up_ms: int, answers: int) -> Batch:
    """Places a call for each pair of rates and kind of TTS."""
    app = talking_bot.create_app(hold_up_ms / 1000)
    with built_as(bot) as serializer, serve_in_thread(app) as port:

        async def one(number: int, rates: tuple[int, int], tts: str) -> Conversation:
            await asyncio.sleep(number * APART_SECS)
            built = {"serializer": serializer, "in_rate": rates[0], "out_rate": rates[1]}
            return await converse(port, app, answers, **built, tts=tts, stalls_from=CLEAN)

        calls = await asyncio.gather(*(one(number, *kind) for number, kind in enumerate(KINDS)))
    return dict(zip(KINDS, calls, strict=True))


def calm_batch(bot: str, hold_up_ms: int) -> Batch:
    """Places the calls again while the machine is late; returns those that were the least late."""
    answers = 2 if hold_up_ms else CLEAN + 1
    tries: dict[float, Batch] = {}
    for _ in range(TRIES):
        calls = asyncio.run(batch(bot, hold_up_ms, answers))
        late = max(call.log.lateness_ms() for call in calls.values())
        print(f"{bot}, {hold_up_ms} ms: callers up to {late:.0f} ms late", flush=True)
        if all(len(call.bot.said_at) >= answers for call in calls.values()):
            tries[late] = calls
            if late <= TOO_LATE_MS:
                break
    if not tries:
        raise SystemExit("the machine is too busy: some questions were never answered")
    return tries[min(tries)]


def row(rates: tuple[int, int], bot: str, batches: list[Batch]) -> str:
    """Returns a line of the table."""
    columns = []
    for tts in TTS:
        clean, *held_up = (calls[rates, tts].answers()[:CLEAN] for calls in batches)
        first_ms = 1000 * np.median([heard.first_at for heard in clean])
        cut_ms = np.mean([heard.cut_ms for heard in clean])
        lost_ms = batches[0][rates, tts].answers()[CLEAN].lost_ms
        silences_ms = [np.mean([h.silence_ms for h in heard]) for heard in (clean, *held_up)]
        columns.append([first_ms, cut_ms, lost_ms, *silences_ms])
    cells = [" / ".join(f"{figure:.0f}" for figure in cell) for cell in zip(*columns, strict=True)]
    hearing = np.mean([batches[0][rates, tts].model_hearing_ms() for tts in TTS], axis=0)
    cells += [f"{hearing[0]:.0f} (at worst {hearing[1]:.0f})", f"{hearing[2]:.0f}"]
    return f"| {rates[0] // 1000}/{rates[1] // 1000} | {bot} | {' | '.join(cells)} |"


def draw(calls: dict[str, Conversation], path: Path) -> None:
    """Draws what was said above what was heard of the first answer, gaps in red."""
    said = sentence(RATE, 0)
    panels = [("what TTS said, from its first byte on", said, np.zeros(len(said), bool))]
    for name, call in calls.items():
        heard, played, at = call.answers()[0], call.played(), call.bot.said_at[0] - call.begin
        part = slice(round(at * RATE), round((at + heard.last_at) * RATE))
        late, lost = 1000 * heard.first_at, heard.lost_ms + heard.cut_ms
        title = f"{name}: {late:.0f} ms late, {heard.silence_ms:.0f} ms of gaps, {lost:.0f} ms lost"
        panels.append((title, played.samples[part], ~played.is_playing[part]))
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    for ax, panel in zip(figure.subplots(len(panels), sharex=True), panels, strict=True):
        title, samples, gaps = panel
        ms = 1000 * np.arange(len(samples)) / RATE
        ax.plot(ms, samples, lw=0.4)
        ax.fill_between(ms, -20000, 20000, where=gaps, color="#d62728", alpha=0.35, lw=0)
        ax.set_title(title, loc="left", fontsize=10)
        ax.set(ylim=(-20000, 20000), yticks=[])
    note = "ms; red: nothing to play. The event loop is held up 120 ms twice a second"
    figure.supxlabel(f"{note}\n16/24 kHz on {machine()}", fontsize=8)
    figure.savefig(path, dpi=130)


def main(folder: Path) -> None:
    """Places all calls; writes the table and the picture."""
    logger.remove()
    everything = {bot: [calm_batch(bot, hold_up) for hold_up in HOLD_UPS_MS] for bot in BOTS}
    rows = [row(rates, bot, everything[bot]) for rates in RATES for bot in BOTS]
    (folder / "typical_bot.md").write_text("\n".join([HEAD.format(machine=machine()), *rows, ""]))
    draw({bot: everything[bot][-1][PICTURED] for bot in BOTS}, folder / "typical_bot.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
