"""The wait before a call is ended, and what happens if it is disturbed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from loguru import logger


class PendingHangUp:
    """Waits until the last words were played, then ends the call.

    It runs in its own task. If that is cancelled, as all tasks are when `asyncio.run` returns, it
    ends the call at once; a request that was interrupted is made again. If it is cancelled twice,
    or its event loop ends without it, the log has an error.

    Args:
        end_call: Ends the call. It is called a second time only if it was cancelled.
        wait_secs: Returns how much longer to wait; called again after each wait.
        name: Its name in the log.
    """

    def __init__(
        self,
        end_call: Callable[[], Awaitable[object]],
        wait_secs: Callable[[], float],
        *,
        name: str,
    ) -> None:
        self._end_call = end_call
        self._wait_secs = wait_secs
        self._name = name
        self._stopped_waiting = asyncio.Event()
        steps = self._run()
        steps.send(None)  # to the `sleep(0)`: a task cancelled before its first step never runs
        self._task = asyncio.get_running_loop().create_task(steps)

    def stop_waiting(self) -> None:
        """Ends the call now, for example after an interruption."""
        self._stopped_waiting.set()

    async def done(self) -> None:
        """Returns when the call has been ended, or could not be.

        If this is cancelled, the hang-up only stops waiting: the event loop may be about to stop.
        """
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self.stop_waiting()
            raise

    async def _run(self) -> None:
        is_done = False
        try:
            try:
                await asyncio.sleep(0)
                await self._wait()
                await self._hang_up()
            except asyncio.CancelledError:
                self._task.uncancel()
                logger.debug(f"{self._name} was cancelled, and hangs up at once")
                await self._hang_up()
            is_done = True
        finally:  # Python also comes here when it collects a task whose loop has ended
            if not is_done:
                logger.error(f"{self._name} was stopped: the call may be left open")

    async def _wait(self) -> None:
        while not self._stopped_waiting.is_set() and (secs := self._wait_secs()) > 0:
            with suppress(TimeoutError):  # the time is over, so ask again
                async with asyncio.timeout(secs):
                    await self._stopped_waiting.wait()

    async def _hang_up(self) -> None:
        try:
            await self._end_call()
        except Exception as error:  # noqa: BLE001  # an override's error; it may hold a secret
            logger.error(f"{self._name} failed to hang up: {type(error).__name__}")
