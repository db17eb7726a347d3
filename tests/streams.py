"""What tests share: messages as Twilio writes them, messages as nobody should, a serializer."""

import base64
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

STREAM_SID = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL_SID, ACCOUNT_SID = "CA" + "1" * 32, "AC" + "2" * 32
CALL = {"call_sid": CALL_SID, "account_sid": ACCOUNT_SID}
TOKEN = {**CALL, "auth_token": "token"}
CORPUS = Path(__file__).parent / "with_pipecat" / "fuzz" / "corpus"


def documented(event: str) -> dict[str, Any]:
    """Returns a message as Twilio's documentation shows it."""
    return json.loads((CORPUS / f"{event}.json").read_text())


def media(payload: bytes, timestamp_ms: Any = 0, **part: Any) -> str:
    """Returns a message with this mu-law from the caller."""
    audio = {
        "track": "inbound",
        "timestamp": str(timestamp_ms),
        "payload": base64.b64encode(payload).decode(),
    }
    return json.dumps({"event": "media", "streamSid": STREAM_SID, "media": audio | part})


GOOD = media(bytes(160))
# What a hostile or broken sender sends, and how many messages are a flood.
FLOOD = 10_000
MIB = 1 << 20
PAYLOAD = "SECRETAUDIO" * 20

BAD = [
    "",
    "\x1b[31m",
    GOOD[:-1],
    GOOD + "\ud800",
    b"\xff\xfe" + PAYLOAD.encode(),
    json.dumps({"event": "\x1b[31m" + "x" * 1000}),
    json.dumps({"event": "dtmf", "dtmf": {"digit": "z" * 1000}}),
    *(
        text.replace("PAYLOAD", PAYLOAD)
        for text in (
            '{"event": "media", "media": {"payload": "PAYLOAD!"}}',
            '{"event": "media", "media": {"payload": ["PAYLOAD"]}}',
            '{"event": "media", "media": "PAYLOAD"}',
            '{"event": "media", "payload": "PAYLOAD"}',
            '{"event": "media", "media": {"payload": "PAYLOAD',
            '{"event": "media", "media": {"timestamp": [], "payload": "PAYLOAD!"}}',
            '{"event": "dtmf", "dtmf": {"digit": "PAYLOAD"}}',
            '{"event": "unheard of", "media": {"payload": "PAYLOAD"}}',
        )
    ),
]


def payload_of(text: Any) -> bytes:
    """Returns the mu-law of a message to Twilio; checks that it has exactly the documented keys."""
    message = json.loads(text)
    payload = message["media"]["payload"]
    assert message == {"event": "media", "streamSid": STREAM_SID, "media": {"payload": payload}}
    return base64.b64decode(payload, validate=True)


def speech(samples: int, seed: int = 1) -> bytes:
    """Returns 16-bit noise that is about as loud as speech."""
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype("<i2").tobytes()


@contextmanager
def traced() -> Iterator[None]:
    """Traces memory with tracemalloc inside the `with` block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


async def ready(rate: int = 16000, **params: Any) -> Any:
    """Returns a serializer without hang-up, set up for a pipeline input at `rate`."""
    # Imported here, so that the fuzzer can do so in its own way.
    from pipecat_twilio import TwilioFrameSerializer

    input_params = TwilioFrameSerializer.InputParams(auto_hang_up=False, **params)
    serializer = TwilioFrameSerializer(STREAM_SID, params=input_params)
    await serializer.setup(SimpleNamespace(audio_in_sample_rate=rate))
    return serializer
