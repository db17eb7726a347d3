"""Ending a call over Twilio's REST API: the address of its resource, and the request.

The call SID usually comes from a WebSocket that anyone may have opened, and the request carries
the account's credentials: so everything that makes up the address is checked before, and nothing
secret is ever logged. aiohttp's own errors can quote the request's headers, so only their type is.

The retries are our own: the generic retry libraries know neither one time limit over attempts and
pauses together nor `Retry-After`, and teaching them both takes more lines than the loop.

Source: https://www.twilio.com/docs/voice/api/call-resource#update-a-call-resource
"""

import asyncio
import json
import random
import re
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
from loguru import logger
from yarl import URL

_SID = re.compile(r"[A-Za-z0-9_-]+")
_DNS_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123, section 2.1

_ALREADY_OVER = {
    (404, 20404),  # https://www.twilio.com/docs/api/errors/20404
    (400, 21220),  # https://www.twilio.com/docs/api/errors/21220
}

_FIRST_PAUSE_SECS = 0.2
_LONGEST_BODY = 4096  # bytes of an answer that are looked at


class _Answer(NamedTuple):
    """What came of one attempt."""

    over: bool = False
    fault: str = ""
    again: bool = False
    retry_after_secs: float | None = None


class Call:
    """The REST resource of one call, and the credentials that may end it.

    Args:
        account_sid: The account's SID; part of the address whatever the credentials are.
        call_sid: The call's SID.
        auth_token: The account's auth token; not together with an API key.
        api_key_sid: SID of an API key, together with `api_key_secret`.
        api_key_secret: Secret of the API key.
        region: The Twilio region that processes the call, together with `edge`.
        edge: The Twilio edge to reach it by.
        base_url: Root of the API, verbatim, in place of the one that region and edge make.

    Raises:
        ValueError: A credential is missing, there are two kinds or half an API key, or a part
            of the address is malformed. The text names the argument, and never shows a secret.
    """

    def __init__(
        self,
        account_sid: str | None,
        call_sid: str | None,
        *,
        auth_token: str | None = None,
        api_key_sid: str | None = None,
        api_key_secret: str | None = None,
        region: str | None = None,
        edge: str | None = None,
        base_url: str | None = None,
    ) -> None:
        needed = {
            "call_sid": call_sid,
            "account_sid": account_sid,
            "auth_token or api_key_sid and api_key_secret": (
                auth_token or api_key_sid or api_key_secret
            ),
        }
        if missing := [name for name, value in needed.items() if not value]:
            raise ValueError(f"hanging up needs {', '.join(missing)}")
        if auth_token and (api_key_sid or api_key_secret):
            raise ValueError("give either auth_token or api_key_sid and api_key_secret, not both")
        if not auth_token and not (api_key_sid and api_key_secret):
            missing_half = "api_key_secret" if api_key_sid else "api_key_sid"
            raise ValueError(f"api_key_sid and api_key_secret belong together: {missing_half}?")
        self.call_sid = str(call_sid)
        self.url = call_url(
            str(account_sid), self.call_sid, region=region, edge=edge, base_url=base_url
        )
        if auth_token:
            self._credentials = "auth token"
            login = f"{account_sid}:{auth_token}"
        else:
            self._credentials = f"API key {api_key_sid!a}"
            login = f"{api_key_sid}:{api_key_secret}"
        self._region = base_url or region or "us1, the default"
        self._authorization = f"Basic {b64encode(login.encode()).decode()}"

    def __repr__(self) -> str:
        return f"<Call {self.call_sid}>"

    async def complete(self, *, timeout_secs: float = 5.0) -> bool:
        """Ends the call; says in the log what came of it.

        Connection errors, 408, 429 and 5xx are tried again, after what `Retry-After` asks for or
        a growing random pause; asking twice does no harm.

        Args:
            timeout_secs: Limit of all attempts and pauses together.

        Returns:
            Whether the call is known to be over. Nothing but `CancelledError` is raised.
        """
        answer, attempts = _Answer(fault="no answer"), 0
        try:
            async with asyncio.timeout(timeout_secs) as limit, aiohttp.ClientSession() as session:
                while True:
                    attempts += 1
                    answer = await self._attempt(session)
                    if answer.over or not answer.again:
                        break
                    pause_secs = answer.retry_after_secs
                    if pause_secs is None:
                        # Full jitter, so that the calls of a failed server do not return at once.
                        longest = _FIRST_PAUSE_SECS * 2**attempts
                        pause_secs = random.uniform(longest / 4, longest)  # noqa: S311
                    end = limit.when()
                    if end is None or asyncio.get_running_loop().time() + pause_secs >= end:
                        break
                    logger.debug(f"{self}: {answer.fault}; once more in {pause_secs:.1f} s")
                    await asyncio.sleep(pause_secs)
        except TimeoutError:
            answer = answer._replace(fault=f"{answer.fault} within {timeout_secs} s")
        except Exception as error:  # noqa: BLE001  # a call's end must not raise into the pipeline
            answer = _Answer(fault=type(error).__name__)
        if not answer.over:
            logger.error(f"{self} was not ended, {attempts} attempts: {answer.fault}")
        return answer.over

    async def _attempt(self, session: aiohttp.ClientSession) -> _Answer:
        try:
            async with session.post(
                URL(self.url, encoded=True),
                data={"Status": "completed"},
                headers={"Authorization": self._authorization},
                allow_redirects=False,  # the credentials are for this host only
            ) as response:
                return self._judge(response, await _read_start(response))
        except (aiohttp.ClientError, OSError) as error:
            return _Answer(fault=type(error).__name__, again=True)

    def _judge(self, response: aiohttp.ClientResponse, body: bytes) -> _Answer:
        status, code = response.status, _twilio_code(body)
        if 200 <= status < 300:
            logger.info(f"{self} was ended")
            return _Answer(over=True)
        if (status, code) in _ALREADY_OVER:
            logger.debug(f"{self} was over already")
            return _Answer(over=True)
        if status == 401:
            hint = f"check the {self._credentials}, and that it belongs to {self._region}"
            return _Answer(fault=f"401, {hint}")
        return _Answer(
            fault=f"{status}, {body[:200].decode(errors='replace')!a}",
            again=status in (408, 429) or status >= 500,
            retry_after_secs=_retry_after_secs(response.headers.get("Retry-After")),
        )


