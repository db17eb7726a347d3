"""Signatures, against the validator of Twilio's own library."""

import random
from hashlib import sha256
from typing import Any

import pytest
from twilio.request_validator import RequestValidator

from pipecat_twilio import is_valid_signature

TOKEN = "12345678901234567890123456789012"
VALIDATOR = RequestValidator(TOKEN)
VALIDATORS = [VALIDATOR] * 9 + [RequestValidator(TOKEN[:-1] + "3")]


class Params(dict):
    """Form parameters as Twilio's validator takes them: values by `getlist`."""

    def getlist(self, name: str) -> list[str]:
        value = self[name]
        return value if isinstance(value, list) else [value]


def generated_case(rng: random.Random) -> tuple[str, dict[str, str | list[str]]]:
    scheme = rng.choice(["https", "http", "wss", "ws", "HTTPS"])
    user = rng.choice(["", "", "", "user@", "user:pass@"])
    host = rng.choice(["example.com", "Bot.example.com", "10.0.0.1", "[::1]"])
    port = rng.choice(["", "", "", ":443", ":80", ":8443", ":", ":0"])
    path = rng.choice(["", "/", "/voice", "/ws/", "/a/b%20c", "/a;", "/a;b=c", "//", "/\u00e9"])
    query = rng.choice(["", "", "?a=1&b=2", "?x=%2F", "?"])
    fragment = rng.choice(["", "", "", "#", "#a"])
    params: dict[str, str | list[str]] = {}
    for _ in range(rng.randrange(4)):
        name = "".join(rng.choice("abcXYZ_09\u00e9") for _ in range(rng.randrange(1, 6)))
        values = [
            "".join(rng.choice("abc +&=/\u20ac") for _ in range(rng.randrange(3)))
            for _ in range(rng.randrange(1, 4))
        ]
        params[name] = values if len(values) > 1 else values[0]
    return f"{scheme}://{user}{host}{port}{path}{query}{fragment}", params


# What a proxy might change.
CHANGES = [
    *((":443", ""), (":80", ""), (":8443", ""), (":0", ""), (".com", ".com:443"), ("wss:", "ws:")),
    *((".com", ".com:80"), ("user:pass@", ""), (":pass", ""), ("?", ""), ("#", ""), (";", "")),
    *(("/ws/", "/ws"), ("HTTPS", "https"), (":/", "/"), ("::1]:443", ""), ("example.com:443", "")),
]


def test_the_result_for_a_url_is_that_of_twilios_own_library() -> None:
    rng = random.Random(2010)
    seen = {True: 0, False: 0}
    for _ in range(10_000):
        url, params = generated_case(rng)
        changed = url.replace(*rng.choice(CHANGES), 1)
        signed = rng.choice([url, url, changed, generated_case(rng)[0]])
        signed_params = params if rng.random() < 0.8 else generated_case(rng)[1]
        signature = rng.choice(VALIDATORS).compute_signature(signed, Params(signed_params))
        theirs = VALIDATOR.validate(url, Params(params), signature)
        ours = is_valid_signature(TOKEN, url, signature, params)
        if url.lower().startswith("ws"):  # more is tried: below
            assert ours >= theirs, (url, signed)
        else:
            assert ours == theirs, (url, signed)
        seen[theirs] += 1
    assert min(seen.values()) > 1000  # neither is rare


def sign(url: str, params: dict[str, Any] | None = None) -> str:
    return VALIDATOR.compute_signature(url, Params(params or {}))


@pytest.mark.parametrize(
    ("url", "signed", "is_valid"),
    [
        *(
            (f"wss://a.example{port}/ws{slash}", f"wss://a.example{other}/ws{end}?a=1", True)
            for port, other in (("", ""), ("", ":443"), (":443", ""), ("", ":80"))
            for slash, end in (("", "/"), ("/", ""))
        ),
        *(
            ("wss://a.example/ws", f"{other}?a=1", False)
            for other in (
                *("wss://a.example:8443/ws", "wss://a.example/other", "ws://a.example/ws"),
                *("https://a.example/ws", "wss://a.example/ws//"),
            )
        ),
    ],
)
def test_a_socket_may_differ_in_default_port_and_last_slash_only(url, signed, is_valid) -> None:
    assert is_valid_signature(TOKEN, f"{url}?a=1", sign(signed)) is is_valid


class TestBody:
    """The URL of a JSON webhook has the body's hash, so the signature covers the body too."""

    BODY = '{"a": "\u00e9"}'

    def url(self, body: str) -> str:
        return f"https://a.example/x?b=1&bodySHA256={sha256(body.encode()).hexdigest()}"

    @pytest.mark.parametrize("signed", [BODY, ""])
    @pytest.mark.parametrize("received", [BODY, BODY + " ", "", "{}"])
    def test_the_result_for_a_body_is_that_of_twilios_own_library(
        self, signed: str, received: str
    ) -> None:
        url = self.url(signed)
        theirs = VALIDATOR.validate(url, received, sign(url))
        assert theirs == (signed == received)
        assert is_valid_signature(TOKEN, url, sign(url), body=received.encode()) is theirs

    @pytest.mark.parametrize("params", [None, {"a": "1"}])
    @pytest.mark.parametrize("body", [None, "{}", 5])
    def test_without_a_body_of_bytes_the_url_is_not_valid(self, params: Any, body: Any) -> None:
        for url in (self.url("{}"), "https://a.example/x?bodySHA256="):
            assert is_valid_signature(TOKEN, url, sign(url, params), params, body=body) is False

    @pytest.mark.parametrize("query", ["?bodySHA256=", "?bodySHA256", "?body%53HA256=0", "?a=1"])
    def test_a_body_that_nothing_signs_is_not_valid(self, query: str) -> None:
        url = f"https://a.example/x{query}"
        assert is_valid_signature(TOKEN, url, sign(url), body=b"{}") is False

    def test_a_form_may_be_handed_in_with_its_body(self) -> None:
        url, params = "https://a.example/x", {"a": "1"}
        assert is_valid_signature(TOKEN, url, sign(url, params), params, body=b"a=1")
        assert is_valid_signature(TOKEN, url, sign(url), body=b"")


HOSTILE: list[Any] = [
    *(None, "", 5, b"bytes", [1], {"b": 1}, "\ud800", "\u00e9", "\x00", "a" * 100_000),
    *("https://[::1", "https://a:" + "9" * 5000, "https://x:port/", "://"),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_arguments_are_invalid_and_raise_nothing(hostile: Any) -> None:
    url = "https://example.com/"
    assert is_valid_signature(TOKEN, url, hostile) is False
    assert is_valid_signature(TOKEN, hostile, sign(url)) is False
    assert is_valid_signature(TOKEN, url, sign(url), {"a": hostile}) is False
    assert is_valid_signature(TOKEN, url, sign(url), [hostile, 1]) is False


def test_without_a_token_nothing_is_valid() -> None:
    empty = RequestValidator("").compute_signature("https://example.com/", {})
    for token in ("", None):
        assert is_valid_signature(token, "https://example.com/", empty) is False
