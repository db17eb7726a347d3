"""Ending a call over Twilio's REST API, whatever happens around it.

`hang_up` makes the request; `PendingHangUp` decides when. Nothing secret is ever logged: aiohttp's
own errors can quote the request's headers, so only their type is logged.

The retries are our own: the generic retry libraries know neither one time limit over attempts and
pauses together nor `Retry-After`, and teaching them both takes more lines than the loop.
"""

import asyncio
import atexit
import json
import random
import weakref
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

import aiohttp
from loguru import logger
from yarl import URL

from pipecat_twilio.twilio.call_resource import CallResource

_ALREADY_OVER: dict[tuple[int, int | None], str] = {
    # https://www.twilio.com/docs/api/errors/20404
    (404, 20404): "had ended already, or is no call of this account",
    # https://www.twilio.com/docs/api/errors/21220
    (400, 21220): "had ended already",
}

_FIRST_PAUSE_SECS = 0.2
_MAX_BODY_BYTES = 4096  # of an answer that are looked at
_MAX_BODY_SECS = 1.0  # Twilio's answers are short and come in one piece


@dataclass(frozen=True)
class Outcome:
    """What came of ending a call.

    Attributes:
        over: Whether the call is known to be over.
        answer: What the server said, or why there is no answer; short, printable, not secret.
        attempts: How many requests were made.
    """

    over: bool
    answer: str
    attempts: int


@dataclass(frozen=True)
class _Answer:
    """The result of one attempt; `ending` says how the call ended, if it did."""

    text: str
    ending: str = ""
    again: bool = False
    retry_after_secs: float = 0.0


async def hang_up(resource: CallResource, *, timeout_secs: float = 5.0) -> Outcome:
    """Ends a call, and says in the log what came of it.

    Connection errors, 408, 429 and 5xx are tried again after a growing random pause, and no sooner
    than `Retry-After` asks; asking twice does no harm.

    Args:
        resource: The call.
        timeout_secs: Limit of all attempts and pauses together, in seconds.

    Returns:
        What came of it. Nothing but `CancelledError` is raised.
    """
    answer, attempts = _Answer(f"no answer within {timeout_secs} s"), 0
    try:
        end = asyncio.get_running_loop().time() + timeout_secs
        async with asyncio.timeout_at(end), _session() as session:
            while True:
                attempts += 1
                try:
                    # The status line is enough: the body is not read or decoded.
                    with closing(await _post(session, resource)) as response:
                        answer = _judge(resource, response, b"")
                        if not answer.ending:
                            answer = _judge(resource, response, await _read_start(response))
                except (aiohttp.ClientError, OSError) as error:
                    answer = _Answer(type(error).__name__, again=True)
                pause_secs = max(answer.retry_after_secs, _random_pause_secs(attempts))
                if not answer.again or asyncio.get_running_loop().time() + pause_secs >= end:
                    break
                logger.debug(f"{resource}: {answer.text}; once more in {pause_secs:.1f} s")
                await asyncio.sleep(pause_secs)
    except TimeoutError:
        pass  # the last answer counts
    except Exception as error:  # noqa: BLE001  # a call's end must not raise into the pipeline
        answer = answer if answer.ending else _Answer(type(error).__name__)
    if answer.ending:
        logger.info(f"{resource} {answer.ending}")
    else:
        logger.error(f"{resource} was not ended ({attempts} attempts): {answer.text}")
    return Outcome(bool(answer.ending), answer.text, attempts)


def _session() -> aiohttp.ClientSession:
    # The body is not decompressed, so it can neither fail nor grow: see also `Accept-Encoding`.
    # A server that failed may be about to close its connection, so none is used twice.
    connector = aiohttp.TCPConnector(force_close=True)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False)


async def _post(session: aiohttp.ClientSession, resource: CallResource) -> aiohttp.ClientResponse:
    url = URL(resource.url, encoded=True)  # verbatim
    return await session.post(
        url,
        data={"Status": "completed"},
        headers={"Authorization": resource.authorization, "Accept-Encoding": "identity"},
        allow_redirects=False,  # the credentials are for this host only
        proxy=_proxy(url),
    )


