"""Compares what a listener heard with what was said: the delay, the loss, and the silences.

Twilio plays what it is sent in order, each piece when it is there and its turn. `play` does the
same with the messages of a call. `find` looks for every 10 ms of what was said in what was played,
by its sound.
"""

import itertools
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from player import RATE, Player

from pipecat_twilio import ulaw

# Made with flite, whose voices and output are free of restrictions, by
# flite -voice slt -t "Hello. Can you hear me, to the very last word?" -o speech.wav
SPEECH = Path(__file__).parent / "speech.wav"
STEP, WINDOW = 80, 240  # samples
SEARCH_SECS = 1.5  # how much later, beyond its own time, a sound may come than the one before it
ALIKE = 0.9  # a correlation: the same sound is above 0.95, other ones below 0.85
FAINT = 0.01  # a share of power
QUIET, LOST = -1, -2  # instead of a place
BAND_HZ = 3200  # all filters on the way agree on what is below

Messages = list[tuple[float, dict[str, Any]]]
Pieces = list[tuple[float, bytes]]


def audio_in(log: Messages, until: float = float("inf")) -> Pieces:
    """Returns the mu-law of the media messages before `until`, each with its time."""
    return [
        (at, b64decode(message["media"]["payload"]))
        for at, message in log
        if message["event"] == "media" and at < until
    ]


@dataclass
class Played:
    """What Twilio played of a call, on a time axis that begins with the call."""

    samples: np.ndarray  # what the caller heard; silence where there was nothing to play
    is_playing: np.ndarray  # for each sample, whether there was something to play


def play(log: Messages, start: float, end: float) -> Played:
    """Plays the media messages from `start` to `end`, in seconds, as Twilio does."""
    player = Player(start)
    for at, message in log:
        if message["event"] == "clear":
            player.clear(at)
        elif message["event"] == "media":
            player.add(b64decode(message["media"]["payload"]), at)
    played, is_playing = player.take(round((end - start) * RATE))
    return Played(samples_of(played), np.frombuffer(is_playing, bool))


def samples_of(codes: bytes) -> np.ndarray:
    """Returns the samples of mu-law."""
    return np.frombuffer(ulaw.decode(codes), "<i2").astype(float)


def resampled(samples: np.ndarray, in_rate: int, out_rate: int) -> np.ndarray:
    """Returns samples at another rate, as exactly as a Fourier transform of all of them can."""
    count = len(samples) * out_rate // in_rate
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(count // 2 + 1, complex)
    both = min(len(kept), len(spectrum))
    kept[:both] = spectrum[:both]
    return np.fft.irfft(kept, count) * (count / len(samples))


def flattened(samples: np.ndarray) -> np.ndarray:
    """Returns what is below BAND_HZ; high tones are raised, so that sounds differ more."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.fft.irfft(spectrum * frequencies * (frequencies < BAND_HZ), len(samples))


def find(said: np.ndarray, heard: np.ndarray, begin: int) -> np.ndarray:
    """Looks for what was said in what was heard from the sample `begin` on.

    Every 10 ms belong to windows of 30 ms, each of which has to correlate with what was heard, at
    a later place than the one before it.

    Returns:
        For each 10 ms of `said` the sample of `heard` at which it begins; QUIET for what is not
        looked for, LOST for what is not there.
    """
    said, heard = flattened(said), flattened(heard)
    windows = np.lib.stride_tricks.sliding_window_view(said, WINDOW)[::STEP]
    energies = np.sum(windows.reshape(len(windows), 4, -1) ** 2, axis=2)
    totals = np.sum(energies, axis=1)
    # A window with all of its sound at one end would also match the beginning of another word.
    has_sound = (totals > FAINT * totals.max()) & (energies.min(axis=1) > FAINT * totals)
    power = np.cumsum(np.r_[0, heard**2])
    places = np.full(len(windows) + WINDOW // STEP - 1, QUIET)
    for number in np.flatnonzero(has_sound):
        covered = slice(number, number + WINDOW // STEP)
        found = np.flatnonzero(places[:number] >= 0)
        missing = 0
        if len(found):
            begin = places[found[-1]] + 1
            missing = number - found[-1]
        end = begin + missing * STEP + round(SEARCH_SECS * RATE)
        place, alike = best_match(windows[number], heard[begin:end], power[begin:])
        if alike > ALIKE:
            places[covered] = begin + place + STEP * np.arange(WINDOW // STEP)
        else:
            places[covered] = np.where(places[covered] == QUIET, LOST, places[covered])
    return places


def best_match(window: np.ndarray, heard: np.ndarray, power: np.ndarray) -> tuple[int, float]:
    """Returns where a window is in `heard`, and its correlation with what is there.

    `power` is the sum of the squares of all samples before each one of `heard`.
    """
    count = len(heard) - len(window) + 1
    if count < 1:
        return 0, 0.0
    size = 1 << len(heard).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.fft.rfft(window, size).conj()
    energy = np.sum(window**2)
    own = np.maximum(power[len(window) :][:count] - power[:count], FAINT * energy)
    alike = np.fft.irfft(spectrum, size)[:count] / np.sqrt(energy * own)
    place = int(np.argmax(alike))
    return place, float(alike[place])


@dataclass
class Heard:
    """What a caller heard of something that was said; nan if it was nothing at all."""

    first_at: float  # when the first sound was played, in seconds since the call began
    last_at: float  # when the last sound had been played
    lost_ms: float  # before the last sound, never played
    cut_ms: float  # after the last sound, never played
    silence_ms: float  # between the first sound and the last, where there was nothing to play


def compare(said: np.ndarray, played: Played, begin_secs: float) -> Heard:
    """Tells what was heard of `said`, which began to be said at `begin_secs` of the call."""
    places = find(said, played.samples, round(begin_secs * RATE))
    there = np.flatnonzero(places >= 0)
    if not len(there):
        return Heard(*[float("nan")] * 5)
    first, last = places[there[0]], places[there[-1]] + STEP
    # Where some steps are not there: what was said meanwhile, less what was played meanwhile.
    played_before = np.cumsum(np.r_[0, played.is_playing])
    lost = 0
    for one, next_one in itertools.pairwise(there):
        if np.any(places[one + 1 : next_one] == LOST):
            meanwhile = played_before[places[next_one]] - played_before[places[one]]
            lost += max(0, (next_one - one) * STEP - meanwhile)
    cut = STEP * np.count_nonzero(places[there[-1] :] == LOST)
    quiet = int(np.argmax(places != QUIET)) * STEP  # at the beginning
    silence = np.count_nonzero(~played.is_playing[first:last])
    return Heard(
        first_at=float(first - quiet) / RATE,
        last_at=float(last) / RATE,
        lost_ms=1000 * lost / RATE,
        cut_ms=1000 * cut / RATE if cut > STEP else 0.0,  # it is no more exact than that
        silence_ms=1000 * silence / RATE,
    )
