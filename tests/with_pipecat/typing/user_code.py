"""Code as users of the package write it: type checkers check it, nothing runs it."""

from array import array

from pipecat.frames.frames import Frame, OutputTransportMessageFrame

from pipecat_twilio import (
    SincResampler,
    TwilioFrameSerializer,
    install,
    is_valid_signature,
    messages,
    ulaw,
    uninstall,
)


class Recording(TwilioFrameSerializer):
    """A subclass that records frames, and ends calls in its own way."""

    def __init__(self, stream_sid: str) -> None:
        """Prepares an empty recording."""
        params = self.InputParams(auto_hang_up=False, hang_up_drain_secs=1.5)
        super().__init__(stream_sid, params=params)
        self.recorded: list[Frame] = []

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """Keeps the frame."""
        frame = await super().deserialize(data)
        if frame is not None:
            self.recorded.append(frame)
        return frame

    async def _hang_up_call(self) -> None:
        self.recorded.clear()


def convert(pcm: bytes | bytearray | memoryview, samples: "array[int]") -> bytes:
    """Uses the codec and the resampler with any buffer."""
    resampler = SincResampler(24000, 8000, clear_after_secs=None, num_zeros=16)
    out: bytes = resampler.process(pcm) + resampler.process(samples, 1.5) + resampler.flush()
    delay: float = resampler.delay_secs
    resampler.reset()
    return ulaw.decode(ulaw.encode(out)) if delay else b""


def use(form: dict[str, list[str]]) -> OutputTransportMessageFrame:
    """Checks a webhook, replaces Pipecat's class and undoes that, and builds a mark."""
    is_valid: bool = is_valid_signature("token", "https://example.com/", "signature", form)
    install(serializer=is_valid)
    uninstall()
    return OutputTransportMessageFrame(message=messages.mark("MZ1", "heard"))
