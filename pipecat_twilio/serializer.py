"""The Pipecat serializer: frames to and from Twilio Media Streams messages.

A drop-in for `pipecat.serializers.twilio.TwilioFrameSerializer`: the same name, arguments and
JSON, and the same private attributes, which public code reads and assigns at any time. A subclass
may skip the constructor. So `__new__`, in call_ending.py, creates the state, and what ends the call
is read when that is needed.
"""

import json
from time import monotonic
from typing import Any, TypeAlias

from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames import frames
from pipecat.frames.frames import Frame, InputAudioRawFrame

from pipecat_twilio.audio.samples import SampleJoiner, mix_down, pcm_bytes, positive_int
from pipecat_twilio.audio.ulaw import decode, encode
from pipecat_twilio.call_ending import CallEndingSerializer
from pipecat_twilio.frames import MarkFrame
from pipecat_twilio.params import TwilioInputParams
from pipecat_twilio.stream_resampler import SincStreamResampler
from pipecat_twilio.twilio import messages
from pipecat_twilio.twilio.messages import Dtmf, Mark, Media, MessageError, Start, Stop
from pipecat_twilio.twilio.playback import MAX_BUFFERED_SECS

SAMPLE_BYTES = 2
MESSAGE_SECS = 0.02  # of audio in each of Twilio's messages
MAX_CHANNELS = 64  # more is a mistake, and would take a lot of memory
TRANSPORT_MESSAGES = frames.OutputTransportMessageFrame, frames.OutputTransportMessageUrgentFrame
_KEYS = {button.value: button for button in KeypadEntry}


