"""The part of the serializer that ends its call, or leaves it alone, and reports on it.

SIDs and credentials are read when the call is ended, not before: bots construct the serializer
with a placeholder, and assign `_call_sid` from the `start` message.
"""

import asyncio
from dataclasses import fields
from inspect import isawaitable
from reprlib import Repr
from time import monotonic
from typing import Any, Self

from loguru import logger
from pipecat.frames.frames import CancelFrame, EndFrame
from pipecat.serializers.base_serializer import FrameSerializer

from pipecat_twilio.params import DEFAULTS, TwilioInputParams
from pipecat_twilio.twilio import hangup
from pipecat_twilio.twilio.call_report import MIN_GAP_SECS, CallRecord, CallReport
from pipecat_twilio.twilio.call_resource import CallResource, without_traceback
from pipecat_twilio.twilio.pending_hang_up import PendingHangUp
from pipecat_twilio.twilio.playback import Playback

# The close code of a server that stops. Source: https://www.iana.org/assignments/websocket/
SERVICE_RESTART = 1012

_short = Repr()  # of an exception, which may hold anything
_short.maxother = 100


class CallEndingSerializer(FrameSerializer):
    """A serializer that can end its call over Twilio's REST API."""

    # Defaults for a subclass that skips the constructor.
    _name = "TwilioFrameSerializer"
    _stream_sid: str | None = None
    _call_sid: str | None = None
    _hangup_attempted = False
    _pending_hang_up: PendingHangUp | None = None
    _is_hanging_up = False  # the request is made: what follows it did not end the call
    _call_left = ""  # why the call is no longer ours to end
    _callback_task: asyncio.Task[None] | None = None
    # Set by `__new__`.
    _params: Any
    _playback: Playback
    _record: CallRecord

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Creates the state, since a subclass may skip the constructor."""
        self = super().__new__(cls)
        self._params = TwilioInputParams()
        self._playback = Playback()
        self._record = CallRecord()
        self._read_params()
        return self

    def _read_params(self) -> None:
        """Creates what depends on the parameters."""

    def _setting(self, name: str) -> Any:
        """Returns a parameter, or its default if the params object lacks it."""
        return getattr(self._params, name, DEFAULTS[name])

    def _duration(self, name: str) -> float:
        """Returns a parameter in seconds; the default if it is not a valid duration."""
        secs = self._setting(name)
        return secs if isinstance(secs, int | float) and secs >= 0 else DEFAULTS[name]

    @property
    def call_report(self) -> CallReport:
        """What happened in the call so far."""
        return self._record.report(self._stream_sid or "", self._call_sid or "", monotonic())

    def unplayed_secs(self) -> float:
        """Returns the seconds until Twilio has played everything that it was sent."""
        return self._playback.unplayed_secs(monotonic())

    def unplayed_sound_secs(self) -> float:
        """Returns the seconds until the last sound in it has been played."""
        return self._playback.unplayed_sound_secs(monotonic())

    def caller_stopped(self, stop_secs: float) -> None:
        """Records that the caller stopped speaking `stop_secs` ago, unless the bot is heard."""
        if self.unplayed_secs() < MIN_GAP_SECS:
            self._record.caller_stopped_at = monotonic() - stop_secs

    def speech_started(self) -> None:
        """Records that the caller hears the bot once Twilio has played what it has."""
        self._record.answered(monotonic() + self.unplayed_secs())

    def speech_ended(self) -> None:
        """Records that the bot has finished speaking: the pause that follows is not a gap."""
        self._record.speech_is_over = True

    def _drop(self, reason: str, fault: Exception) -> None:
        """Logs the first drop for each reason, then the 2nd, 4th, 8th ... of all drops."""
        dropped = self._record.dropped
        dropped[reason] += 1
        total = dropped.total()
        if dropped[reason] == 1 or total & (total - 1) == 0:
            text = _short.repr(fault)
            logger.warning(f"{self} dropped {reason} ({total} dropped so far): {text}")

    def hand_off(self) -> None:
        """Never ends the call; a bot that transfers it calls this before its pipeline ends."""
        self._leave_call("hand_off()")

    def _leave_call(self, why: str) -> None:
        if not self._is_hanging_up:
            self._call_left = self._call_left or why
        self._stop_waiting()

    def _stream_stopped(self) -> None:
        self._leave_call("stop")  # the call may go on elsewhere: ending it could cut a transfer
        self._report_unless_ending(self._call_left)

    def socket_closed(self, code: int | None) -> None:
        """Makes the call report; the transport calls this with the close code, if it is known.

        If the stream has not stopped, the next `EndFrame` or `CancelFrame` still ends the call.
        """
        self._playback.clear(monotonic())  # nobody will hear it
        self._stop_waiting()
        ended_by = "server stopped" if code == SERVICE_RESTART else "disconnect"
        self._report_unless_ending(self._call_left or ended_by)

    def _stop_waiting(self) -> None:
        if self._pending_hang_up is not None:
            self._pending_hang_up.stop_waiting()

    def _report_unless_ending(self, ended_by: str) -> None:
        if self._pending_hang_up is None:  # otherwise `_end` reports when the call is over
            self._report(ended_by)

    async def _end(self, frame: EndFrame | CancelFrame) -> None:
        """Ends the call, unless it was left to somebody else, and makes the call report."""
        try:
            if self._setting("auto_hang_up") and not self._hangup_attempted:
                self._hangup_attempted = True
                latest = monotonic() + self._duration("hang_up_drain_secs")
                self._pending_hang_up = PendingHangUp(
                    self._end_call,
                    lambda: min(self.unplayed_sound_secs(), latest - monotonic()),
                    name=str(self),
                )
            if self._pending_hang_up is not None:
                if isinstance(frame, CancelFrame) or self._call_left or self._record.ended_by:
                    self._stop_waiting()
                await self._pending_hang_up.done()
        finally:  # also if Pipecat cancels this: for Pipecat the call has ended
            # Pipecat's own transport reads nothing after an `EndFrame`.
            is_read = isinstance(frame, CancelFrame)
            self._report(self._call_left or type(frame).__name__, counts_silence=is_read)
        if self._callback_task is not None:
            limit_secs = self._duration("hang_up_timeout_secs")
            await asyncio.wait([self._callback_task], timeout=limit_secs)

    async def _end_call(self) -> None:
        if self._call_left:
            logger.info(f"{self} does not end the call: {self._call_left}")
        else:
            self._is_hanging_up = True
            await self._hang_up_call()

    def _report(self, ended_by: str, *, counts_silence: bool = True) -> None:
        """Logs the report and starts the callback, the first time that this is called."""
        if self._record.ended_by:
            return
        self._record.end(ended_by, monotonic(), counts_silence=counts_silence)
        report = self.call_report
        logger.info(f"{self}: {report}")
        if self._setting("on_call_report") is None:
            return
        steps = self._call_back(report)
        try:
            self._callback_task = asyncio.get_running_loop().create_task(steps)
        except RuntimeError:
            asyncio.run(steps)  # nothing else is running that it could hold up

    async def _call_back(self, report: CallReport) -> None:
        try:
            async with asyncio.timeout(self._duration("hang_up_timeout_secs")):
                if isawaitable(result := self._setting("on_call_report")(report)):
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
        limit_secs = self._duration("hang_up_timeout_secs")
        self._record.rest_answer = (await hangup.hang_up(resource, timeout_secs=limit_secs)).text

    @without_traceback
    def _call_resource(self) -> CallResource:
        """Returns the call's address and credentials; raises ValueError if any is missing."""
        names = [field.name for field in fields(CallResource)]
        return CallResource(**{name: getattr(self, f"_{name}", None) for name in names})
