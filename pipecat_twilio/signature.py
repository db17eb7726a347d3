"""Is this webhook or WebSocket request from Twilio? No I/O.

Twilio signs the URL it requested, and a webhook's form parameters, with the account's primary
auth token (an API key will not do), and sends the signature as `X-Twilio-Signature`.

Source: https://www.twilio.com/docs/usage/security#validating-requests
"""

import hmac
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha1
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def is_valid_signature(
    auth_token: str,
    url: str,
    signature: str,
    params: Mapping[str, str | Sequence[str]] | None = None,
) -> bool:
    """Tells whether Twilio signed a request with this account's auth token.

    Args:
        auth_token: The account's primary auth token.
        url: The URL as Twilio requested it: for a WebSocket `wss://...`. Behind a proxy this is
            the public URL, from your configuration: a forwarded header can be forged.
        signature: The `X-Twilio-Signature` header.
        params: The form parameters of a webhook, each with its value or values; None for a
            WebSocket or a GET request.

    Returns:
        False for anything else, hostile or malformed arguments included; nothing is raised.
    """
    if not auth_token or not isinstance(signature, str) or not isinstance(url, str):
        return False
    try:
        form = "".join(_signed_form(params or {}))
        given = signature.encode()
        return any(
            hmac.compare_digest(_sign(auth_token, variant + form), given)
            for variant in _variants(url)
        )
    except (AttributeError, LookupError, TypeError, ValueError):
        return False


def _sign(auth_token: str, text: str) -> bytes:
    return b64encode(hmac.new(auth_token.encode(), text.encode(), sha1).digest())


def _signed_form(params: Mapping[str, str | Sequence[str]]) -> Iterator[str]:
    """Yields what of the parameters is signed: names and distinct values, sorted."""
    for name in sorted(params):
        values = params[name]
        for value in [values] if isinstance(values, str) else sorted(set(values)):
            yield name + value


def _variants(url: str) -> Iterator[str]:
    """Yields the URL as Twilio may have signed it: with or without port and last slash."""
    parts = urlsplit(url)
    host, port = parts.netloc, parts.port
    # Twilio's own validator tries a URL without its port even if that is not the default one.
    other_host = (
        f"{host}:{_DEFAULT_PORTS[parts.scheme]}" if port is None else host.removesuffix(f":{port}")
    )
    paths = [parts.path]
    if not parts.query:
        paths.append(parts.path[:-1] if parts.path.endswith("/") else f"{parts.path}/")
    start, _, rest = url.partition("://")
    after_path = rest[len(parts.netloc) + len(parts.path) :]
    for netloc in (host, other_host):
        for path in paths:
            yield f"{start}://{netloc}{path}{after_path}"
