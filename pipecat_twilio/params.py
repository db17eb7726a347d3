"""The parameters of a serializer."""

from collections.abc import Callable
from typing import Annotated, Any

from pipecat.serializers.base_serializer import FrameSerializer
from pydantic import Field, PlainSerializer, WithJsonSchema

from pipecat_twilio.twilio.call_report import CallReport
from pipecat_twilio.twilio.messages import MAX_MESSAGE_BYTES

_Callback = Annotated[  # null in JSON, which has no functions
    Callable[[CallReport], object] | None,
    PlainSerializer(lambda _callback: None, when_used="json"),
    WithJsonSchema({"type": "null"}),
]


class TwilioInputParams(FrameSerializer.InputParams):
    """The parameters of a serializer; Pipecat's own `InputParams` are accepted too.

    Parameters:
        twilio_sample_rate: Rate of the audio on Twilio's side, in Hz.
        sample_rate: Rate of the audio given to the pipeline, in Hz; None takes the pipeline's
            `audio_in_sample_rate`.
        auto_hang_up: Whether to end the call on `EndFrame` and `CancelFrame`.
        resampler_clear_after_secs: A pause after which the filter forgets its history; None: never.
        hang_up_timeout_secs: Limit for ending the call with its retries, and then for
            `on_call_report`.
        hang_up_drain_secs: How long an `EndFrame` waits, at most, for Twilio to play the last
            words.
        max_message_bytes: A longer message from Twilio is dropped before it is parsed.
        input_frame_secs: How much of the caller's audio makes a frame, 0.02 to 1. With the
            default, each message is a frame. Longer frames are fewer, but come later.
        on_call_report: Called once with the `CallReport` when the call has ended; it may be a
            coroutine function. It is cancelled when it takes longer than `hang_up_timeout_secs`.
    """

    twilio_sample_rate: int = Field(default=8000, gt=0)
    sample_rate: int | None = Field(default=None, gt=0)
    auto_hang_up: bool = True
    resampler_clear_after_secs: float | None = Field(default=0.2, ge=0)
    hang_up_timeout_secs: float = Field(default=5.0, gt=0)
    hang_up_drain_secs: float = Field(default=2.0, ge=0)
    max_message_bytes: int = Field(default=MAX_MESSAGE_BYTES, gt=0)
    input_frame_secs: float = Field(default=0.02, ge=0.02, le=1)
    on_call_report: _Callback = None


# For params objects that lack a field, such as Pipecat's own.
DEFAULTS: dict[str, Any] = {n: f.default for n, f in TwilioInputParams.model_fields.items()}

# The longest lead: Pipecat's idle timer sees the bot speak when audio is sent, not when heard.
MAX_LEAD_SECS = 2


def check_lead_secs(lead_secs: float) -> None:
    """Raises ValueError if the audio to keep in Twilio's buffer is not from 0 to 2 s."""
    if not isinstance(lead_secs, int | float) or not 0 <= lead_secs <= MAX_LEAD_SECS:
        raise ValueError(f"lead_secs must be from 0 to {MAX_LEAD_SECS}, got {lead_secs!r}")
