"""The frame type that Pipecat does not have."""

from dataclasses import dataclass

from pipecat.frames.frames import SystemFrame


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
