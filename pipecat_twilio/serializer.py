"""The Pipecat serializer: frames to and from Twilio Media Streams messages.

A drop-in for `pipecat.serializers.twilio.TwilioFrameSerializer`: the same name, arguments and
JSON. Audio, in both directions, leaves on the call that brought it.
"""

import asyncio
import json
from array import array
from contextlib import suppress
from time import monotonic
from typing import Any

from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    AudioRawFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InputTransportMessageFrame,
    InterruptionFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.serializers.base_serializer import FrameSerializer
from pydantic import Field

from pipecat_twilio import hangup, messages
from pipecat_twilio.messages import UNREADABLE, Dtmf, Mark, Media, Message, MessageError, read
from pipecat_twilio.playback import Playback
from pipecat_twilio.resampler import SincResampler
from pipecat_twilio.ulaw import decode, encode

_KEYS = {button.value: button for button in KeypadEntry}


def _mono(pcm: bytes, channels: int) -> bytes:
    """Returns the mean of the channels of interleaved samples, without an incomplete last one."""
    if channels < 1:
        raise ValueError(f"num_channels must be positive, got {channels}")
    whole = pcm[: len(pcm) - len(pcm) % (2 * channels)]
    if channels == 1:
        return whole
    frames = zip(*[iter(array("h", whole))] * channels, strict=True)
    return array("h", ((sum(frame) + channels // 2) // channels for frame in frames)).tobytes()


class TwilioFrameSerializer(FrameSerializer):
    """Converts between Pipecat frames and the messages of one Twilio media stream.

    With `auto_hang_up` (the default) the call is also ended over Twilio's REST API when an
    `EndFrame` or a `CancelFrame` comes by; that takes an auth token or an API key.
    """

    class InputParams(FrameSerializer.InputParams):
        """What can be tuned; Pipecat's own `InputParams` of the same name will do as well.

        Parameters:
            twilio_sample_rate: Rate of the audio on Twilio's side, in Hz.
            sample_rate: Rate of the audio given to the pipeline, in Hz; None takes the
                pipeline's `audio_in_sample_rate`.
            auto_hang_up: Whether to end the call on `EndFrame` and `CancelFrame`.
            hang_up_timeout_secs: How long ending the call may take, retries included.
            hang_up_drain_secs: How long, at most, an `EndFrame` waits for Twilio to have played
                what it was sent, before the call is ended.
            max_message_bytes: A longer message from Twilio is dropped before it is parsed.
        """

        twilio_sample_rate: int = 8000
        sample_rate: int | None = None
        auto_hang_up: bool = True
        hang_up_timeout_secs: float = Field(default=5.0, gt=0)
        hang_up_drain_secs: float = Field(default=2.0, ge=0)
        max_message_bytes: int = Field(default=messages.MAX_MESSAGE_BYTES, gt=0)

    def __init__(
        self,
        stream_sid: str,
        call_sid: str | None = None,
        account_sid: str | None = None,
        auth_token: str | None = None,
        region: str | None = None,
        edge: str | None = None,
        base_url: str | None = None,
        params: InputParams | None = None,
        *,
        api_key_sid: str | None = None,
        api_key_secret: str | None = None,
    ) -> None:
        """Prepares the serializer of one call.

        Args:
            stream_sid: The stream's SID.
            call_sid: The call's SID, needed to hang up, as is all of the following.
            account_sid: The account's SID.
            auth_token: The account's auth token; not together with an API key.
            region: The Twilio region that processes the call, such as `ie1`; together with
                `edge`. Credentials belong to a region.
            edge: The Twilio edge to reach it by, such as `dublin`.
            base_url: Root of the REST API, verbatim, instead of Twilio's own; with it, region
                and edge are not used.
            params: What can be tuned.
            api_key_sid: SID of an API key, together with `api_key_secret`.
            api_key_secret: Secret of the API key.

        Raises:
            ValueError: With `auto_hang_up`: a credential is missing, there is more than one kind,
                half an API key, only one of region and edge, or one of them is malformed.
        """
        params = params or TwilioFrameSerializer.InputParams()
        super().__init__(params)
        self._params: TwilioFrameSerializer.InputParams = params
        self._stream_sid = stream_sid
        self._call_sid = call_sid
        self._account_sid = account_sid
        self._call = (
            hangup.Call(
                account_sid,
                call_sid,
                auth_token=auth_token,
                api_key_sid=api_key_sid,
                api_key_secret=api_key_secret,
                region=region,
                edge=edge,
                base_url=base_url,
            )
            if self._params.auto_hang_up
            else None
        )
        self._hangup_attempted = False
        self._hang_up_task: asyncio.Task[None] | None = None
        self._hang_up_at_once = asyncio.Event()

        self._sample_rate = 0  # of the audio given to the pipeline; set by setup()
        self._inbound: SincResampler | None = None
        self._inbound_ms = 0.0  # the stream's own time: that of the newest audio
        self._outbound: SincResampler  # made for the first frame, and for each new rate
        self._outbound_rate: int | None = None
        self._most_outbound_bytes = 0
        self._playback = Playback(self._params.twilio_sample_rate)
        self._dropped = {"message": 0, "frame": 0}
        self._max_message_bytes: int = getattr(
            self._params, "max_message_bytes", messages.MAX_MESSAGE_BYTES
        )

    @property
    def _stream_sid(self) -> str:
        return self.__stream_sid

    @_stream_sid.setter
    def _stream_sid(self, stream_sid: str) -> None:
        self.__stream_sid = stream_sid
        outbound = messages.OutboundMessages(stream_sid)
        self._media_message, self._clear_message = outbound.media, outbound.clear

    async def setup(self, setup: Any) -> None:
        """Takes the pipeline's input rate; a second call at the same rate keeps all state.

        Args:
            setup: Anything with an `audio_in_sample_rate` in Hz: `FrameProcessorSetup`, or the
                `StartFrame` of older releases of Pipecat.

        Raises:
            ValueError: The rate is not a positive integer.
        """
        rate = self._params.sample_rate or setup.audio_in_sample_rate
        if rate != self._sample_rate:
            self._inbound = SincResampler(
                self._params.twilio_sample_rate,
                rate,
                clear_after_secs=self._params.resampler_clear_after_secs,
            )
            self._sample_rate = rate

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """Converts a message from Twilio to a frame.

        Args:
            data: The message, as it came. Whatever it is, nothing is raised; what cannot be read
                is dropped with a warning.

        Returns:
            `InputAudioRawFrame` for the caller's audio, `InputDTMFFrame` for a digit,
            `InputTransportMessageFrame` for a mark that was reached, None for all else.
        """
        message: Message | None
        try:
            if len(data) > self._max_message_bytes:
                self._drop("message", f"{len(data)} long, more than {self._max_message_bytes}")
                return None
            message = read(data)
        except UNREADABLE as error:
            message = self._reread(data, error)
        if type(message) is not Media:
            return self._event_frame(message)
        media = message.media
        if media.track != "inbound":
            return None
        resampler = self._inbound
        if resampler is None:
            self._drop("message", "audio before setup()")
            return None
        ms = media.timestamp
        if ms is None:
            ms = self._inbound_ms
        else:
            self._inbound_ms = ms
        pcm = resampler.process(decode(media.payload), ms / 1000)
        return InputAudioRawFrame(pcm, self._sample_rate, 1) if pcm else None

    def _reread(self, data: str | bytes, error: Exception) -> Media | None:
        try:
            return messages.read_untimed(data, error)
        except MessageError as fault:
            self._drop("message", fault)
            return None

    def _event_frame(self, message: Message | None) -> Frame | None:
        if isinstance(message, Dtmf):
            return self._input_dtmf(message.dtmf.digit)
        if isinstance(message, Mark):
            return InputTransportMessageFrame(
                message=messages.mark(message.stream_sid, message.mark.name)
            )
        return None

    def _input_dtmf(self, digit: str) -> InputDTMFFrame | None:
        button = _KEYS.get(digit)
        if button is None:  # A-D, which Pipecat has no names for
            self._drop("message", f"DTMF digit {digit[:9]!a}")
            return None
        return InputDTMFFrame(button)

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """Converts a frame to a message for Twilio, or ends the call.

        Args:
            frame: Any frame.

        Returns:
            The message for audio, an interruption or a transport message, else None. For an
            `EndFrame` or `CancelFrame` it returns when the call has been ended.
        """
        if not isinstance(frame, AudioRawFrame):
            return await self._event_message(frame)
        pcm = frame.audio
        size = len(pcm)
        if (
            frame.sample_rate != self._outbound_rate
            or frame.num_channels != 1
            or size % 2
            or size > self._most_outbound_bytes
        ):
            pcm = self._prepare(frame)
        now = monotonic()
        payload = pcm and encode(self._outbound.process(pcm, now))
        if not payload:
            return None
        self._playback.add(payload, now)
        return self._media_message(payload)

    def _prepare(self, frame: AudioRawFrame) -> bytes:
        """Gets ready for a frame unlike the one before; returns its audio, mono, or nothing."""
        try:
            pcm = _mono(frame.audio, frame.num_channels)
            if frame.sample_rate != self._outbound_rate:
                self._outbound = SincResampler(
                    frame.sample_rate,
                    self._params.twilio_sample_rate,
                    clear_after_secs=self._params.resampler_clear_after_secs,
                )
                self._outbound_rate = frame.sample_rate
                most = 2 * frame.sample_rate * 60 * messages.MAX_BUFFERED_MINUTES
                self._most_outbound_bytes = most
        except ValueError as error:
            self._drop("frame", error)
            return b""
        if len(pcm) > self._most_outbound_bytes:
            self._drop("frame", f"more than {messages.MAX_BUFFERED_MINUTES} minutes of audio")
            return b""
        return pcm

    async def _event_message(self, frame: Frame) -> str | None:
        if isinstance(frame, InterruptionFrame):
            return self._clear()
        if isinstance(frame, OutputTransportMessageFrame | OutputTransportMessageUrgentFrame):
            return self._transport_message(frame)
        if isinstance(frame, EndFrame | CancelFrame):
            await self._end(at_once=isinstance(frame, CancelFrame))
        return None

    def _clear(self) -> str:
        if self._outbound_rate is not None:
            self._outbound.reset()
        self._playback.clear()
        return self._clear_message

    def _transport_message(
        self, frame: OutputTransportMessageFrame | OutputTransportMessageUrgentFrame
    ) -> str | None:
        if self.should_ignore_frame(frame):
            return None
        try:
            return json.dumps(frame.message, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            logger.error(f"{self} dropped {frame.name}, whose message is not JSON: {error}")
            return None

    def should_ignore_frame(self, frame: Frame) -> bool:
        """Tells whether a frame is an RTVI message that is not to leave the pipeline.

        Args:
            frame: Any frame.

        Returns:
            What the base class says; False for a message that is not a dict, and so not RTVI.
        """
        return isinstance(getattr(frame, "message", None), dict) and super().should_ignore_frame(
            frame
        )

    async def _end(self, *, at_once: bool) -> None:
        if not self._params.auto_hang_up:
            return
        if at_once:
            self._hang_up_at_once.set()
        if not self._hangup_attempted:
            self._hangup_attempted = True
            self._hang_up_task = asyncio.create_task(self._drain_and_hang_up())
        if self._hang_up_task is not None:
            # Pipecat may give up on us, but not the caller's phone bill.
            await asyncio.shield(self._hang_up_task)

    async def _drain_and_hang_up(self) -> None:
        drain_secs = getattr(self._params, "hang_up_drain_secs", 2.0)
        wait_secs = min(self._playback.remaining_secs(monotonic()), drain_secs)
        with suppress(TimeoutError):  # it has all been played
            await asyncio.wait_for(self._hang_up_at_once.wait(), wait_secs)
        try:
            await self._hang_up_call()
        except Exception as error:  # noqa: BLE001  # an override's; its text may hold a secret
            logger.error(f"{self} failed to hang up: {type(error).__name__}")

    async def _hang_up_call(self) -> None:
        """Ends the call over REST; subclasses may end it in their own way."""
        if self._call is not None:
            timeout_secs = getattr(self._params, "hang_up_timeout_secs", 5.0)
            await self._call.complete(timeout_secs=timeout_secs)

    def _drop(self, what: str, fault: object) -> None:
        """Warns of something dropped, the 1st, 2nd, 4th, 8th ... time, so no flood fills a log."""
        count = self._dropped[what] = self._dropped[what] + 1
        if count & (count - 1) == 0:
            logger.warning(f"{self} dropped a {what} ({count} so far): {fault}")
