"""A call as it was heard: a stereo WAV file, the caller left and the bot right, and a picture."""

import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from caller import WireLog
from listening import Played, audio_in, play, samples_of
from player import RATE

GAP_SECS = 0.6  # between two sounds of the bot; a longer one is a pause in its speech
COLUMN = RATE // 50  # samples of sound in a line of the picture
PIXELS_A_SEC, LEG_PIXELS, ROW_PIXELS = 100, 80, 12
ROWS = 6  # of the events' labels, so that they do not cover each other
INTERRUPTION = "interruption"


def wav(caller: np.ndarray, bot: np.ndarray) -> bytes:
    """Returns two legs of as many samples as a stereo WAV file of 8 kHz and 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(np.stack([caller, bot], axis=1).astype("<i2").tobytes())
    return file.getvalue()


@dataclass
class Recording:
    """A call as it was heard, on a time axis in seconds since it began."""

    caller: np.ndarray
    bot: Played
    gaps: list[tuple[float, float]]  # begin and end; nothing to play inside the bot's speech
    events: list[tuple[float, str]]

    @classmethod
    def of(cls, log: WireLog) -> "Recording":
        """Returns the recording of a call."""
        begin, end = log.sent[0][0], log.sent[-1][0]
        bot = play(log.received, begin, end)
        edges = np.flatnonzero(np.diff(bot.is_playing.astype(int)))
        stops, starts = edges[1::2] / RATE, edges[2::2] / RATE  # it begins with silence
        names = [(at - begin, name_of(message)) for at, message in [*log.sent, *log.received]]
        cleared = np.array([at for at, name in names if name == INTERRUPTION])
        said = audio_in(log.sent)  # without a break from the first message on
        first = round((said[0][0] - begin) * RATE) if said else 0
        samples = samples_of(b"".join(piece for _, piece in said))
        return cls(
            caller=np.pad(samples, (first, len(bot.samples)))[: len(bot.samples)],
            bot=bot,
            gaps=[
                (stop, start)
                for stop, start in zip(stops, starts, strict=False)
                if start - stop < GAP_SECS and not np.any((stop <= cleared) & (cleared < start))
            ],
            events=sorted((at, name) for at, name in names if name),
        )

    def save(self, stem: Path) -> Path:
        """Writes STEM.wav and STEM.svg; returns the picture's path."""
        stem.with_suffix(".wav").write_bytes(wav(self.caller, self.bot.samples))
        picture = stem.with_suffix(".svg")
        picture.write_text(self.svg(stem.name))
        return picture

    def svg(self, title: str) -> str:
        """Returns the picture: the caller above, the bot below, gaps red, events as lines."""
        bottom = 20 + 2 * LEG_PIXELS
        secs = len(self.caller) / RATE
        width, height = secs * PIXELS_A_SEC + 100, bottom + 20 + ROW_PIXELS * (ROWS + 1)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}"'
            ' font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="10" y="14">{escape(title)}: caller above, bot below as it was played; red: '
            "a gap in the bot's speech</text>",
        ]
        parts += [
            f'<rect x="{x(begin):.1f}" y="{20 + LEG_PIXELS}" height="{LEG_PIXELS}" '
            f'width="{x(end) - x(begin):.1f}" fill="#d62728" fill-opacity="0.4"/>'
            for begin, end in self.gaps
        ]
        for leg, samples, color in (0, self.caller, "#555"), (1, self.bot.samples, "#1f77b4"):
            parts.append(f'<path stroke="{color}" stroke-width="1.6" d="{outline(samples, leg)}"/>')
        for number, (at, name) in enumerate(self.events):
            end = bottom + 20 + ROW_PIXELS * (number % ROWS + 1)
            parts.append(
                f'<path stroke="#2ca02c" d="M{x(at):.1f} 20V{end}"/>'
                f'<text x="{x(at) + 2:.1f}" y="{end}">{escape(name)}</text>'
            )
        parts += [
            f'<text x="{x(second):.0f}" y="{bottom + 14}">{second} s</text>'
            for second in range(int(secs) + 1)
        ]
        return "\n".join([*parts, "</svg>\n"])


def name_of(message: dict[str, Any]) -> str:
    """Returns what the picture calls a message; nothing for those that it does not show."""
    match message:
        case {"event": "mark", "mark": {"name": name}}:
            # Twilio numbers what it sends.
            return f"mark {name[:20]} {'back' if 'sequenceNumber' in message else 'set'}"
        case {"event": "dtmf", "dtmf": {"digit": digit}}:
            return f"pressed {digit}"
        case {"event": "clear"}:
            return INTERRUPTION
    return ""


def x(secs: float) -> float:
    """Returns where in the picture a time is, in pixels."""
    return 10 + secs * PIXELS_A_SEC


def outline(samples: np.ndarray, leg: int) -> str:
    """Returns a vertical line for each column of sound, from its lowest sample to its highest."""
    columns = samples[: len(samples) // COLUMN * COLUMN].reshape(-1, COLUMN) / 32768
    middle, scale = 20 + LEG_PIXELS * (leg + 0.5), LEG_PIXELS / 2
    return "".join(
        f"M{x(number * COLUMN / RATE):.1f} {middle - scale * column.max():.1f}"
        f"V{middle - scale * column.min() + 0.5:.1f}"
        for number, column in enumerate(columns)
    )
