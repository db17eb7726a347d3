"""Conversations with the talking bot and their results, for the demo and the benchmark."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from caller import WireLog, place_call
from dialing import ACCOUNT_SID
from fastapi import FastAPI
from listening import SPEECH, STEP, Heard, Played, audio_in, compare, play, resampled, samples_of
from local_services import MODEL_RATE, sentence
from player import RATE
from streamdouble import audio
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Say, Scenario, Step, Wait, WaitFor
from talking_bot import Bot

from pipecat_twilio import install, uninstall

BOTS = ("Pipecat's", "one import swapped", "everything installed")
QUESTION_FRAMES = slice(44, 86)  # of speech.wav, 20 ms each: "Can you hear me"
TURN_SECS = 3.0  # from the end of a question to the next one, time for the answer included


@contextmanager
def built_as(name: str) -> Iterator[str]:
    """Yields the `serializer` of the bot with this name; calls `install` if that bot needs it."""
    if name == BOTS[2]:
        install()
    try:
        yield "ours" if name == BOTS[1] else "pipecat"
    finally:
        uninstall()


@dataclass
class Conversation:
    """A call and the bot that took it."""

    log: WireLog
    bot: Bot

    def __post_init__(self) -> None:
        self.begin = self.log.sent[0][0]  # when the call began

    def played(self) -> Played:
        """Returns what the caller heard."""
        end = max(at for at, _ in self.log.sent)
        return play(self.log.received, self.begin, end)

    def answers(self) -> list[Heard]:
        """Returns what was heard of each answer; times count from TTS's first byte."""
        played, heard = self.played(), []
        for answer, at in enumerate(self.bot.said_at):
            result = compare(sentence(RATE, answer), played, at - self.begin)
            result.first_at -= at - self.begin
            result.last_at -= at - self.begin
            heard.append(result)
        return heard

    def model_hearing_ms(self) -> tuple[float, float, float]:
        """Tells when the speech-to-speech model hears the caller.

        Returns:
            How much later than it was sent, in the median and at worst; and how much of what was
            said is not there when the caller has stopped.
        """
        sent, given = audio_in(self.log.sent), self.bot.model_heard
        said = samples_of(b"".join(piece for _, piece in sent))
        pcm = np.frombuffer(b"".join(piece for _, piece in given), "<i2").astype(float)
        heard = resampled(pcm, MODEL_RATE, RATE)
        size = 2 * max(len(said), len(heard))
        products = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(said, size).conj(), size)
        shift = int(np.argmax(products[:RATE]))
        ends = STEP * np.flatnonzero(loudness(said) > 100) + STEP
        sent_at = arrivals(sent, 1, ends)
        late = arrivals(given, 2 * MODEL_RATE / RATE, ends + shift) - sent_at
        stops = sent_at[np.append(np.diff(ends) > RATE, True)]  # the last step of each question
        missing = [
            STEP * np.count_nonzero((sent_at <= stop) & (sent_at + late > stop + 0.02))
            for stop in stops
        ]
        return 1000 * np.median(late), 1000 * late.max(), 1000 / RATE * np.mean(missing)


def loudness(samples: np.ndarray) -> np.ndarray:
    """Returns the root mean square of each 10 ms."""
    return np.sqrt(np.mean(samples[: len(samples) // STEP * STEP].reshape(-1, STEP) ** 2, axis=1))


def arrivals(
    pieces: list[tuple[float, bytes]], bytes_a_sample: float, samples: np.ndarray
) -> np.ndarray:
    """Returns the time at which each of these numbers of samples had arrived."""
    total = np.cumsum([len(piece) for _, piece in pieces]) / bytes_a_sample
    times = np.array([at for at, _ in pieces])
    return times[np.minimum(np.searchsorted(total, samples), len(times) - 1)]


async def converse(port: int, app: FastAPI, answers: int, **parameters: object) -> Conversation:
    """Calls the talking bot, and asks for that many answers; see `Bot` for parameters."""
    question = Say(Path("-"), audio.wav_to_ulaw_frames(SPEECH)[QUESTION_FRAMES])
    turns: list[Step] = [question, Wait(TURN_SECS)] * answers
    # A busy machine takes longer; the bot has said everything when it was quiet for a second.
    steps = [Wait(0.5), *turns, WaitFor("quiet", timeout_s=60)]
    identity = StreamIdentity(account_sid=ACCOUNT_SID)
    url, scenario = f"ws://127.0.0.1:{port}/", Scenario("ask", steps)
    log, _ = await place_call(url, scenario, identity, **parameters)
    return Conversation(log, app.state.bots[identity.call_sid])
