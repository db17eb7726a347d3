"""Calls a bot the way Twilio does, and reports what the caller heard.

Without an address it calls a bot of its own, with stand-ins for STT, LLM and TTS, built three ways:
as Pipecat has it, with one import swapped, and with everything of this package installed. It asks
three questions; at the second answer the bot's event loop is held up, at the third its TTS stalls.
With an address, ws:// or http://, it calls a bot that is already running.

Each call is kept in `calls/`: a stereo recording, the caller left and the bot right as it was
played, and a picture of it.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from caller import MAX_LATENESS_MS, TRIES, place_call
from conversation import BOTS, Conversation, built_as, converse
from dialing import CallError
from listening import SPEECH
from loguru import logger
from recording import Recording
from serving import serve_in_thread
from streamdouble import audio
from streamdouble.scenario import Say, Scenario, Wait
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


async def main() -> int:
    """Places the calls that the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bot", nargs="?", help="the stream or the voice webhook of a running bot")
    parser.add_argument("--out", type=Path, default=Path("calls"), help="folder for the recordings")
    parser.add_argument("--verbose", action="store_true", help="show the bot's log")
    arguments = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="DEBUG" if arguments.verbose else "WARNING")
    arguments.out.mkdir(exist_ok=True)
    if arguments.bot:
        speech = Say(SPEECH, audio.wav_to_ulaw_frames(SPEECH))
        try:
            log, _ = await place_call(arguments.bot, Scenario("ask", [Wait(2), speech, Wait(5)]))
        except (CallError, ValueError) as error:
            print(f"no call: {error}")
            return 2
        picture = Recording.of(log).save(arguments.out / "reply")
    else:
        talks = await call_talking_bots(arguments.out)
        print_table(talks)
        picture = path_of(arguments.out, BOTS[-1]).with_suffix(".svg")
    print(f"\nRecordings and pictures of the calls are in {arguments.out}/. Open one in a browser:")
    print(picture.resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
