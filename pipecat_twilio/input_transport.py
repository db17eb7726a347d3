"""The input of `TwilioTransport`: Pipecat's, without a queue and a task that have nothing to do."""

import inspect
from typing import Any

from pipecat import version
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketInputTransport


def check_uses(used: dict[Any, tuple[str, ...]]) -> None:
    """Checks that functions of this release of Pipecat use the names that are relied on.

    Raises:
        RuntimeError: One does not; the message names what is missing.
    """
    for function, names in used.items():
        uses = inspect.unwrap(function).__code__.co_names
        if missing := [name for name in names if name not in uses]:
            raise RuntimeError(
                f"pipecat-ai {version()} is not a release that TwilioTransport knows: "
                f"{function.__qualname__} does not use {', '.join(missing)}"
            )


def check_pipecat() -> None:
    """Checks the parts of Pipecat's input transport that are replaced here.

    Raises:
        RuntimeError: This release lacks one.
    """
    check_uses(
        {
            BaseInputTransport.push_audio_frame: ("_params", "_paused", "_audio_in_queue"),
            FrameProcessor.queue_frame: ("_enable_direct_mode",),
        }
    )


check_pipecat()


class TwilioInputTransport(FastAPIWebsocketInputTransport):
    """The input of a `TwilioTransport`, which makes it."""

    async def push_audio_frame(self, frame: InputAudioRawFrame) -> None:
        """Pushes the caller's audio.

        Pipecat's queue and task keep the socket from waiting for an audio filter, and for a
        processor in direct mode, which runs in the task that pushes to it. All others have queues
        of their own, so there the frame is pushed at once.

        Args:
            frame: The caller's audio.
        """
        params, following = self._params, self.next
        if params.audio_in_filter or following is None or following._enable_direct_mode:
            await super().push_audio_frame(frame)
            return
        is_wanted = params.audio_in_enabled and params.audio_in_passthrough and frame.audio
        if is_wanted and not self._paused:
            await self.push_frame(frame)
