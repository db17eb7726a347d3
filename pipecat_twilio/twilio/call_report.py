"""What happened in a call, as the bot sees it: `CallRecord` is updated, `CallReport` shows it.

Every `now` is a time in seconds on one monotonic clock.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from statistics import median
from typing import Any

MIN_GAP_SECS = 0.02  # a shorter break is within the jitter of the network
MAX_GAP_SECS = 1.0  # a longer break is a pause between two answers


@dataclass(frozen=True)
class CallReport:
    """What happened in a call so far.

    Parameters:
        stream_sid: The stream's SID.
        call_sid: The call's SID; empty if the serializer does not know it.
        caller_secs: How much of the caller's audio came in.
        bot_secs: How much of the bot's audio was sent.
        first_audio_secs: From the start of the stream to the bot's first audio; None if none.
        answers: How often the bot spoke after the caller had. This and the next two are measured
            by `TwilioTransport` in a pipeline with VAD.
        answer_secs: Median time from the end of the caller's speech until the bot was heard; None
            if there is none.
        worst_answer_secs: The longest of these times; None if there is none.
        gaps: How often Twilio had played everything while the bot had more to say.
        gap_secs: The sum of those gaps.
        longest_silence_secs: The longest time without audio from Twilio.
        interruptions: How often the bot's audio was cleared.
        dropped: How many messages and frames could not be used, by reason.
        marks_played: How many marks came back because the audio before them was played.
        marks_cleared: How many came back because it was cleared.
        ended_by: `stop` (Twilio ended the stream), `hand_off()`, the type of the pipeline's last
            frame, `disconnect` (the socket closed without a `stop`), or `server stopped`; empty
            while the call goes on.
        rest_answer: The answer to the hang-up over REST; empty if there was none.
    """

    stream_sid: str
    call_sid: str
    caller_secs: float
    bot_secs: float
    first_audio_secs: float | None
    answers: int
    answer_secs: float | None
    worst_answer_secs: float | None
    gaps: int
    gap_secs: float
    longest_silence_secs: float
    interruptions: int
    dropped: Mapping[str, int]
    marks_played: int
    marks_cleared: int
    ended_by: str
    rest_answer: str

    def __str__(self) -> str:
        texts = {n: f"{v:.2f}" if isinstance(v, float) else str(v) for n, v in vars(self).items()}
        # A stranger who opened the socket may have made up the SIDs.
        safe = {n: text if text.isprintable() else ascii(text) for n, text in texts.items()}
        told = (f"{n} {t:.300}" for n, t in safe.items() if t not in ("", "None", "{}"))
        return ", ".join(told)


@dataclass(slots=True)
class CallRecord:
    """The counts of a call, written as it goes on."""

    started_at: float = inf
    first_audio_at: float = inf
    last_message_at: float = inf
    longest_silence_secs: float = 0.0
    caller_secs: float = 0.0
    bot_secs: float = 0.0
    caller_stopped_at: float | None = None  # and the bot has not answered since
    answer_times: list[float] = field(default_factory=list)
    gaps: int = 0
    gap_secs: float = 0.0
    speech_is_over: bool = True
    interruptions: int = 0
    marks_played: int = 0
    marks_cleared: int = 0
    ended_by: str = ""
    rest_answer: str = ""
    dropped: Counter[str] = field(default_factory=Counter)

    def heard(self, secs: float, stream_secs: float, now: float) -> None:
        """Records seconds of the caller's audio; `stream_secs` is the stream's own time."""
        self.caller_secs += secs
        if self.first_audio_at == inf:  # the message with the least delay has the best estimate
            self.started_at = min(self.started_at, now - stream_secs)
        self.longest_silence_secs = max(self.longest_silence_secs, now - self.last_message_at)
        self.last_message_at = now

    def said(self, secs: float, empty_secs: float, now: float) -> None:
        """Records seconds of the bot's audio; the buffer had been empty for `empty_secs`."""
        self.bot_secs += secs
        if self.first_audio_at == inf:
            self.first_audio_at = now
        elif MIN_GAP_SECS < empty_secs < MAX_GAP_SECS and not self.speech_is_over:
            self.gaps += 1
            self.gap_secs += empty_secs
        self.speech_is_over = False

    def answered(self, heard_at: float) -> None:
        """Records when the caller hears the bot, which may be an answer."""
        if self.caller_stopped_at is not None:
            self.answer_times.append(heard_at - self.caller_stopped_at)
            self.caller_stopped_at = None

    def end(self, ended_by: str, now: float, *, counts_silence: bool) -> None:
        """Records what ended the call; `counts_silence` if the socket was read until then."""
        if counts_silence:
            self.longest_silence_secs = self._silence_secs(now)
        self.ended_by = ended_by

    def _silence_secs(self, now: float) -> float:
        """Returns the longest silence, with the one that goes on unless the call has ended."""
        silence_secs = 0.0 if self.ended_by else now - self.last_message_at
        return max(self.longest_silence_secs, silence_secs)

    def report(self, stream_sid: str, call_sid: str, now: float) -> CallReport:
        """Returns what happened so far."""
        same = {f.name: getattr(self, f.name) for f in fields(CallReport) if hasattr(self, f.name)}
        first_secs = self.first_audio_at - self.started_at
        own: dict[str, Any] = {
            "stream_sid": stream_sid,
            "call_sid": call_sid,
            "first_audio_secs": None if self.first_audio_at == inf else max(0.0, first_secs),
            "answers": len(self.answer_times),
            "answer_secs": median(self.answer_times) if self.answer_times else None,
            "worst_answer_secs": max(self.answer_times, default=None),
            "longest_silence_secs": self._silence_secs(now),
            "dropped": dict(self.dropped),
        }
        return CallReport(**same | own)
