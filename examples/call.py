"""Calls a bot the way Twilio does, and reports what the caller heard.

Without arguments it runs two bots in this process and calls each several times. The echo bot is
built with Pipecat's own serializer and with this package's, at pipeline rates of 8, 16 and 24 kHz.
A bot that talks, with stand-ins for STT, LLM and TTS, is built three ways: as Pipecat has it, with
one import swapped, and with everything of this package installed; its TTS stalls, and its event
loop is held up. With --url or --stream it calls a bot that is already running.

Each call is kept in `calls/`: a stereo recording, the caller left and the bot right as it was
played, and a picture of it.

The script of an echo call: press 1, 2 and 3; press `*`, which interrupts the bot; speak; press `#`,
at which the bot ends the call over REST, here with a stand-in for Twilio's API on loopback. All
audio sent before `#` should come back, except for up to 20 ms that the interruption may remove.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from call_recording import Recording
from caller import (
    ACCOUNT_SID,
    KEY_SECRET,
    KEY_SID,
    MAX_LATENESS_MS,
    TRIES,
    CallError,
    RestApi,
    place_call,
    place_stream_call,
    serve,
    stream_url,
)
from echo_bot import Settings, create_app
from echo_report import Report, report
from loguru import logger
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from pipecat.transports.websocket import fastapi
from streamdouble import audio
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Dtmf, Say, Scenario, Wait, WaitFor

from pipecat_twilio import TwilioFrameSerializer

SPEECH = Path(__file__).parent / "speech.wav"
RATES = (8000, 16000, 24000)

# What this package promises of a call; Pipecat's own classes are measured, not judged.
MAX_LATER_THAN_8_KHZ_MS = 15
MAX_LOST_MS = 20

ECHO_CALL_SECS = 6.5
ECHO_CALLS = [
    ("warm-up", TwilioFrameSerializer, 8000),  # loads and compiles what later ones find ready
    *(("pipecat", PipecatSerializer, rate) for rate in RATES),
    *(("ours", TwilioFrameSerializer, rate) for rate in RATES),
]


def local_settings(base_url: str, **others: Any) -> Settings:
    """Returns the settings of an echo bot that serves anyone and ends calls over `base_url`.

    It sends no silence at the end of a call: that would count as audio that came back.
    """
    return Settings(
        account_sid=ACCOUNT_SID,
        api_key_sid=KEY_SID,
        api_key_secret=KEY_SECRET,
        base_url=base_url,
        allow_anyone=True,
        end_silence_secs=0,
        **others,
    )


@asynccontextmanager
async def serve_bot(settings: Settings) -> AsyncIterator[str]:
    """Serves the echo bot on loopback; gives its webhook's URL."""
    async with serve(create_app(settings)) as port:
        yield f"http://127.0.0.1:{port}/"


def script(speech: Path) -> Scenario:
    """Returns what the caller does; waiting callers send silence, as a telephone does."""
    return Scenario(
        "speak between two keys",
        [
            Wait(0.5),
            Dtmf("123"),
            Dtmf("*"),
            WaitFor("clear", timeout_s=2),
            Say(speech, audio.wav_to_ulaw_frames(speech)),
            Wait(0.6),
            Dtmf("#"),
            Wait(3),
        ],
    )


class Progress:
    """Prints which call is next, and how long all of them will take."""

    def __init__(self, calls: int, secs: float) -> None:
        """Expects `calls` calls, which take `secs` seconds."""
        self._number, self._calls, self._secs = 0, calls, secs

    def show(self, name: str, secs: float) -> None:
        """Prints that a call begins, which takes `secs` seconds."""
        self._number += 1
        print(f"call {self._number} of {self._calls}: {name}, {self._secs:.0f} s to go", flush=True)
        self._secs -= secs


