"""What the tests of the serializer share: messages as Twilio writes them, and a serializer."""

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
