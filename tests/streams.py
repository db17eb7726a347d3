"""What tests share: messages as Twilio writes them, messages as nobody should, a serializer."""

import base64
import json
from collections.abc import Iterable
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


def payload_of(text: Any) -> bytes:
    """Returns the mu-law of a message to Twilio; checks that it has exactly the documented keys."""
    message = json.loads(text)
    payload = message["media"]["payload"]
    assert message == {"event": "media", "streamSid": STREAM_SID, "media": {"payload": payload}}
    return base64.b64decode(payload, validate=True)


def speech(samples: int, seed: int = 1) -> bytes:
    """Returns 16-bit noise that is about as loud as speech."""
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype("<i2").tobytes()


async def ready(rate: int = 16000, **params: Any) -> Any:
    """Returns a serializer without hang-up, set up for a pipeline input at `rate`."""
    # Imported here, so that the fuzzer can do so in its own way.
    from pipecat_twilio import TwilioFrameSerializer

    input_params = TwilioFrameSerializer.InputParams(auto_hang_up=False, **params)
    serializer = TwilioFrameSerializer(STREAM_SID, params=input_params)
    await serializer.setup(SimpleNamespace(audio_in_sample_rate=rate))
    return serializer


CODES = np.random.default_rng(1).bytes(320)
IDLE_SECS = 60  # after which history is dropped; only the stream's own time can pass it here


async def check_that_audio_survives(junk: Iterable[str | bytes]) -> None:
    """Checks that audio after any messages is intact."""
    from pipecat.frames.frames import Frame

    from pipecat_twilio import SincResampler, ulaw

    serializer = await ready(resampler_clear_after_secs=IDLE_SECS)
    for data in junk:
        frame = await serializer.deserialize(data)
        assert frame is None or isinstance(frame, Frame)
    first = await serializer.deserialize(media(CODES[:160], 20))
    second = await serializer.deserialize(media(CODES[160:], 40))
    expected = SincResampler(8000, 16000, clear_after_secs=None).process(ulaw.decode(CODES))
    # There may be audio among the junk, which rings on for 8 ms: 256 bytes.
    assert len(first.audio) == 640
    assert first.audio[256:] == expected[256:640]
    assert second.audio == expected[640:]