def _proxy(url: URL) -> str | None:
    """Returns the proxy that the environment names for an address, if any.

    aiohttp's own `trust_env` would take a login from `.netrc` too, and with one for this host
    aiohttp 3.11 sends that in place of ours, and 3.14 refuses to send anything.
    """
    proxy = getproxies().get(url.scheme)
    # With the port: an entry of NO_PROXY may be a host, or a host and port.
    if not proxy or proxy_bypass(url.authority):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _judge(resource: CallResource, response: aiohttp.ClientResponse, body: bytes) -> _Answer:
    status, code = response.status, _twilio_code(body)
    if 200 <= status < 300:
        return _Answer(str(status), "was ended")
    if ending := _ALREADY_OVER.get((status, code)):
        return _Answer(f"{status}, code {code}", ending)
    if status == 401:
        hint = f"check the {resource.credentials}, and that it belongs to {resource.region}"
        return _Answer(f"401, {hint}")
    text = body.decode(errors="replace")
    if resource.shows_secret(text):  # a page for debugging
        text = "a text that quotes the credentials"
    return _Answer(
        f"{status}, {text[:200]!a}",
        again=status in (408, 429) or status >= 500,
        retry_after_secs=_retry_after_secs(response.headers.get("Retry-After")),
    )


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    """Reads the start of the body; a faulty body does not change the status."""
    body = b""
    with suppress(aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
        async with asyncio.timeout(_MAX_BODY_SECS):
            while missing := _MAX_BODY_BYTES - len(body):
                if not (piece := await response.content.read(missing)):
                    break
                body += piece
    return body


def _twilio_code(body: bytes) -> int | None:
    """Returns Twilio's own error code, which tells its 404 from a stray server's."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return code if isinstance(code, int) else None


def _random_pause_secs(attempts: int) -> float:
    """Returns a pause that doubles with each attempt: six attempts take 3.1 s at the least."""
    longest = _FIRST_PAUSE_SECS * 2**attempts
    # Random, so that the calls of a server that failed do not all return at once.
    return random.uniform(longest / 4, longest)  # noqa: S311


def _retry_after_secs(header: str | None) -> float:
    """Reads `Retry-After`, seconds or a date; 0 if it says nothing.

    Source: RFC 9110, section 10.2.3.
    """
    if header is None:
        return 0.0
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - datetime.now(UTC)).total_seconds()
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return 0.0


_all_pending: weakref.WeakSet["PendingHangUp"] = weakref.WeakSet()


@atexit.register  # after loguru's own, and so called before that closes the log
def _tell_at_exit() -> None:  # pragma: no cover  # is tested in a process of its own
    for pending in list(_all_pending):
        pending._left_open()  # does nothing if the call was ended


class PendingHangUp:
    """Waits until the last words were played, then ends the call, whatever happens around it.

    It is a task of its own, which starts at once. If that task is cancelled, as all tasks are
    when `asyncio.run` returns, it ends the call without more waiting, and a request that was under
    way is made once more. A second cancellation is obeyed. If the call could not be ended because
    the event loop or the process ended first, the log has an error.

    Args:
        end_call: Ends the call. It may be called twice, but only if it is cancelled.
        wait_secs: Says how long still to wait, in seconds; asked again after each wait.
        name: What the log calls this.
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
        self._hurried = asyncio.Event()
        # Called when this object is collected, or when Python ends: see `_tell_at_exit`.
        self._left_open = weakref.finalize(
            self, logger.error, f"{name} was stopped before it hung up: the call was left open"
        )
        _all_pending.add(self)
        steps = self._run()
        # A task that is cancelled before its first step never runs, so the first step, up to
        # the `sleep(0)` inside `try`, is made here.
        steps.send(None)
        self._task = asyncio.get_running_loop().create_task(steps)

    def hurry(self) -> None:
        """Ends the wait, for example after an interruption."""
        self._hurried.set()

    async def done(self) -> None:
        """Returns when the call has been ended, or could not be.

        Cancelling the task that awaits this does not cancel the hang-up, but ends its wait: the
        event loop may be about to stop.
        """
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self.hurry()
            raise

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)
            await self._wait()
            await self._hang_up()
        except asyncio.CancelledError:
            self._task.uncancel()  # what follows is not cancelled
            logger.debug(f"{self._name} was cancelled, and hangs up at once")
            try:
                await self._hang_up()
            except asyncio.CancelledError:
                logger.error(f"{self._name} was cancelled: the call may be left open")
                self._left_open.detach()
                raise
        self._left_open.detach()

    async def _wait(self) -> None:
        try:
            while not self._hurried.is_set() and (secs := self._wait_secs()) > 0:
                with suppress(TimeoutError):  # it has all been played
                    async with asyncio.timeout(secs):
                        await self._hurried.wait()
        except Exception as error:  # noqa: BLE001  # a faulty clock must not keep the call open
            logger.error(f"{self._name} hangs up without waiting: {type(error).__name__}")

    async def _hang_up(self) -> None:
        try:
            await self._end_call()
        except Exception as error:  # noqa: BLE001  # an override's; its text may hold a secret
            logger.error(f"{self._name} failed to hang up: {type(error).__name__}")
