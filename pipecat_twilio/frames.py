"""What Pipecat's frames lack: a mark that came back, and when a frame is heard."""

from dataclasses import dataclass
from math import inf
from time import monotonic

from pipecat.frames.frames import Frame, OutputAudioRawFrame, SystemFrame

HEARD_AT = "heard_at"  # in a frame's metadata: the monotonic time when the caller hears it begin


@dataclass
class MarkFrame(SystemFrame):
    """Twilio has sent a mark back: the audio before it was played or cleared.

    Parameters:
        name: The mark's name, which the bot chose.
        stream_sid: The stream's SID.
        cleared: True if an interruption cleared audio before the mark; False if the caller has
            heard it all.
    """

    name: str
    stream_sid: str = ""
    cleared: bool = False

    def __post_init__(self) -> None:
        mark_name = self.name
        super().__post_init__()  # type: ignore[no-untyped-call]  # sets the frame's own name
        self._frame_name, self.name = self.name, mark_name

    def __str__(self) -> str:
        return f"{self._frame_name}({self.name!r}, cleared: {self.cleared})"


def duration_secs(frame: OutputAudioRawFrame) -> float:
    """Returns how long audio takes to play."""
    return len(frame.audio) / (2 * frame.num_channels * frame.sample_rate)


def heard_at(frame: Frame) -> float:
    """Returns when the caller hears a frame begin; long ago if it has no such time."""
    return float(frame.metadata.get(HEARD_AT, -inf))


def unplayed_secs(frame: OutputAudioRawFrame) -> float:
    """Returns how much time is left until audio that was sent has been played."""
    return max(0.0, heard_at(frame) + duration_secs(frame) - monotonic())
