"""When a call is ended, and that it is ended whatever happens to the event loop."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipecat_twilio.twilio.call_resource import CallResource
from pipecat_twilio.twilio.hangup import PendingHangUp, hang_up


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


def long() -> float:
    return 3600.0


def pending(ending: Ending, wait_secs: Callable[[], float] = long) -> PendingHangUp:
    return PendingHangUp(ending, wait_secs, name="Bot")


async def forever() -> None:
    await asyncio.Event().wait()


async def within_10_secs(awaitable: Awaitable[object]) -> None:
    await asyncio.wait_for(awaitable, 10)


class TestTheWait:
    async def test_it_waits_again_as_long_as_wait_secs_says(self) -> None:
        ending, told = Ending(), [0.001, 0.001, 0.0, 99.0]

        def wait_secs() -> float:
            assert not ending.begun
            return told.pop(0)

        await within_10_secs(pending(ending, wait_secs).done())
        assert told == [99.0]
        assert ending.ended == 1

    async def test_the_call_is_not_ended_before_the_wait_is_over(self) -> None:
        ending = Ending()
        waiting = pending(ending)
        await asyncio.sleep(0.01)
        assert not ending.begun
        waiting.hurry()
        await within_10_secs(waiting.done())

    async def test_hurry_ends_the_wait_before_and_after_it_begins(self) -> None:
        ending = Ending()
        early, late = pending(ending), pending(ending)
        early.hurry()
        await within_10_secs(early.done())
        assert ending.ended == 1
        late.hurry()
        await within_10_secs(late.done())
        assert ending.ended == 2

    async def test_cancelling_whoever_awaits_it_hurries_but_does_not_cancel(self) -> None:
        ending = Ending(lambda: asyncio.sleep(0.001))
        waiting = pending(ending)
        someone = asyncio.create_task(waiting.done())
        await asyncio.sleep(0)
        someone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await someone
        await within_10_secs(waiting.done())
        assert ending.ended == 1

    @pytest.mark.parametrize("broken", [None, "1", 10**400, float("nan")])
    async def test_a_broken_clock_does_not_keep_the_call_open(self, broken, log) -> None:
        ending = Ending()
        await within_10_secs(pending(ending, lambda: broken).done())
        assert ending.ended == 1

    async def test_a_failing_end_is_logged_without_its_text(self, log: list[str]) -> None:
        async def fail() -> None:
            raise OSError("secret in the text")

        await within_10_secs(pending(Ending(fail), lambda: 0).done())
        assert log == ["ERROR Bot failed to hang up: OSError\n"]


class TestCancelled:
    @pytest.mark.parametrize("steps", [0, 1, 5])
    async def test_after_one_cancellation_it_ends_the_call_at_once(self, steps, log) -> None:
        async def as_new() -> None:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

        ending = Ending(as_new)
        waiting = pending(ending)
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting._task.cancel()
        await within_10_secs(waiting.done())
        assert ending.ended == 1
        assert [line.split()[0] for line in log] == ["DEBUG"]

    async def test_a_second_cancellation_stops_it_with_an_error(self, log: list[str]) -> None:
        ending = Ending(forever, forever)
        waiting = pending(ending, lambda: 0)
        for begun in (1, 2):
            await asyncio.sleep(0.001)
            assert ending.begun == begun
            waiting._task.cancel()
        await within_10_secs(waiting.done())
        assert waiting._task.cancelled()
        assert (ending.begun, ending.ended) == (2, 0)
        assert log[-1] == "ERROR Bot was cancelled: the call may be left open\n"
        del waiting
        gc.collect()
        assert sum(line.startswith("ERROR") for line in log) == 1


class Api(BaseHTTPRequestHandler):
    """A REST API in a thread, so that it outlives an event loop; it may delay the first answer."""

    requests: list[str]
    arrived: threading.Event
    first: threading.Event

    def do_POST(self) -> None:
        self.requests.append(self.path)
        self.arrived.set()
        if len(self.requests) == 1:
            self.first.wait(10)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[type[Api]]:
    fresh = {"requests": [], "arrived": threading.Event(), "first": threading.Event()}
    handler = type("Handler", (Api,), fresh)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield handler
    handler.first.set()
    server.shutdown()
    thread.join()
    server.server_close()


def request(api: type[Api]) -> Callable[[], Awaitable[object]]:
    resource = CallResource("AC1", "CA1", auth_token="x", base_url=api.url)
    return lambda: hang_up(resource)


class TestTheLoopStops:
    @pytest.mark.parametrize("steps", [0, 1, 5])
    def test_during_the_wait_the_request_is_sent_at_once(self, api, steps, log) -> None:
        api.first.set()

        async def main() -> None:
            kept.append(pending(request(api)))
            for _ in range(steps):
                await asyncio.sleep(0)

        kept: list[PendingHangUp] = []
        asyncio.run(main())
        assert len(api.requests) == 1
        assert [line.split()[0] for line in log] == ["DEBUG", "INFO"]

    def test_during_the_request_it_is_made_again(self, api: type[Api], log: list[str]) -> None:
        async def main() -> None:
            kept.append(pending(request(api), lambda: 0))
            await asyncio.to_thread(api.arrived.wait, 10)

        kept: list[PendingHangUp] = []
        asyncio.run(main())
        assert len(api.requests) == 2
        assert log[-1].startswith("INFO <Call CA1> was ended")

    @pytest.mark.parametrize("ending", [Ending(), Ending(forever)])
    def test_an_error_says_that_the_call_was_left_open(self, ending, log, caplog) -> None:
        caplog.set_level(logging.CRITICAL)  # what asyncio itself has to say

        async def main() -> None:
            kept.append(pending(ending, lambda: 0 if ending.waits else 3600))
            await asyncio.sleep(0.001)

        kept: list[PendingHangUp] = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        assert not log
        kept.clear()
        gc.collect()
        assert log == ["ERROR Bot was stopped before it hung up: the call was left open\n"]

    def test_a_call_that_was_ended_is_not_reported(self, log: list[str]) -> None:
        async def main() -> None:
            await pending(Ending(), lambda: 0).done()

        asyncio.run(main())
        gc.collect()
        assert not log


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


PYTHON_ENDS = """
import asyncio, weakref

