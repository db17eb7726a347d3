"""Signatures, against the validator of Twilio's own library."""

import random
from typing import Any

import pytest
from twilio.request_validator import RequestValidator

from pipecat_twilio import is_valid_signature

TOKEN = "12345678901234567890123456789012"
VALIDATOR = RequestValidator(TOKEN)


class Params(dict):
    """Form parameters as Twilio's validator takes them: values by `getlist`."""

    def getlist(self, name: str) -> list[str]:
        value = self[name]
        return value if isinstance(value, list) else [value]


def generated_case(rng: random.Random) -> tuple[str, dict[str, str | list[str]]]:
    scheme = rng.choice(["https", "http", "wss"])
    host = rng.choice(["example.com", "bot.example.com", "10.0.0.1", "xn--bcher-kva.example"])
    port = rng.choice(["", "", ":443", ":80", ":8443"])
    path = rng.choice(["", "/", "/voice", "/ws/", "/a/b%20c", "/ws/CA123"])
    query = rng.choice(["", "", "?a=1&b=2", "?x=%2F"]) if scheme != "wss" else ""
    params: dict[str, str | list[str]] = {}
    for _ in range(rng.randrange(6)):
        name = "".join(rng.choice("abcXYZ_09\u00e9") for _ in range(rng.randrange(1, 6)))
        values = [
            "".join(rng.choice("abc +&=/\u20ac") for _ in range(rng.randrange(5)))
            for _ in range(rng.randrange(1, 4))
        ]
        params[name] = values if len(values) > 1 else values[0]
    return f"{scheme}://{host}{port}{path}{query}", params


def test_what_twilio_signs_is_valid_and_what_its_library_accepts_is_accepted() -> None:
    rng = random.Random(2010)
    accepted = 0
    for _ in range(3000):
        url, params = generated_case(rng)
        signature = VALIDATOR.compute_signature(url, Params(params))
        assert is_valid_signature(TOKEN, url, signature, params)
        assert VALIDATOR.validate(url, Params(params), signature)
        # Signed for one form of the URL, received as another.
        other, _ = generated_case(rng)
        theirs = VALIDATOR.validate(other, Params(params), signature)
        accepted += theirs
        if theirs:
            assert is_valid_signature(TOKEN, other, signature, params)
    assert accepted  # it happens often enough to be a test


def test_anything_changed_is_invalid() -> None:
    rng = random.Random(4711)
    for _ in range(1000):
        url, params = generated_case(rng)
        signature = VALIDATOR.compute_signature(url, Params(params))
        assert not is_valid_signature(TOKEN[:-1] + "3", url, signature, params)
        elsewhere = url.replace("://", "://evil.")
        assert not is_valid_signature(TOKEN, elsewhere, signature, params)
        assert not is_valid_signature(TOKEN, url, signature, {**params, "added": "1"})
        for name in params:
            assert not is_valid_signature(TOKEN, url, signature, {**params, name: "changed"})
        i = rng.randrange(len(signature) - 1)
        flipped = signature[:i] + ("A" if signature[i] != "A" else "B") + signature[i + 1 :]
        assert not is_valid_signature(TOKEN, url, flipped, params)


def sign(url: str, params: dict[str, Any] | None = None) -> str:
    return VALIDATOR.compute_signature(url, Params(params or {}))


@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    "signed",
    [
        "wss://example.com/ws",
        "wss://example.com/ws/",
        "wss://example.com:443/ws",
        "wss://example.com:443/ws/",
    ],
)
def test_a_socket_may_be_signed_with_or_without_default_port_and_last_slash(
    signed: str, port: str, slash: str
) -> None:
    assert is_valid_signature(TOKEN, f"wss://example.com{port}/ws{slash}", sign(signed))


@pytest.mark.parametrize(
    "url",
    [
        "wss://example.com:8443/ws",
        "wss://example.com/other",
        "ws://example.com/ws",
        "https://example.com/ws",
        "wss://example.com/ws//",
    ],
)
def test_another_port_path_or_scheme_is_another_url(url: str) -> None:
    assert not is_valid_signature(TOKEN, "wss://example.com/ws", sign(url))


def test_each_distinct_value_of_a_parameter_is_signed_once_in_order() -> None:
    url = "https://example.com/voice"
    signature = VALIDATOR.compute_signature(url, Params({"a": ["2", "1", "2"]}))
    assert is_valid_signature(TOKEN, url, signature, {"a": ["1", "2"]})
    assert is_valid_signature(TOKEN, url, signature, {"a": ("2", "2", "1")})
    assert not is_valid_signature(TOKEN, url, signature, {"a": "2"})


HOSTILE: list[Any] = [
    None,
    "",
    5,
    b"bytes",
    "\ud800",
    "\u00e9",
    "a" * 100_000,
    "https://[::1",
    "https://x:port/",
    "://",
    "\x00",
    [1],
    {"b": 1},
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_arguments_are_invalid_and_raise_nothing(hostile: Any) -> None:
    url = "https://example.com/"
    assert is_valid_signature(TOKEN, url, hostile) is False
    assert is_valid_signature(TOKEN, hostile, sign(url)) is False
    assert is_valid_signature(TOKEN, url, sign(url), {"a": hostile}) is False
    assert is_valid_signature(TOKEN, url, sign(url), [hostile, 1]) is False


@pytest.mark.parametrize("token", ["", None])
def test_without_a_token_nothing_is_valid(token: Any) -> None:
    url = "https://example.com/"
    empty = RequestValidator("").compute_signature(url, {})
    assert is_valid_signature(token, url, empty) is False
