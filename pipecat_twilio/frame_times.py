"""What the transport asks of a frame: when it is heard, for how long, and if it is speech."""

from math import inf
from time import monotonic
from typing import TypeGuard

from pipecat.frames.frames import Frame, OutputAudioRawFrame

HEARD_AT = "heard_at"  # in a frame's metadata: the monotonic time when the caller hears it begin


def duration_secs(frame: OutputAudioRawFrame) -> float:
    """Returns how long audio takes to play."""
    return len(frame.audio) / (2 * frame.num_channels * frame.sample_rate)


def is_speech(frame: Frame) -> TypeGuard[OutputAudioRawFrame]:
    """Whether a frame is audio of another type than a mixer's background."""
    return isinstance(frame, OutputAudioRawFrame) and type(frame) is not OutputAudioRawFrame


def heard_at(frame: Frame) -> float:
    """Returns when the caller hears a frame begin; long ago if it has no such time."""
    return float(frame.metadata.get(HEARD_AT, -inf))


def remaining_secs(frame: OutputAudioRawFrame) -> float:
    """Returns how much time is left until audio that was sent has been played."""
    return max(0.0, heard_at(frame) + duration_secs(frame) - monotonic())
