"""Pipecat's FastAPI WebSocket transport, paced by what Twilio has yet to play.

The two halves are in `input_transport` and `output_transport`. Both replace parts of Pipecat's, so
this module checks that the release has those parts.
"""

import inspect
from typing import Any

from pipecat import version
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketOutputTransport,
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)

from pipecat_twilio.input_transport import TwilioInputTransport
from pipecat_twilio.output_transport import TwilioOutputTransport
from pipecat_twilio.queues import AUDIO_QUEUE, EVENTS, PROCESS_FRAME, QUEUES, SENDERS

MAX_LEAD_SECS = 60
"""No stall lasts longer than this, and an interruption throws away all that was sent ahead."""


def check_lead_secs(lead_secs: float) -> None:
    """Checks a lead.

    Raises:
        ValueError: It is not from 0 to 60.
    """
    if not isinstance(lead_secs, int | float) or not 0 <= lead_secs <= MAX_LEAD_SECS:
        raise ValueError(f"lead_secs must be from 0 to {MAX_LEAD_SECS}, got {lead_secs!r}")


def check_pipecat() -> None:
    """Checks that this release of Pipecat has the private attributes that the halves rely on.

    Raises:
        RuntimeError: It lacks one; the message names what is missing.
    """
    transport = ("_client", "_params", "_input", "_input_name", "_output", "_output_name")
    used: dict[Any, tuple[str, ...]] = {
        FastAPIWebsocketTransport.__init__: transport,
        FastAPIWebsocketOutputTransport.write_audio_frame: ("_write_frame", "_write_audio_sleep"),
        BaseInputTransport.push_audio_frame: ("_params", "_paused", "_audio_in_queue"),
        BaseOutputTransport.__init__: (SENDERS,),
        BaseOutputTransport.MediaSender.handle_sync_frame: (AUDIO_QUEUE,),
        FrameProcessor.queue_frame: ("_enable_direct_mode", PROCESS_FRAME),
        FrameProcessor.__init__: (*QUEUES, *EVENTS),
        FrameProcessor.add_event_handler: ("_event_handlers",),
    }
    for function, names in used.items():
        code = inspect.unwrap(function).__code__
        uses = {*code.co_names, *code.co_consts}
        if missing := [name for name in names if name not in uses]:
            raise RuntimeError(
                f"pipecat-ai {version()} is not a release that TwilioTransport knows: "
                f"{function.__qualname__} does not use {', '.join(missing)}"
            )


check_pipecat()


class TwilioTransport(FastAPIWebsocketTransport):
    """Pipecat's `FastAPIWebsocketTransport`, without the gaps when the bot stalls for a moment.

    The arguments and events are Pipecat's. With a serializer other than this package's it does
    exactly what Pipecat's does.

    Args:
        websocket: The accepted WebSocket.
        params: What can be set; `FastAPIWebsocketParams` of Pipecat.
        input_name: Name of the input processor; None makes one up.
        output_name: Name of the output processor; None makes one up.
        lead_secs: How much unplayed audio to keep in Twilio's buffer, from 0 to 60 s, and never
            less than the message being sent. A stall of the event loop up to this long is not
            heard. Default 0.2: more than a garbage collection or the start of another call takes.
            It adds no delay. What stands behind the output gets audio, and the frames that follow
            it, when the caller hears it, and `BotStoppedSpeakingFrame` within 20 ms of the end.
            With `audio_out_mixer`, background audio between utterances keeps a lead of one frame,
            so that it does not delay the next utterance.

    Raises:
        ValueError: `lead_secs` is out of range, or the connection's origin is not allowed.
    """

    def __init__(
        self,
        websocket: Any,
        params: FastAPIWebsocketParams,
        input_name: str | None = None,
        output_name: str | None = None,
        *,
        lead_secs: float = 0.2,
    ) -> None:
        check_lead_secs(lead_secs)
        super().__init__(websocket, params, input_name=input_name, output_name=output_name)
        self._input = TwilioInputTransport(self, self._client, self._params, name=self._input_name)
        self._output = TwilioOutputTransport(
            self, self._client, self._params, name=self._output_name, lead_secs=lead_secs
        )