class Something: pass
early = Something()
weakref.finalize(early, print)  # its clean-up at exit then comes after that of the log

from pipecat_twilio.twilio.hangup import PendingHangUp

async def main():
    global kept
    kept = PendingHangUp(asyncio.sleep, lambda: 3600, name="Bot")

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
"""


def test_at_the_end_of_python_an_error_says_that_the_call_was_left_open() -> None:
    ended = run(PYTHON_ENDS)
    assert ended.returncode == 0
    assert "Bot was stopped before it hung up: the call was left open" in ended.stderr


UVICORN = """
import asyncio, os, signal, sys, time
import uvicorn
from pipecat_twilio.twilio.call_resource import CallResource
from pipecat_twilio.twilio.hangup import PendingHangUp, hang_up

url, number, wait_secs = sys.argv[1], getattr(signal, sys.argv[2]), float(sys.argv[3])
resource = CallResource("AC1", "CA1", auth_token="x", base_url=url)

async def bot():
    end = time.monotonic() + wait_secs
    await PendingHangUp(lambda: hang_up(resource), lambda: end - time.monotonic(), name="B").done()

async def app(scope, receive, send):
    if scope["type"] == "http":
        running = asyncio.create_task(bot())
        await asyncio.sleep(0.01)
        os.kill(os.getpid(), number)
        await running

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        _, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")

Server(uvicorn.Config(app, port=0, timeout_graceful_shutdown=None)).run()
"""


def test_uvicorn_lets_a_bot_hang_up_that_its_endpoint_waits_for(api: type[Api]) -> None:
    api.first.set()
    ended = run(UVICORN, api.url, "SIGTERM", "0.5")
    assert "Shutting down" in ended.stderr
    assert api.requests == ["/2010-04-01/Accounts/AC1/Calls/CA1.json"]
