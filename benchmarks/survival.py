"""Tells which bad messages end a call: those that raise an exception out of `deserialize`.

    python benchmarks/survival.py FOLDER

Pipecat's transport ends the call on any exception. survival.md lists what was tried.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loguru import logger
from measuring import run
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer

from pipecat_twilio import TwilioFrameSerializer

BAD: dict[str, Any] = {
    "empty text": "",
    "half a message": '{"event": "media", "media": {"payl',
    "no JSON": "hello",
    "JSON null": "null",
    "a JSON number": "7",
    "a JSON list": '["event"]',
    "no event": "{}",
    "an unknown event": '{"event": "transcription"}',
    "a binary message that is not UTF-8": b"\xff\xfe",
    "media without its part": '{"event": "media"}',
    "media whose part is null": '{"event": "media", "media": null}',
    "media without payload": '{"event": "media", "media": {}}',
    "a payload that is null": '{"event": "media", "media": {"payload": null}}',
    "a payload that is a number": '{"event": "media", "media": {"payload": 5}}',
    "a payload cut short": '{"event": "media", "media": {"payload": "abc"}}',
    "a payload of other characters": '{"event": "media", "media": {"payload": "\\ud800"}}',
    "an empty payload": '{"event": "media", "media": {"payload": ""}}',
    "an odd timestamp": '{"event": "media", "media": {"payload": "/w==", "timestamp": []}}',
    "dtmf without its part": '{"event": "dtmf"}',
    "a digit that is a number": '{"event": "dtmf", "dtmf": {"digit": 1}}',
    "a digit that no keypad has": '{"event": "dtmf", "dtmf": {"digit": "x"}}',
    "JSON nested 100,000 deep": "[" * 100_000,
}


def ends_the_call(serializer_class: type, message: Any) -> bool:
    """Returns whether a serializer raises on a message."""
    serializer = serializer_class("MZ1", params=serializer_class.InputParams(auto_hang_up=False))
    run(serializer.setup(SimpleNamespace(audio_in_sample_rate=16000)))
    try:
        run(serializer.deserialize(message))
    except Exception:  # noqa: BLE001  # any of them ends the call
        return True
    return False


def main(folder: Path) -> None:
    """Writes the table."""
    logger.remove()
    verdicts = {
        name: [ends_the_call(c, message) for c in (PipecatSerializer, TwilioFrameSerializer)]
        for name, message in BAD.items()
    }
    totals = [sum(column) for column in zip(*verdicts.values(), strict=True)]
    summary = (
        f"Of {len(BAD)} bad messages, {totals[0]} end a call with Pipecat's serializer and "
        f"{totals[1]} with this one; written by `tox -e results`."
    )
    lines = [
        "# Messages that end a call",
        "",
        summary,
        "",
        "| message | | Pipecat's | this one |",
        "|---|---|---|---|",
    ]
    for name, (theirs, ours) in verdicts.items():
        shown = json.dumps(str(BAD[name])[:48]).replace("|", "\\|")
        words = ["ends the call" if ends else "survived" for ends in (theirs, ours)]
        lines.append(f"| {name} | `{shown}` | {words[0]} | {words[1]} |")
    (folder / "survival.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
