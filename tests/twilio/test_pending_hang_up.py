"""The wait before a call is ended, and that it is ended whatever happens to the event loop."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable

import pytest

from pipecat_twilio.twilio.pending_hang_up import PendingHangUp

STOPPED = "ERROR Bot was stopped: the call may be left open\n"
CANCELLED = "DEBUG Bot was cancelled, and hangs up at once\n"


class Ending:
    """Counts the calls that it ends, each after awaiting the next of `waits`."""

    def __init__(self, *waits: Callable[[], Awaitable[object]]) -> None:
        self.waits = list(waits)
        self.begun = self.ended = 0

    async def __call__(self) -> None:
        self.begun += 1
        if self.waits:
            await self.waits.pop(0)()
        self.ended += 1


def pending(ending: Ending, wait_secs: Callable[[], float] = lambda: 3600.0) -> PendingHangUp:
    return PendingHangUp(ending, wait_secs, name="Bot")


async def forever() -> None:
    await asyncio.Event().wait()


async def is_not_being_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.001)


async def test_the_call_is_ended_when_there_is_no_more_to_wait_for() -> None:
    ending, told = Ending(), [0.001, 0.001, 0.0, 99.0]

    def wait_secs() -> float:
        assert not ending.begun
        return told.pop(0)

    await asyncio.wait_for(pending(ending, wait_secs).done(), 10)
    assert told == [99.0]
    assert ending.ended == 1


@pytest.mark.parametrize("turns", [0, 5])
@pytest.mark.parametrize("cancels", [True, False])
async def test_stop_waiting_or_cancelling_who_awaits_it_ends_the_call_at_once(
    turns: int, cancels: bool
) -> None:
    ending = Ending(lambda: asyncio.sleep(0.001))
    waiting = pending(ending)
    someone = asyncio.create_task(waiting.done())
    for _ in range(turns):
        await asyncio.sleep(0.001)
    assert not ending.begun
    if cancels:
        await asyncio.sleep(0)
        someone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await someone
    else:
        waiting.stop_waiting()
    await asyncio.wait_for(waiting.done(), 10)
    assert ending.ended == 1


async def test_an_error_of_the_hang_up_is_logged_without_its_text(log: list[str]) -> None:
    async def fail() -> None:
        raise OSError("secret in the text")

    await asyncio.wait_for(pending(Ending(fail), lambda: 0).done(), 10)
    assert log == ["ERROR Bot failed to hang up: OSError\n"]


async def test_a_second_cancellation_stops_the_hang_up_with_one_error(log: list[str]) -> None:
    ending = Ending(forever, forever)
    waiting = pending(ending, lambda: 0)
    for begun in (1, 2):
        await asyncio.sleep(0.001)
        assert ending.begun == begun
        waiting._task.cancel()
    await asyncio.wait_for(waiting.done(), 10)
    assert log == [CANCELLED, STOPPED]


@pytest.mark.parametrize(
    ("waits", "secs", "turns", "begun"),
    [
        *(([is_not_being_cancelled], 3600, turns, 1) for turns in (0, 1, 5)),
        ([forever], 0, 5, 2),  # the request was interrupted: it is made again
    ],
)
def test_when_asyncio_run_returns_the_call_is_ended_at_once(
    waits, secs: float, turns: int, begun: int, log: list[str]
) -> None:
    async def main() -> None:
        kept.append(pending(ending, lambda: secs))
        for _ in range(turns):
            await asyncio.sleep(0)

    kept: list[PendingHangUp] = []
    ending = Ending(*waits)
    asyncio.run(main())
    assert (ending.begun, ending.ended) == (begun, 1)
    assert log == [CANCELLED]


@pytest.mark.parametrize("waits", [[], [forever]])
def test_an_event_loop_that_ends_without_cancelling_its_tasks_is_an_error(
    waits, log, caplog
) -> None:
    caplog.set_level(logging.CRITICAL)  # what asyncio itself has to say

    async def main() -> None:
        kept.append(pending(Ending(*waits), lambda: 0 if waits else 3600))
        await asyncio.sleep(0.001)

    kept: list[PendingHangUp] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert not log
    kept.clear()
    gc.collect()
    assert log == [STOPPED]
