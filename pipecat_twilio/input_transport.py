"""The input of `TwilioTransport`: Pipecat's, without a queue and a task that have nothing to do."""

from pipecat.frames.frames import InputAudioRawFrame
from pipecat.transports.websocket.fastapi import FastAPIWebsocketInputTransport


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
