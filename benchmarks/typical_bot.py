"""What callers of a typical bot hear: Pipecat's, one import swapped, and everything installed.

    python benchmarks/typical_bot.py FOLDER

The bot of simulation/talking_bot.py is called at three pairs of rates with three kinds of TTS, nine
calls at once: undisturbed, and while its event loop is held up again and again for up to 400 ms;
without a mixer and with one. At last it says a goodbye of a minute. typical_bot.md has the tables,
typical_bot.png one answer as it was heard. It takes a quarter of an hour.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import talking_bot
from conversation import BOTS, Conversation, built_as, converse
from fastapi import FastAPI
from listening import Played, compare
from local_services import LocalLLM, sentence
from loguru import logger
from matplotlib.figure import Figure
from measuring import machine
from pipecat.audio.mixers.base_audio_mixer import BaseAudioMixer
from pipecat.frames.frames import EndWorkerFrame, Frame, LLMContextFrame, TTSAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from player import RATE
from serving import serve_in_thread
from streamdouble.scenario import Hangup, Step, WaitFor

RATES = ((8000, 8000), (16000, 16000), (16000, 24000))
TTS = ("pipeline", "24 kHz", "resampled")
KINDS = tuple(product(RATES, TTS))
HOLD_UPS_MS = (0, 60, 120, 250, 400)
MIXED = KINDS[::4]  # with a mixer: nine bots that mix and are held up are too busy to answer
CLEAN, HELD_UP = 3, 2  # answers before the one in which TTS stalls; and while the loop is held up
APART_SECS = 0.23  # the calls of a batch
TOO_LATE_MS, TRIES = 30, 4  # of a caller, who is never held up: then the machine was, so again
PICTURED_MS, PICTURED = 120, ((16000, 24000), "24 kHz")
GOODBYE_SECS = 60

Batch = dict[tuple[tuple[int, int], str], Conversation]

HEAD = f"""# What callers of a typical bot hear

In ms, on {{machine}}; written by
`tox -e results`. Where there are three figures, TTS speaks at the pipeline's rate / at 24 kHz
whatever the pipeline / at 24 kHz and is resampled inside `TTSService`. Silence is that inside a
sentence of 1.4 s while the event loop is held up for so long, twice a second (400 ms: every 0.8 s).
TTS delivers a sentence in 0.4 s: while it is held up in that time, there is nothing to play for any
bot. The last columns are a speech-to-speech model at 24 kHz that hears the caller: how late in the
median and at worst, and how much is missing when the caller has stopped.

| rates, kHz | bot | first sound after TTS's first byte | cut off at the end | lost in mid-word \
when TTS stalls |{"".join(f" silence at {ms} ms |" for ms in HOLD_UPS_MS)} model hears, late \
| missing |
|---|---|{"---:|" * (len(HOLD_UPS_MS) + 5)}"""
MORE = f"""
Over all nine calls: how much longer than the call an `AudioBufferProcessor` behind the output
recorded, at worst. Over three calls with a mixer: how much longer than said a sentence was, in the
mean, by silence or by its background. And how much was heard, in s, of a goodbye of
{GOODBYE_SECS} s with `EndFrame` behind it.

| bot |{"".join(f" recorded at {ms} ms |" for ms in HOLD_UPS_MS)}\
{"".join(f" mixer at {ms} ms |" for ms in HOLD_UPS_MS)} goodbye |
|---|{"---:|" * (2 * len(HOLD_UPS_MS) + 1)}"""


class Silence(BaseAudioMixer):
    """A mixer whose background cannot be heard."""

    async def start(self, sample_rate: int) -> None: ...
    async def stop(self) -> None: ...
    async def process_frame(self, frame: Frame) -> None: ...

    async def mix(self, audio: bytes) -> bytes:
        return audio


class Recorder(AudioBufferProcessor):
    """Records a call; `errors_ms` says how much longer than the calls the recordings were."""

    errors_ms: list[float]

    async def start_recording(self) -> None:
        await super().start_recording()
        self._started = time.monotonic()

    async def stop_recording(self) -> None:
        if self.has_audio():
            secs = len(self.merge_audio_buffers()) / 2 / self.sample_rate
            self.errors_ms.append(1000 * (secs - (time.monotonic() - self._started)))
        await super().stop_recording()


class Goodbye(LocalLLM):
    """Answers with a goodbye, and ends the call behind it."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if not isinstance(frame, LLMContextFrame):
            await super().process_frame(frame, direction)
            return
        pcm = np.resize(sentence(24000, 0), GOODBYE_SECS * 24000).astype("<i2").tobytes()
        await self.push_frame(TTSAudioRawFrame(pcm, 24000, 1))
        await self.push_frame(EndWorkerFrame(), FrameDirection.UPSTREAM)