class TwilioFrameSerializer(CallEndingSerializer):
    """Converts between Pipecat frames and the messages of one Twilio media stream.

    With `auto_hang_up`, the default, an `EndFrame` or a `CancelFrame` also ends the call over
    Twilio's REST API; that needs an auth token or an API key.
    """

    InputParams: TypeAlias = TwilioInputParams  # Pipecat's name for it

    # Defaults for a subclass that skips the constructor.
    _sample_rate = 0  # of the audio given to the pipeline, in Hz
    _call_sid_checked = False
    _inbound_secs = 0.0  # the timestamp of the newest audio, in seconds since the stream started

    def __init__(
        self,
        stream_sid: str,
        call_sid: str | None = None,
        account_sid: str | None = None,
        auth_token: str | None = None,
        region: str | None = None,
        edge: str | None = None,
        base_url: str | None = None,
        params: TwilioInputParams | None = None,
        *,
        api_key_sid: str | None = None,
        api_key_secret: str | None = None,
    ) -> None:
        """Prepares the serializer of one call.

        Args:
            stream_sid: The stream's SID; if empty, it is taken from the `start` message.
            call_sid: The call's SID. This and the following arguments are for ending the call.
            account_sid: The account's SID.
            auth_token: The account's auth token; not together with an API key.
            region: The Twilio region that processes the call, such as `ie1`; credentials belong to
                a region. Together with `edge`.
            edge: The Twilio edge to reach the region through, such as `dublin`.
            base_url: Root of the REST API, verbatim but for slashes at its end, instead of Twilio's
                own. Region and edge are then not used, and SIDs may have another form.
            params: The parameters; by default `InputParams()`.
            api_key_sid: SID of an API key, together with `api_key_secret`.
            api_key_secret: Secret of the API key.

        Raises:
            ValueError: With `auto_hang_up`: a credential is missing, both kinds are given, only
                one of region and edge is given, or an argument is malformed.
        """
        super().__init__(params or self.InputParams())
        self._read_params()
        self._stream_sid = stream_sid
        self._call_sid = call_sid
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._api_key_sid = api_key_sid
        self._api_key_secret = api_key_secret
        self._region = region
        self._edge = edge
        self._base_url = base_url
        if self._setting("auto_hang_up"):
            self._call_resource()

    def _read_params(self) -> None:
        self._max_message_bytes: int = self._setting("max_message_bytes")
        self._input_frame_secs: float = self._setting("input_frame_secs")
        clear_after_secs = self._setting("resampler_clear_after_secs")
        self._twilio_sample_rate: int = self._setting("twilio_sample_rate")
        self._input_resampler: Any = SincStreamResampler(
            clear_after_secs=clear_after_secs,
            clock=lambda: self._inbound_secs,  # a stall of the network is no pause of the stream
        )
        self._output_resampler: Any = SincStreamResampler(clear_after_secs=clear_after_secs)
        self._joiner = SampleJoiner(clear_after_secs)
        self._collected = b""  # until there is enough for a frame

    async def setup(self, setup: Any) -> None:
        """Takes the pipeline's input rate from `setup.audio_in_sample_rate`, in Hz.

        Raises:
            ValueError: The rate is not a positive integer.
        """
        rate = self._setting("sample_rate") or setup.audio_in_sample_rate
        self._sample_rate = positive_int("audio_in_sample_rate", rate)

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """Converts a message from Twilio to a frame.

        Args:
            data: The message as it was received. Nothing is raised, whatever it is: a message
                that cannot be read is dropped with a warning.

        Returns:
            `InputAudioRawFrame` for the caller's audio, `InputDTMFFrame` for a digit, `MarkFrame`
            for a mark that came back, None for everything else.
        """
        try:
            message = messages.parse(data, self._max_message_bytes)
            if type(message) is not Media:
                return self._input_event(message)
            media = message.media
            if media.track in messages.BOT_TRACKS:
                return None
            if not self._sample_rate:
                raise ValueError("audio before setup()")
            if media.timestamp is not None:
                self._inbound_secs = media.timestamp / 1000
            in_rate, rate = self._twilio_sample_rate, self._sample_rate
            self._record.heard(len(media.payload) / in_rate, self._inbound_secs, monotonic())
            pcm = await self._input_resampler.resample(decode(media.payload), in_rate, rate)
            if self._input_frame_secs > MESSAGE_SECS:
                min_bytes = int(SAMPLE_BYTES * rate * self._input_frame_secs)
                self._collected += pcm
                pcm = self._take_collected() if len(self._collected) >= min_bytes else b""
            return InputAudioRawFrame(pcm, rate, 1) if pcm else None
        except MessageError as error:
            self._drop("an unreadable message", error)
        except Exception as error:  # noqa: BLE001  # an assigned resampler or rate may fail
            self._drop("an unusable message", error)
        return None

    def _input_event(self, message: messages.Message) -> Frame | None:
        if isinstance(message, Dtmf):
            if (button := _KEYS.get(message.dtmf.digit)) is not None:
                return frames.InputDTMFFrame(button)
            fault = ValueError(f"Pipecat has no key {message.dtmf.digit[:9]!a}")  # A to D
            self._drop("a key", fault)
        elif isinstance(message, Mark):
            cleared = self._playback.take_mark(message.mark.name)
            self._record.marks_cleared += cleared
            self._record.marks_played += not cleared
            return MarkFrame(message.mark.name, message.stream_sid, cleared)
        elif isinstance(message, Start):
            self._stream_sid = self._stream_sid or message.stream_sid
            sid, own = message.start.call_sid, self._call_sid
            if sid and own and sid != own and not self._call_sid_checked:
                logger.warning(f"{self}: the stream is of call {sid[:99]!a}, not {own!r}")
            self._call_sid_checked = True
        elif isinstance(message, Stop):
            self._stream_stopped()
            pcm = self._take_collected()
            return InputAudioRawFrame(pcm, self._sample_rate, 1) if pcm else None
        return None

    def _take_collected(self) -> bytes:
        pcm, self._collected = self._collected, b""
        return pcm

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """Converts a frame to a message for Twilio, or ends the call.

        Args:
            frame: Any frame. Nothing is raised: one that cannot be sent is dropped with a warning.

        Returns:
            The message for audio, an interruption or a transport message; None for other frames.
            For an `EndFrame` or `CancelFrame` it returns when the call has been ended.
        """
        try:
            if isinstance(frame, frames.AudioRawFrame):
                now, out_rate = monotonic(), self._twilio_sample_rate
                pcm, rate = self._mono_samples(frame, now)
                payload = encode(await self._output_resampler.resample(pcm, rate, out_rate))
                if not payload:
                    return None
                empty_secs = self._playback.add(payload, out_rate, now)
                self._record.said(len(payload) / out_rate, empty_secs, now)
                return messages.media(self._stream_sid or "", payload)
            if isinstance(frame, frames.InterruptionFrame):
                return await self._clear()
            if isinstance(frame, TRANSPORT_MESSAGES):
                return self._transport_message(frame)
            if isinstance(frame, frames.EndFrame | frames.CancelFrame):
                await self._end(frame)
        except Exception as error:  # noqa: BLE001  # a frame may hold anything
            self._drop("an unusable frame", error)
        return None

    def _mono_samples(self, frame: frames.AudioRawFrame, now: float) -> tuple[bytes, int]:
        """Returns the frame's whole samples, mixed to one channel, and their rate."""
        rate = positive_int("sample_rate", frame.sample_rate)
        channels = positive_int("num_channels", frame.num_channels)
        if channels > MAX_CHANNELS:
            raise ValueError(f"num_channels must be at most {MAX_CHANNELS}, got {channels}")
        size = SAMPLE_BYTES * channels
        pcm = pcm_bytes(frame.audio, size * rate * MAX_BUFFERED_SECS)
        pcm = self._joiner.join(pcm, size, (rate, channels), now)
        return mix_down(pcm, channels), rate

    async def _clear(self) -> str:
        self._buffer_cleared()
        try:
            await self._output_resampler.reset()
        except Exception as error:  # noqa: BLE001  # an assigned resampler may fail
            logger.warning(f"{self}: the resampler's reset failed: {type(error).__name__}")
        return messages.clear(self._stream_sid or "")

    def _buffer_cleared(self) -> None:
        self._joiner.clear()
        self._playback.clear(monotonic())
        self._record.interruptions += 1
        self._stop_waiting()

    def _transport_message(self, frame: Any) -> str | None:
        if self.should_ignore_frame(frame):
            return None
        try:
            text = json.dumps(frame.message, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            logger.error(f"{self} dropped {frame.name}, whose message is not JSON: {error}")
            return None
        if (name := messages.mark_name(frame.message)) is not None:
            self._playback.add_mark(name)
        elif messages.is_clear(frame.message):
            self._buffer_cleared()
        return text
