"""Calls a bot the way Twilio does, and reports what the caller heard.

The bot has stand-ins for STT, LLM and TTS, and is built three ways: as Pipecat has it, with one
import swapped, and with everything of this package installed. It is asked three questions; at the
second answer its event loop is held up, at the third its TTS stalls.

Each call is kept in `calls/`: a stereo recording, the caller left and the bot right as it was
played, and a picture of it.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from caller import MAX_LATENESS_MS, TRIES
from conversation import BOTS, Conversation, built_as, converse
from loguru import logger
from recording import Recording
from serving import serve_in_thread
from talking_bot import create_app

SECS = 14  # that a call takes
HOLD_UP_SECS = 0.12
FIGURES = ("first sound", "lost", "silence inside a sentence", "a model hears the caller late by")


async def call_talking_bots(folder: Path) -> dict[str, Conversation]:
    """Calls the talking bot three ways; asks three questions of each."""
    talks = {}
    for name in BOTS:
        print(f"calling a bot for {SECS} s: {name}", flush=True)
        options = {"tts": "resampled", "held_up_from": 1, "stalls_from": 2}
        for _ in range(TRIES):
            app = create_app(HOLD_UP_SECS)
            with built_as(name) as serializer, serve_in_thread(app) as port:
                talks[name] = await converse(port, app, 3, serializer=serializer, **options)
            if talks[name].log.lateness_ms() < MAX_LATENESS_MS:
                break
        Recording.of(talks[name].log).save(path_of(folder, name))
    return talks


def path_of(folder: Path, name: str) -> Path:
    """Returns where the recording of a call is, without its suffix."""
    return folder / name.lower().replace(" ", "-").replace("'", "")


def figures(conversation: Conversation) -> tuple[float, ...]:
    """Returns FIGURES of a call, in ms."""
    undisturbed, held_up, stalled = conversation.answers()
    lost = sum(answer.lost_ms + answer.cut_ms for answer in (undisturbed, held_up, stalled))
    late, _, _ = conversation.model_hearing_ms()
    return 1000 * undisturbed.first_at, lost, held_up.silence_ms, late


def print_table(talks: dict[str, Conversation]) -> None:
    """Prints a line for each way in which the talking bot was built."""
    print(f"\n{'':24}" + "".join(f"{name:>{len(name) + 4}}" for name in FIGURES))
    for name, conversation in talks.items():
        cells = (
            f"{figure:.0f} ms".rjust(len(column) + 4)
            for figure, column in zip(figures(conversation), FIGURES, strict=True)
        )
        print(f"{name:24}" + "".join(cells))
    print(
        "First sound: after TTS's first byte. Lost: of three answers, cut off at the end or in\n"
        "mid-word where TTS stalls for 0.3 s. Silence: while the event loop is held up for\n"
        f"{1000 * HOLD_UP_SECS:.0f} ms, twice a second."
    )


async def main() -> None:
    """Places the calls and prints what was heard."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("calls"), help="folder for the recordings")
    folder = parser.parse_args().out
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    folder.mkdir(exist_ok=True)
    print_table(await call_talking_bots(folder))
    print(f"\nRecordings and pictures of the calls are in {folder}/. Open one in a browser:")
    print(path_of(folder, BOTS[-1]).with_suffix(".svg").resolve().as_uri())


if __name__ == "__main__":
    asyncio.run(main())