async def call_echo_bots(speech: Path, folder: Path, progress: Progress) -> list[Report]:
    """Calls the echo bot with either serializer at each rate."""
    reports = []
    api = RestApi()
    async with api.serve() as base_url:
        for who, serializer, rate in ECHO_CALLS:
            name = f"{who}-{rate // 1000}khz"
            progress.show(name, ECHO_CALL_SECS)
            settings = local_settings(
                base_url,
                sample_rate=rate,
                output_ms=20,  # answers each message at once, not every other
                serializer=serializer,
                transport=fastapi.FastAPIWebsocketTransport,
            )
            for _ in range(TRIES):
                async with serve_bot(settings) as webhook:
                    log, result = await place_call(webhook, script(speech))
                if log.lateness_ms() < MAX_LATENESS_MS:
                    break
            if who != "warm-up":
                hung_up = result.identity.call_sid in api.ended
                reports.append(report(name, log, result, hung_up=hung_up))
                Recording.of(log).save(folder / name)
    return reports


def print_echo_table(reports: list[Report]) -> None:
    """Prints a line for each call of an echo bot."""
    columns = ("first audio", "echo delay", "sent", "received", "lost")
    print(
        f"\n{'echo bot':14}"
        + "".join(f"{name:>13}" for name in columns)
        + "  keys   clear  hung up"
    )
    for r in reports:
        times = (r.first_audio, r.echo_delay, r.sent, r.received, r.lost)
        cells = "".join(f"{value:>10.0f} ms" for value in times)
        print(f"{r.name:14}{cells}  {r.keys:6} {yes(r.cleared):6} {yes(r.hung_up)}")
        for violation in r.violations:
            print(f"{'':14}  violation: {violation}")


def yes(what: bool) -> str:
    """Returns the text of a table cell; a no is in capitals, to be seen."""
    return "yes" if what else "NO"


def broken_promises(reports: list[Report]) -> list[str]:
    """Returns the promises of this package that a call did not keep."""
    ours = [r for r in reports if r.name.startswith("ours")]
    base = min(r.first_audio for r in ours)
    broken = []
    for r in ours:
        if not r.complete:
            broken.append(f"{r.name}: the script did not run to its end")
        if abs(r.lost) > MAX_LOST_MS:
            broken.append(f"{r.name}: {r.lost:.0f} ms lost, more than {MAX_LOST_MS}")
        if r.first_audio > base + MAX_LATER_THAN_8_KHZ_MS:
            broken.append(f"{r.name}: first audio {r.first_audio - base:.0f} ms after the fastest")
    return broken


async def call_running_bot(arguments: argparse.Namespace) -> list[str]:
    """Calls a bot that is running; returns what is wrong."""
    identity = StreamIdentity(account_sid=ACCOUNT_SID)
    url = arguments.stream or await stream_url(arguments.url, identity.call_sid)
    log, result = await place_stream_call(url, script(arguments.speech), identity)
    Recording.of(log).save(arguments.out / "reply")
    # Only Twilio knows whether the call was ended over REST; what can be seen is who closed it.
    reports = [report("reply", log, result, hung_up=result.closed_by == "agent")]
    print_echo_table(reports)
    # Only an echo bot answers the keys.
    return [] if reports[0].received else ["the bot said nothing"]


async def main() -> int:
    """Runs the calls that the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", help="voice webhook of a running bot: http://localhost:8765/")
    parser.add_argument("--stream", help="its socket instead: ws://localhost:7860/ws")
    parser.add_argument("--speech", type=Path, default=SPEECH, help="what the caller says, as WAV")
    parser.add_argument("--out", type=Path, default=Path("calls"), help="folder for the recordings")
    parser.add_argument("--verbose", action="store_true", help="show the bot's log")
    arguments = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="DEBUG" if arguments.verbose else "WARNING")
    arguments.out.mkdir(exist_ok=True)
    try:
        if arguments.url or arguments.stream:
            broken = await call_running_bot(arguments)
        else:
            # Only this needs a VAD, which takes a while to load.
            import talk_report  # noqa: PLC0415

            talks = len(talk_report.BOTS)
            secs = len(ECHO_CALLS) * ECHO_CALL_SECS + talks * talk_report.SECS
            progress = Progress(len(ECHO_CALLS) + talks, secs)
            reports = await call_echo_bots(arguments.speech, arguments.out, progress)
            conversations = await talk_report.demonstrate(arguments.out, progress.show)
            print_echo_table(reports)
            talk_report.print_table(conversations)
            broken = broken_promises(reports) + talk_report.broken_promises(conversations)
    except CallError as error:
        print(f"no call: {error}")
        return 2
    print(f"\nRecordings and pictures of the calls are in {arguments.out}/.")
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
