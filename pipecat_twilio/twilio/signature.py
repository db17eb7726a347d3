"""Is this webhook or WebSocket request from Twilio? No I/O.

Twilio signs the URL it requested, and a webhook's form parameters, with the account's primary
auth token (an API key will not do), and sends the signature as `X-Twilio-Signature`. A JSON
webhook's body is signed by its SHA-256 in the URL, the query parameter `bodySHA256`.

Source: https://www.twilio.com/docs/usage/security#validating-requests
"""

import hmac
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from urllib.parse import ParseResult, parse_qs, urlparse


def is_valid_signature(
    auth_token: str,
    url: str,
    signature: str,
    params: Mapping[str, str | Sequence[str]] | None = None,
    *,
    body: bytes | None = None,
) -> bool:
    """Whether Twilio signed a request with this account's auth token.

    The result is that of Twilio's own library, except that WebSocket URLs are also accepted if
    they differ in a slash at the end of the path, or in the port 443.

    Args:
        auth_token: The account's primary auth token.
        url: The URL as Twilio requested it: for a WebSocket `wss://...`. Behind a proxy this is
            the public URL, from your configuration: a forwarded header can be forged.
        signature: The `X-Twilio-Signature` header.
        params: The form parameters of a webhook, each with its value or values; None for a
            WebSocket, a GET request or a JSON webhook.
        body: The body of a webhook as it was received. It is needed if the URL has a
            `bodySHA256`, which must be its hash. With neither that nor `params` it is not valid.

    Returns:
        Whether the signature is valid. False for malformed arguments too: nothing is raised.
    """
    if not auth_token or not isinstance(signature, str) or not isinstance(url, str):
        return False
    try:
        parts = urlparse(url)
        if not _is_signed(body, parts.query, params):
            return False
        form = "".join(_signed_form(params or {}))
        key, given = auth_token.encode(), signature.encode()
        digests = (hmac.digest(key, (url + form).encode(), "sha1") for url in _variants(parts))
        return any(hmac.compare_digest(b64encode(digest), given) for digest in digests)
    except (AttributeError, LookupError, TypeError, ValueError):
        return False


def _is_signed(body: bytes | None, query: str, params: object) -> bool:
    """Whether a signature of the URL and the parameters covers the body too."""
    hashes = parse_qs(query, keep_blank_values=True).get("bodySHA256")
    if hashes is None:
        return not body or bool(params)
    return body is not None and hmac.compare_digest(sha256(body).hexdigest(), hashes[0])


def _signed_form(params: Mapping[str, str | Sequence[str]]) -> Iterator[str]:
    """Yields the signed text of the parameters: names and distinct values, sorted."""
    for name in sorted(params):
        values = params[name]
        for value in [values] if isinstance(values, str) else sorted(set(values)):
            yield name + value


def _variants(parts: ParseResult) -> Iterator[str]:
    """Yields the forms of the URL that Twilio may have signed: with and without its port.

    This copies Twilio's library exactly, even where it is odd: the default port of `wss` is 80
    (443 is added here), and the host ends at the first colon, even if that follows a user's name.
    """
    ports = {"https": (443,), "wss": (80, 443)}.get(parts.scheme, (80,))
    hosts = [parts.netloc, *(f"{parts.netloc}:{port}" for port in ports)]
    if parts.port:
        hosts = [parts.netloc, parts.netloc.split(":")[0]]
    paths = [parts.path]
    if parts.scheme in ("ws", "wss"):  # Twilio is not consistent about the slash
        paths.append(parts.path[:-1] if parts.path.endswith("/") else f"{parts.path}/")
    for host in hosts:
        for path in paths:
            yield parts._replace(netloc=host, path=path).geturl()
