"""The frames that Pipecat does not have."""

from dataclasses import dataclass

from pipecat.frames.frames import SystemFrame


@dataclass
class MarkFrame(SystemFrame):
    """A mark came back from Twilio: the audio before it was played, or was cleared.

    Parameters:
        name: The name that the bot gave the mark.
        stream_sid: The stream's SID.
        cleared: Whether an interruption cleared the audio before the mark. False: the caller has
            heard it.
    """

    name: str
    stream_sid: str = ""
    cleared: bool = False

    def __post_init__(self) -> None:
        # Pipecat gives every frame a name of its own.
        mark_name = self.name
        super().__post_init__()  # type: ignore[no-untyped-call]
        self._frame_name = self.name
        self.name = mark_name

    def __str__(self) -> str:
        return f"{self._frame_name}({self.name!r}, cleared: {self.cleared})"
