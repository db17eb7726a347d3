"""Saves a call: both sides as a stereo WAV file, and a picture of them."""

import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from caller import WireLog
from listening import RATE, Played, audio_in, play

from pipecat_twilio import ulaw

GAP_SECS = 0.6  # between two sounds of the bot; a longer one is a pause in its speech
COLUMN_SECS = 0.02  # of sound in a line of the picture
PIXELS_A_SEC, LEG_PIXELS, ROW_PIXELS, LETTER_PIXELS = 100, 80, 12, 6
INTERRUPTION = "interruption"
FULL_SCALE = 32768


@dataclass
class Recording:
    """A call as it was heard, on a time axis in seconds since it began.

    Parameters:
        caller: Samples of what the caller said.
        bot: What Twilio played of the bot.
        gaps: Begin and end of each gap, where Twilio had nothing to play inside the bot's speech.
        events: When something else happened, and what.
    """

    caller: np.ndarray
    bot: Played
    gaps: list[tuple[float, float]]
    events: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def of(cls, log: WireLog) -> "Recording":
        """Returns the recording of a call."""
        begin, end = log.sent[0][0], log.sent[-1][0]
        bot = play(log.received, begin, end)
        edges = np.flatnonzero(np.diff(bot.is_playing.astype(int)))
        stops, starts = edges[1::2] / RATE, edges[2::2] / RATE  # it begins with silence
        events = [
            *((at - begin, name_of(message, "back")) for at, message in log.sent),
            *((at - begin, name_of(message, "set")) for at, message in log.received),
        ]
        cleared = np.array([at for at, name in events if name == INTERRUPTION])
        return cls(
            caller=spoken(log, begin, len(bot.samples)),
            bot=bot,
            gaps=[
                (stop, start)
                for stop, start in zip(stops, starts, strict=False)
                if start - stop < GAP_SECS and not np.any((stop <= cleared) & (cleared < start))
            ],
            events=sorted((at, name) for at, name in events if name),
        )

    def save(self, stem: Path) -> None:
        """Writes STEM.wav, the caller left and the bot right, and STEM.svg."""
        both = np.stack([self.caller, self.bot.samples], axis=1)
        with wave.open(str(stem.with_suffix(".wav")), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(both.astype("<i2").tobytes())
        stem.with_suffix(".svg").write_text(self.svg(stem.name))

    def svg(self, title: str) -> str:
        """Returns the picture: the caller above, the bot below, gaps red, events as lines."""
        secs = len(self.caller) / RATE
        bottom = 20 + 2 * LEG_PIXELS
        labels, rows = labelled(self.events)
        width, height = secs * PIXELS_A_SEC + 100, bottom + 20 + ROW_PIXELS * (rows + 1)
        size = f'width="{width:.0f}" height="{height}"'
        legend = "caller above, bot below as it was played; red: a gap in the bot's speech"
        font = 'font-family="sans-serif" font-size="11"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="10" y="14">{title}: {legend}</text>',
        ]
        parts += [
            f'<rect x="{x(begin):.1f}" y="{20 + LEG_PIXELS}" height="{LEG_PIXELS}" '
            f'width="{x(end) - x(begin):.1f}" fill="#d62728" fill-opacity="0.4"/>'
            for begin, end in self.gaps
        ]
        for leg, (samples, color) in enumerate(
            ((self.caller, "#555"), (self.bot.samples, "#1f77b4"))
        ):
            parts.append(f'<path stroke="{color}" stroke-width="1.6" d="{outline(samples, leg)}"/>')
        for at, name, row in labels:
            end = bottom + 20 + ROW_PIXELS * (row + 1)
            parts.append(
                f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="20" y2="{end}" stroke="#2ca02c"/>'
                f'<text x="{x(at) + 2:.1f}" y="{end}">{escape(name)}</text>'
            )
        parts += [
            f'<text x="{x(second):.0f}" y="{bottom + 14}">{second} s</text>'
            for second in range(int(secs) + 1)
        ]
        return "\n".join([*parts, "</svg>\n"])


def spoken(log: WireLog, begin: float, length: int) -> np.ndarray:
    """Returns what the caller said: without a break from the first message on."""
    pieces = audio_in(log.sent)
    pcm = ulaw.decode(b"".join(piece for _, piece in pieces))
    first = round((pieces[0][0] - begin) * RATE) if pieces else 0
    return np.pad(np.frombuffer(pcm, "<i2"), (first, length))[:length].astype(float)


def name_of(message: dict[str, Any], where_to: str) -> str:
    """Returns what the picture calls a message; nothing for those that it does not show."""
    event = message["event"]
    if event == "mark":
        return f"mark {message['mark']['name'][:20]} {where_to}"
    if event == "dtmf":
        return f"pressed {message['dtmf']['digit']}"
    return INTERRUPTION if event == "clear" else ""


def labelled(events: list[tuple[float, str]]) -> tuple[list[tuple[float, str, int]], int]:
    """Gives each event a row for its label, so that no label covers another; counts the rows."""
    ends: list[float] = []  # of the last label in each row
    labels = []
    for at, name in events:
        row = next((row for row, end in enumerate(ends) if end < x(at)), len(ends))
        ends[row:] = [x(at) + LETTER_PIXELS * (len(name) + 1), *ends[row + 1 :]]
        labels.append((at, name, row))
    return labels, len(ends)


def x(secs: float) -> float:
    """Returns where in the picture a time is, in pixels."""
    return 10 + secs * PIXELS_A_SEC


def outline(samples: np.ndarray, leg: int) -> str:
    """Returns a vertical line for each column of sound, from its lowest sample to its highest."""
    size = round(COLUMN_SECS * RATE)
    columns = samples[: len(samples) // size * size].reshape(-1, size)
    middle = 20 + LEG_PIXELS * (leg + 0.5)
    scale = LEG_PIXELS / 2 / FULL_SCALE
    return "".join(
        f"M{x(number * COLUMN_SECS):.1f} {middle - scale * column.max():.1f}"
        f"V{middle - scale * column.min() + 0.5:.1f}"
        for number, column in enumerate(columns)
    )
