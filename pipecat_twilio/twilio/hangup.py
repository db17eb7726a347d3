"""The request that ends a call over Twilio's REST API.

Of aiohttp's errors only the type is logged: they can quote the request's headers, which are secret.

The retries are written here: retry libraries have no single time limit for attempts and pauses
together, and do not know `Retry-After`.
"""

import asyncio
import json
import random
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

import aiohttp
from loguru import logger
from yarl import URL

from pipecat_twilio.twilio.call_resource import CallResource

# By status and Twilio's code. Source: https://www.twilio.com/docs/api/errors/20404 and 21220
_ALREADY_OVER: dict[tuple[int, int | None], str] = {
    (404, 20404): "had ended already, or is no call of this account",
    (400, 21220): "had ended already",
}

_FIRST_PAUSE_SECS = 0.2
_MAX_BODY_BYTES = 4096  # of an answer; the rest is not read
_MAX_BODY_SECS = 1.0  # Twilio's answers are short and come in one piece


@dataclass(frozen=True)
class Answer:
    """The result of an attempt to end a call."""

    text: str  # the server's, or why there is none; short, printable, not secret
    ending: str = ""  # how the call has ended; empty if it has not, as far as is known
    retry: bool = False
    retry_after_secs: float = 0.0


async def hang_up(resource: CallResource, *, timeout_secs: float = 5.0) -> Answer:
    """Ends a call, logs the result, and returns the last answer.

    After a connection error, 408, 429 or 5xx it tries again: after a growing random pause, and no
    sooner than `Retry-After` asks. To end a call twice does no harm. `timeout_secs` is the limit
    for all attempts and pauses together. Nothing but `CancelledError` is raised.
    """
    answer, attempts = Answer(f"no answer within {timeout_secs} s"), 0
    try:
        end = asyncio.get_running_loop().time() + timeout_secs
        # The body is not decompressed, so that can neither fail nor take memory. A server that
        # failed may close its connection, so none is used twice.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), auto_decompress=False
        )
        async with asyncio.timeout_at(end), session:
            while True:
                attempts += 1
                try:
                    # The status line is enough: the body is not read or decoded.
                    with closing(await _post(session, resource)) as response:
                        answer = _interpret(resource, response, b"")
                        if not answer.ending:
                            answer = _interpret(resource, response, await _read_start(response))
                except Exception as error:  # noqa: BLE001  # the pipeline must not fail of it
                    answer = Answer(type(error).__name__, retry=True)
                # Random, so that all calls do not try again at the same moment after a server
                # failed; doubled with each attempt, so that six take at least 3.1 s.
                longest = _FIRST_PAUSE_SECS * 2**attempts
                pause_secs = random.uniform(longest / 4, longest)  # noqa: S311
                pause_secs = max(answer.retry_after_secs, pause_secs)
                if not answer.retry or asyncio.get_running_loop().time() + pause_secs >= end:
                    break
                logger.debug(f"{resource}: {answer.text}; once more in {pause_secs:.1f} s")
                await asyncio.sleep(pause_secs)
    except TimeoutError:
        pass  # the last answer counts
    if answer.ending:
        logger.info(f"{resource} {answer.ending}")
    else:
        logger.error(f"{resource} was not ended ({attempts} attempts): {answer.text}")
    return answer


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

    aiohttp's `trust_env` would also read `.netrc`: 3.11 sends its login, 3.14 none.
    """
    proxy = getproxies().get(url.scheme)
    # With the port, since an entry of NO_PROXY may have one.
    if proxy and not proxy_bypass(url.authority):
        return proxy if "://" in proxy else f"http://{proxy}"
    return None


def _interpret(resource: CallResource, response: aiohttp.ClientResponse, body: bytes) -> Answer:
    status, code = response.status, _twilio_code(body)
    if 200 <= status < 300:
        return Answer(str(status), "was ended")
    if ending := _ALREADY_OVER.get((status, code)):
        return Answer(f"{status}, code {code}", ending)
    if status == 401:
        hint = f"check the {resource.credentials}, and that it belongs to"
        return Answer(f"401, {hint} {resource.credentials_region}")
    text = body.decode(errors="replace")
    if resource.shows_secret(text):  # some servers' error pages show the request
        text = "a text that quotes the credentials"
    return Answer(
        f"{status}, {text[:200]!a}",
        retry=status in (408, 429) or status >= 500,
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
    """Returns Twilio's own error code: a 404 with one is Twilio's, not another server's."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return code if isinstance(code, int) else None


def _retry_after_secs(header: str | None) -> float:
    """Reads `Retry-After`, seconds or a date; otherwise 0. Source: RFC 9110, section 10.2.3."""
    header = header or ""
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return 0.0
