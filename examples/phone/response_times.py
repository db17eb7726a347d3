"""How long the bot takes to answer: from the end of the caller's speech to its first sound."""

import numpy as np

STEP_MS = 20
LOUD = 300  # root mean square of a step, -41 dBFS: below speech, above the hiss of a microphone
MIN_SPEECH_STEPS = 5  # a shorter noise, such as a click, asks for no answer
PAUSE_STEPS = 10  # of quiet, 0.2 s: the pauses inside a word are shorter


class ResponseTimes:
    """Listens to both legs, step by step.

    An answer is a sound of the bot's after `PAUSE_STEPS` of its own silence, when the caller has
    spoken and is quiet. Only if he stays quiet for `PAUSE_STEPS` had he come to an end: a bot
    that talks into the pauses of his words, as an echo does, has not answered.
    """

    def __init__(self) -> None:
        self.delays_ms: list[int] = []
        self._step = 0
        self._speech_steps = 0  # loud ones since the last answer
        self._speech_end = 0  # the step after the caller's last loud one
        self._bot_end = -PAUSE_STEPS  # the same of the bot
        self._answered_at: int | None = None  # until it is known that the caller stays quiet

    def add(self, caller: np.ndarray, bot: np.ndarray) -> int | None:
        """Takes the next step of both legs; returns an answer's delay in ms when it is known."""
        step = self._step
        self._step += 1
        if is_loud(caller):
            self._speech_steps += 1
            self._speech_end = step + 1
            self._answered_at = None
        if is_loud(bot):
            begins = step - self._bot_end >= PAUSE_STEPS
            self._bot_end = step + 1
            if begins and self._speech_end <= step and self._speech_steps >= MIN_SPEECH_STEPS:
                self._answered_at = step
        if self._answered_at is None or self._step - self._speech_end < PAUSE_STEPS:
            return None
        self.delays_ms.append((self._answered_at - self._speech_end) * STEP_MS)
        self._answered_at = None
        self._speech_steps = 0
        return self.delays_ms[-1]


def is_loud(samples: np.ndarray) -> bool:
    """Tells whether a step of samples has sound in it."""
    return float(samples @ samples) > LOUD**2 * len(samples)
