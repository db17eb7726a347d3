"""Ends a serializer's call, or leaves it alone, and reports on it.

SIDs and credentials are read when the call is ended, not before: bots construct the serializer
with a placeholder, and assign `_call_sid` from the `start` message.
"""

from functools import cached_property
from inspect import isawaitable
from time import monotonic
from typing import Any

from loguru import logger
from pipecat.frames.frames import CancelFrame, EndFrame
from pipecat.serializers.base_serializer import FrameSerializer

from pipecat_twilio.audio.samples import positive_int
from pipecat_twilio.params import DEFAULTS, InputParams
from pipecat_twilio.twilio import hangup
from pipecat_twilio.twilio.call_report import CallRecord, CallReport
from pipecat_twilio.twilio.call_resource import CallResource, without_traceback
from pipecat_twilio.twilio.messages import MessageError
from pipecat_twilio.twilio.playback import Playback


class CallEndingSerializer(FrameSerializer):
    """A serializer that can end its call over Twilio's REST API."""

    # Defaults for a subclass that skips the constructor.
    _name = "TwilioFrameSerializer"
    _stream_sid: str | None = None
    _call_sid: str | None = None
    _account_sid: str | None = None
    _auth_token: str | None = None
    _api_key_sid: str | None = None
    _api_key_secret: str | None = None
    _region: str | None = None
    _edge: str | None = None
    _base_url: str | None = None
    _hangup_attempted = False
    _pending_hang_up: hangup.PendingHangUp | None = None
    _call_left = ""  # why the call is no longer ours to end

    # mypy does not know that a cached_property can be assigned.
    @cached_property
    def _params(self) -> Any:  # type: ignore[override]
        return InputParams()

    @cached_property
    def _twilio_sample_rate(self) -> int:
        return positive_int("twilio_sample_rate", self._setting("twilio_sample_rate"))

    @cached_property
    def _playback(self) -> Playback:
        return Playback()

    @cached_property
    def _record(self) -> CallRecord:
        return CallRecord()

    def _setting(self, name: str) -> Any:
        """Returns a parameter, or its default if the params object lacks it."""
        return getattr(self._params, name, DEFAULTS[name])

    def _secs(self, name: str) -> float:
        """Returns a parameter in seconds; its default if it is no time: the call must end."""
        secs = self._setting(name)
        return secs if isinstance(secs, int | float) and secs >= 0 else DEFAULTS[name]

    @property
    def call_report(self) -> CallReport:
        """What happened in the call so far."""
        return self._record.report(self._stream_sid or "", self._call_sid or "", monotonic())

    def speech_ended(self) -> None:
        """Records that the bot has finished speaking: the pause that follows is not a gap."""
        self._record.speech_is_over = True

    def _drop(self, reason: str, fault: object) -> None:
        """Logs the first drop for each reason, then the 2nd, 4th, 8th ... of all drops."""
        dropped = self._record.dropped
        dropped[reason] += 1
        total = dropped.total()
        if dropped[reason] == 1 or total & (total - 1) == 0:
            logger.warning(f"{self} dropped {reason} ({total} dropped so far): {_in_short(fault)}")

    def hand_off(self) -> None:
        """Leaves the call to somebody else: this serializer will never end it.

        A bot that transfers the call calls this first, before its pipeline ends.
        """
        self._leave_call("hand_off()")

    def _leave_call(self, why: str) -> None:
        self._call_left = self._call_left or why
        if self._pending_hang_up is not None:
            self._pending_hang_up.hurry()

    async def _end(self, frame: EndFrame | CancelFrame) -> None:
        """Ends the call, unless it was left to somebody else, and makes the call report."""
        try:
            if self._setting("auto_hang_up") and not self._hangup_attempted:
                self._hangup_attempted = True
                latest = monotonic() + self._secs("hang_up_drain_secs")
                self._pending_hang_up = hangup.PendingHangUp(
                    self._end_call,
                    lambda: min(
                        self._playback.remaining_sound_secs(monotonic()), latest - monotonic()
                    ),
                    name=str(self),
                )
            if self._pending_hang_up is not None:
                if isinstance(frame, CancelFrame) or self._call_left:
                    self._pending_hang_up.hurry()
                await self._pending_hang_up.done()
        finally:  # also if Pipecat cancels this: for Pipecat the call has ended
            await self._report_end(type(frame).__name__)

    async def _end_call(self) -> None:
        if self._call_left:
            logger.info(f"{self} does not end the call: {self._call_left}")
            return
        await self._hang_up_call()

    async def _report_end(self, what: str) -> None:
        if self._record.ended_by:
            return
        self._record.end(self._call_left or what, monotonic())
        report, callback = self.call_report, self._setting("on_call_report")
        logger.info(f"{self}: {report}")
        try:
            if callback is not None and isawaitable(result := callback(report)):
                await result
        except Exception as error:  # noqa: BLE001  # a user's error; its text may hold a secret
            logger.error(f"{self}: on_call_report failed: {type(error).__name__}")

    async def _hang_up_call(self) -> None:
        """Ends the call over REST; a subclass may override this."""
        try:
            resource = self._call_resource()
        except ValueError as error:
            logger.error(f"{self} left the call open: {error}")
            return
        outcome = await hangup.hang_up(resource, timeout_secs=self._secs("hang_up_timeout_secs"))
        self._record.rest_answer = outcome.answer

    @without_traceback
    def _call_resource(self) -> CallResource:
        """Returns the call's address and credentials; raises ValueError if any is missing."""
        return CallResource(
            self._account_sid,
            self._call_sid,
            auth_token=self._auth_token,
            api_key_sid=self._api_key_sid,
            api_key_secret=self._api_key_secret,
            region=self._region,
            edge=self._edge,
            base_url=self._base_url,
        )


def _in_short(fault: object) -> str:
    kind = "" if isinstance(fault, str | MessageError) else f"{type(fault).__name__}: "
    try:
        return f"{kind}{fault}"[:200]
    except Exception:  # noqa: BLE001  # of an exception that cannot say what it is
        return kind