@contextmanager
def served(bot: str, app: FastAPI, *, mixer: bool = False, **names: Any) -> Iterator[Any]:
    """Serves a bot with a recorder, and with these in place of names of its module."""

    def params(**given: Any) -> FastAPIWebsocketParams:
        return FastAPIWebsocketParams(audio_out_mixer=Silence() if mixer else None, **given)

    def recorded(steps: list[Any]) -> Pipeline:
        return Pipeline([*steps[:-1], Recorder(auto_start_recording=True), steps[-1]])

    def end(*_: Any, **__: Any) -> Step:
        return Hangup() if mixer else WaitFor("quiet", 2 * GOODBYE_SECS)  # a mixer is never quiet

    Recorder.errors_ms = []
    with (
        patch.object(talking_bot.pipecat_transport, "FastAPIWebsocketParams", params),
        patch("conversation.WaitFor", end),
        patch.multiple(talking_bot, Pipeline=recorded, **names),
        built_as(bot) as serializer,
        serve_in_thread(app) as port,
    ):
        yield port, serializer


async def batch(bot: str, hold_up_ms: int, answers: int, mixer: bool) -> Batch:
    """Places a call for each pair of rates and kind of TTS; three of them with a mixer."""
    kinds = MIXED if mixer else KINDS
    app = talking_bot.create_app(hold_up_ms / 1000)
    with served(bot, app, mixer=mixer) as (port, serializer):

        async def one(number: int, rates: tuple[int, int], tts: str) -> Conversation:
            await asyncio.sleep(number * APART_SECS)
            built = {"serializer": serializer, "in_rate": rates[0], "out_rate": rates[1]}
            return await converse(port, app, answers, **built, tts=tts, stalls_from=CLEAN)

        calls = await asyncio.gather(*(one(number, *kind) for number, kind in enumerate(kinds)))
    return dict(zip(kinds, calls, strict=True))


def calm_batch(bot: str, hold_up_ms: int, *, mixer: bool = False) -> tuple[Batch, float]:
    """Places the calls again while the machine is late.

    Returns:
        Those that were the least late, and the largest error of their recorders, in ms.
    """
    answers = HELD_UP if hold_up_ms or mixer else CLEAN + 1
    tries: dict[float, tuple[Batch, float]] = {}
    for _ in range(TRIES):
        calls = asyncio.run(batch(bot, hold_up_ms, answers, mixer))
        late = max(call.log.lateness_ms() for call in calls.values())
        print(f"{bot}, {hold_up_ms} ms: callers up to {late:.0f} ms late", flush=True)
        if all(len(call.bot.said_at) >= answers for call in calls.values()):
            tries[late] = calls, max(Recorder.errors_ms, key=abs)
            if late <= TOO_LATE_MS:
                break
    if not tries:
        raise SystemExit("the machine is too busy: some questions were never answered")
    return tries[min(tries)]


def row(rates: tuple[int, int], bot: str, batches: list[Batch]) -> str:
    """Returns a line of the first table."""
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


def longer_ms(calls: Batch) -> float:
    """Returns how much longer than said the answers were heard, in the mean."""
    longer = []
    for answer in range(HELD_UP):
        said = sentence(RATE, answer)
        all_heard = [compare(said, Played(said, np.ones(len(said), bool)), 0)]
        all_heard += [call.answers()[answer] for call in calls.values()]
        itself, *secs = (heard.last_at - heard.first_at for heard in all_heard)
        longer += [1000 * (each - itself) for each in secs]
    return float(np.mean(longer))


async def goodbye_secs(bot: str) -> float:
    """Returns how much of the goodbye the caller hears."""
    app = talking_bot.create_app()
    with served(bot, app, LocalLLM=Goodbye) as (port, serializer):
        call = await converse(port, app, 1, serializer=serializer)
    return np.count_nonzero(call.played().is_playing) / RATE


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
    """Places all calls; writes the tables and the picture."""
    logger.remove()
    all_calls, rows = {}, {}
    for bot in BOTS:
        batches = [calm_batch(bot, ms) for ms in HOLD_UPS_MS]
        all_calls[bot] = [calls for calls, _ in batches]
        figures = [error for _, error in batches]
        figures += [longer_ms(calm_batch(bot, ms, mixer=True)[0]) for ms in HOLD_UPS_MS]
        cells = [*(f"{ms:.0f}" for ms in figures), f"{asyncio.run(goodbye_secs(bot)):.1f}"]
        rows[bot] = f"| {bot} | {' | '.join(cells)} |"
    lines = [HEAD.format(machine=machine())]
    lines += [row(rates, bot, all_calls[bot]) for rates in RATES for bot in BOTS]
    (folder / "typical_bot.md").write_text("\n".join([*lines, MORE, *rows.values(), ""]))
    pictured = HOLD_UPS_MS.index(PICTURED_MS)
    draw({bot: all_calls[bot][pictured][PICTURED] for bot in BOTS}, folder / "typical_bot.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
