"""The Call resource of Twilio's REST API: its address and the credentials for it. No I/O.

The call SID usually comes from a WebSocket that anyone may have opened, and the request carries
the account's credentials. So every part of the address is checked before it is used.

Source: https://www.twilio.com/docs/voice/api/call-resource#update-a-call-resource
"""

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, wraps
from ipaddress import ip_address
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from loguru import logger

_MAX_SID_LENGTH = 256  # Twilio's own SIDs have 34 characters
_TWILIO_SID = re.compile(r"[A-Za-z0-9_-]+")
# A SID of a compatible API: printable ASCII, but nothing that could lead the request elsewhere.
_OTHER_SID = re.compile(r"(?!\.+\Z)[^/?#%\\\x00-\x20\x7f-\U0010ffff]+")
_DNS_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123, section 2.1
_NOT_IN_BASE_URL = re.compile(r'[^!-~]|[@?#\\"<>]')  # all but printable ASCII, and some of that

P = ParamSpec("P")
R = TypeVar("R")


def without_traceback(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function raise its errors without the frames below it: loguru logs variables."""

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None) from None

    return checked


@dataclass(repr=False, eq=False)
class CallResource:
    """The address of one call, and the credentials that may end it.

    The arguments are those of `TwilioFrameSerializer`.

    Attributes:
        url: The address of the resource, exactly as it must be sent.
        authorization: The `Authorization` header, which is secret.
        credentials: The kind of credentials, for the log.
        credentials_region: The region or API that they must belong to, for the log.

    Raises:
        ValueError: An argument is missing, malformed or not a str, or both kinds of credentials
            are given. The text names the argument, and never shows a secret.
    """

    account_sid: str | None
    call_sid: str | None
    _: KW_ONLY
    auth_token: str | None = None
    api_key_sid: str | None = None
    api_key_secret: str | None = None
    region: str | None = None
    edge: str | None = None
    base_url: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} must be a str, got {type(value).__name__}")
        login = self.auth_token or self.api_key_sid or self.api_key_secret
        needed = {
            "call_sid": self.call_sid,
            "account_sid": self.account_sid,
            "auth_token or api_key_sid + api_key_secret": login,
        }
        if missing := ", ".join(name for name, value in needed.items() if not value):
            raise ValueError(f"auto_hang_up is enabled but missing required parameters: {missing}")
        if self.auth_token and (self.api_key_sid or self.api_key_secret):
            raise ValueError("Provide either auth_token or api_key_sid + api_key_secret, not both")
        if not self.auth_token and not (self.api_key_sid and self.api_key_secret):
            raise ValueError(
                "Both api_key_sid and api_key_secret parameters are required if one is set: "
                f"{'api_key_secret' if self.api_key_sid else 'api_key_sid'} is missing"
            )
        sids = str(self.account_sid), str(self.call_sid)
        self.url = call_url(*sids, self.region, self.edge, self.base_url)
        self.credentials_region = self.base_url or self.region or "us1, the default"
        self.credentials = "auth token" if self.auth_token else f"API key {self.api_key_sid!a}"
        self._secret = str(self.auth_token or self.api_key_secret)
        name = "account_sid" if self.auth_token else "api_key_sid"
        user = getattr(self, name)
        if ":" in user:  # RFC 7617, section 2: the secret follows the first
            raise ValueError(f"{name} must not contain a colon, got {user!a:.99}")
        try:
            login = b64encode(f"{user}:{self._secret}".encode()).decode()
        except UnicodeEncodeError:
            name = "auth_token" if self.auth_token else "api_key_sid or api_key_secret"
            raise ValueError(f"{name} cannot be encoded as UTF-8") from None
        self.authorization = f"Basic {login}"

    def __repr__(self) -> str:
        return f"<Call {self.call_sid}>"

    def shows_secret(self, text: str) -> bool:
        """Whether a text, such as a server's error page, contains the credentials."""
        return self._secret in text or self.authorization.removeprefix("Basic ") in text


def call_url(
    account_sid: str, call_sid: str, region: str | None, edge: str | None, base_url: str | None
) -> str:
    """Returns the address of a call's resource; the arguments are those of `CallResource`.

    Raises:
        ValueError: One could lead the request elsewhere, or region or edge is missing.
    """
    if base_url:
        form, allowed = _OTHER_SID, "printable ASCII without / ? # % \\, and not only dots"
    else:
        form, allowed = _TWILIO_SID, "letters, digits, _ and -"
    for name, sid in (("account_sid", account_sid), ("call_sid", call_sid)):
        if len(sid) > _MAX_SID_LENGTH or not form.fullmatch(sid):
            raise ValueError(
                f"{name} must be at most {_MAX_SID_LENGTH} characters, {allowed}, got {sid[:99]!a}"
            )
    for name, label in (("region", region), ("edge", edge)):
        if label and not _DNS_LABEL.fullmatch(label):
            raise ValueError(f"{name} must be a DNS label, got {label[:99]!a}")
    if base_url:
        root = _checked_base_url(base_url)
    elif region and edge:
        root = f"https://api.{edge}.{region}.twilio.com"
    elif region or edge:
        raise ValueError(
            "Both edge and region parameters are required if one is set: "
            f"{'edge' if region else 'region'} is missing, got {region=} and {edge=}"
        )
    else:
        root = "https://api.twilio.com"
    return f"{root}/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"


def _checked_base_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host = parts.hostname
        is_valid = host and parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError:
        is_valid = False
    if not is_valid or _NOT_IN_BASE_URL.search(base_url):
        shown = "one with credentials in it" if "@" in base_url else ascii(base_url[:99])
        raise ValueError(
            f"base_url must be http(s)://host, with no credentials, query or space, got {shown}"
        )
    if parts.scheme == "http":
        _warn_of_clear_text(str(host))
    return base_url.rstrip("/")


@lru_cache(maxsize=64)  # once for each host
def _warn_of_clear_text(host: str) -> None:
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        logger.warning(f"base_url is http: credentials will travel to {host} in clear")