def call_url(
    account_sid: str,
    call_sid: str,
    *,
    region: str | None = None,
    edge: str | None = None,
    base_url: str | None = None,
) -> str:
    """Returns the address of a call's resource.

    Args:
        account_sid: The account's SID.
        call_sid: The call's SID.
        region: Twilio region, such as `ie1`; together with `edge`.
        edge: Twilio edge, such as `dublin`; together with `region`.
        base_url: Root of the API, verbatim but for a slash at its end; goes before region and
            edge.

    Raises:
        ValueError: An argument has a character that could lead the request elsewhere, or only
            one of region and edge is given without a `base_url`.
    """
    for name, sid in (("account_sid", account_sid), ("call_sid", call_sid)):
        if not _SID.fullmatch(sid):
            raise ValueError(f"{name} must be letters, digits, _ and -, got {sid[:99]!a}")
    for name, label in (("region", region), ("edge", edge)):
        if label and not _DNS_LABEL.fullmatch(label):
            raise ValueError(f"{name} must be a DNS label, got {label[:99]!a}")
    if base_url:
        root = _checked_base_url(base_url)
    elif region and edge:
        root = f"https://api.{edge}.{region}.twilio.com"
    elif region or edge:
        raise ValueError(f"region and edge belong together, got {region=} and {edge=}")
    else:
        root = "https://api.twilio.com"
    return f"{root}/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"


def _checked_base_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if (
        not host
        or port == 0
        or scheme not in ("http", "https")
        or not base_url.isascii()
        or not base_url.isprintable()
        or any(character in base_url for character in ' @?#\\"<>')
    ):
        shown = "one with credentials in it" if "@" in base_url else ascii(base_url[:99])
        raise ValueError(
            f"base_url must be http(s)://host, with no credentials, query or space, got {shown}"
        )
    if scheme == "http" and not _is_loopback(host):
        _warn_of_clear_text(host)
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=64)  # once for each host
def _warn_of_clear_text(host: str) -> None:
    logger.warning(f"base_url is http: credentials will travel to {host} in clear")


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_chunked(_LONGEST_BODY):
        body += chunk
        if len(body) >= _LONGEST_BODY:
            break
    return body


def _twilio_code(body: bytes) -> int | None:
    """Returns Twilio's own error code, which tells its 404 from a stray server's."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return code if isinstance(code, int) else None


def _retry_after_secs(header: str | None) -> float | None:
    """Reads `Retry-After`: seconds or a date. Source: RFC 9110, section 10.2.3."""
    if header is None:
        return None
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
