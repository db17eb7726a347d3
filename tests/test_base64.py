"""Base64 against the standard library's, and the text around it."""

import base64 as stdlib
import random

import pytest

from pipecat_twilio import base64


def encoded(data: bytes) -> str:
    return base64.Template("", "").fill(data)


@pytest.mark.parametrize("size", [*range(100), 160, 320, 1920, 100_003])
def test_it_encodes_as_the_standard_library_does(size: int) -> None:
    # Of all sizes around the steps of the vector loop, 12 of 16 bytes that it reads.
    for seed in range(20 if size < 1000 else 1):
        data = random.Random(seed).randbytes(size)
        assert encoded(data) == stdlib.b64encode(data).decode()


def test_every_character_of_the_alphabet_in_every_place() -> None:
    for shift in range(3):
        data = bytes(shift) + bytes(range(256)) * 3
        assert encoded(data) == stdlib.b64encode(data).decode()


def test_the_text_is_what_comes_before_the_base64_and_what_comes_after() -> None:
    template = base64.Template('{"a": "', '"}')
    assert template.fill(b"any") == '{"a": "YW55"}'
    assert template.fill(b"") == '{"a": ""}'
    assert template.fill(b"any").isascii()


@pytest.mark.parametrize(("before", "after"), [("\xe4", ""), ("", "\U0001f600")])
def test_a_text_that_is_not_ascii_is_named(before: str, after: str) -> None:
    with pytest.raises(ValueError, match=f"must be ASCII, got {before + after!r}"):
        base64.Template(before, after)


@pytest.mark.parametrize("wrong", [None, b"", 1])
def test_what_is_no_text_is_a_type_error(wrong) -> None:
    with pytest.raises(TypeError, match="before"):
        base64.Template(wrong, "")
    with pytest.raises(TypeError, match="after"):
        base64.Template("", wrong)


@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"any")])
def test_what_is_no_bytes_is_a_type_error(wrong) -> None:
    with pytest.raises(TypeError, match="data"):
        base64.Template("", "").fill(wrong)
