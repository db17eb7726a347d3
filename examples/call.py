"""Calls a bot the way Twilio does, and reports what the caller heard.

Without arguments it runs the echo bot in this process, six times over: with Pipecat's own
serializer and with this package's, at pipeline rates of 8, 16 and 24 kHz. With `--url` it calls a
bot that is already running, by its voice webhook. The replies are written to `calls/`.

The script of a call: press 1, 2 and 3; press `*`, which interrupts the bot; speak; press `#`, upon
which the bot ends the call over REST, here against a stand-in for Twilio's API on loopback. What
was sent before `#` should have come back, but for the 20 ms that the interruption may catch.
"""

import argparse
import asyncio
import json
import re
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import aiohttp
import numpy as np
import uvicorn
from aiohttp import web
from echo_bot import Settings, create_app
from loguru import logger
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from streamdouble import audio
from streamdouble.metrics import compute
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Dtmf, Say, Scenario, Wait, WaitFor
from streamdouble.session import Session, SessionConfig, SessionResult

from pipecat_twilio import TwilioFrameSerializer, ulaw

SPEECH = Path(__file__).parent / "speech.wav"
RATES = (8000, 16000, 24000)
BYTES_PER_SEC = 8000
ACCOUNT_SID = "AC" + "0" * 32
KEY_SID, KEY_SECRET = "SK" + "0" * 32, "not a secret"

# What this package promises of a call; Pipecat's own serializer is measured, not judged.
MOST_LATER_THAN_8_KHZ_MS = 15
MOST_LOST_MS = 20


@dataclass
class WireLog:
    """All messages of a call with their times; streamdouble takes it for one of its traces."""

    sent: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def note_out(self, message: dict[str, Any], at: float) -> None:
        """Takes note of a message to the bot."""
        self.sent.append((at, message))

    def note_in(self, message: str, at: float, parsed: dict[str, Any] | None = None) -> None:
        """Takes note of a message from the bot."""
        self.received.append((at, parsed or json.loads(message)))

    def pressed_at(self, key: str) -> float:
        """When a key was pressed; never is infinitely late."""
        keys = (at for at, message in self.sent if message.get("dtmf", {}).get("digit") == key)
        return next(keys, float("inf"))


@dataclass
class Report:
    """What came of one call; times in milliseconds."""

    name: str
    first_audio: float
    echo_delay: float
    sent: float
    received: float
    largest_gap: float
    keys: str
    cleared: bool
    hung_up: bool
    violations: list[str]
    reliable: bool

    @property
    def lost(self) -> float:
        """How much of what was said never came back."""
        return self.sent - self.received

    @property
    def complete(self) -> bool:
        """Whether all of the script took place."""
        heard = self.keys == "123*#" and self.received > 0
        return heard and self.cleared and self.hung_up and not self.violations


def audio_until(
    end: float, messages: list[tuple[float, dict[str, Any]]]
) -> list[tuple[float, bytes]]:
    """Returns the mu-law of the media messages before `end`, each with its time."""
    return [
        (at, b64decode(message["media"]["payload"]))
        for at, message in messages
        if message["event"] == "media" and at < end
    ]


def duration(pieces: list[tuple[float, bytes]]) -> float:
    """Returns how long pieces of audio are, in milliseconds."""
    return sum(len(piece) for _, piece in pieces) / BYTES_PER_SEC * 1000


def as_played(pieces: list[tuple[float, bytes]], start: float) -> np.ndarray:
    """Returns samples on a common time axis: each piece plays when it is there and its turn."""
    length = int((pieces[-1][0] - start + 5) * BYTES_PER_SEC)
    samples, free = np.zeros(length), 0
    for at, piece in pieces:
        begin = max(free, round((at - start) * BYTES_PER_SEC))
        free = begin + len(piece)
        samples[begin:free] = np.frombuffer(ulaw.decode(piece), "<i2")
    return samples


def echo_delay(sent: list[tuple[float, bytes]], received: list[tuple[float, bytes]]) -> float:
    """Returns how much later the caller hears what was said, where the two correlate best."""
    if not sent or not received:
        return float("nan")
    said, heard = (as_played(pieces, sent[0][0]) for pieces in (sent, received))
    size = 2 * max(len(said), len(heard))
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(said, size).conj())
    return float(np.argmax(correlation[: 2 * BYTES_PER_SEC])) / BYTES_PER_SEC * 1000


def report(name: str, log: WireLog, result: SessionResult, *, hung_up: bool) -> Report:
    """Draws up what came of a call."""
    sent = audio_until(log.pressed_at("#"), log.sent)
    received = audio_until(float("inf"), log.received)
    gaps = np.diff([at for at, _ in received]) * 1000
    marks = [message["mark"]["name"] for _, message in log.received if message["event"] == "mark"]
    return Report(
        name=name,
        first_audio=((result.first_audio_at or float("nan")) - result.started_at) * 1000,
        echo_delay=echo_delay(sent, received),
        sent=duration(sent),
        received=duration(received),
        largest_gap=float(max(gaps, default=float("nan"))),
        keys="".join(mark.removeprefix("key ") for mark in marks),
        cleared=any(message["event"] == "clear" for _, message in log.received),
        hung_up=hung_up,
        violations=[str(violation) for violation in result.violations],
        reliable=compute(result).measurement_is_reliable,
    )


class RestApi:
    """A stand-in for Twilio's REST API that knows one way to end a call."""

    def __init__(self) -> None:
        """Starts without calls."""
        self.ended: set[str] = set()

    async def update(self, request: web.Request) -> web.Response:
        """Ends a call, if it is asked as documented."""
        key = aiohttp.encode_basic_auth(KEY_SID, KEY_SECRET)
        if request.headers.get("Authorization") != key:
            return web.json_response({"code": 20003}, status=401)
        if (await request.post()).get("Status") != "completed":
            return web.json_response({"code": 20001}, status=400)
        self.ended.add(request.match_info["call"])
        return web.json_response({"status": "completed"})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serves it on loopback; gives its root URL."""
        app = web.Application()
        app.router.add_post("/2010-04-01/Accounts/{account}/Calls/{call}.json", self.update)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


@asynccontextmanager
async def serve_bot(settings: Settings) -> AsyncIterator[str]:
    """Serves the echo bot on loopback; gives its webhook's URL."""
    config = uvicorn.Config(create_app(settings), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    await serving


async def wait_until_served(url: str) -> None:
    """Returns when a server that is starting answers; waits for a minute at most."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)


async def stream_url(webhook: str, call_sid: str) -> str:
    """Asks a voice webhook what to do with a call; returns the URL to stream it to."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(webhook, data={"CallSid": call_sid}) as response,
    ):
        twiml = await response.text()
    stream = re.search(r'<Stream\b[^>]*\burl="([^"]*)"', twiml)
    if stream is None:
        raise SystemExit(f"{webhook} answered {response.status}, and no <Stream>: {twiml[:200]}")
    return unescape(stream[1], {"&quot;": '"'})


async def place_call(webhook: str, scenario: Scenario) -> tuple[WireLog, SessionResult]:
    """Calls a bot and runs the script."""
    identity = StreamIdentity(account_sid=ACCOUNT_SID)
    log = WireLog()
    config = SessionConfig(trace=log, response_timeout_s=1)  # type: ignore[arg-type]
    url = await stream_url(webhook, identity.call_sid)
    result = await Session(url, scenario=scenario, config=config, identity=identity).run()
    return log, result


def script(speech: Path) -> Scenario:
    """Returns what the caller does; while he waits, he sends silence, as a telephone does."""
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


async def compare(speech: Path, folder: Path) -> list[Report]:
    """Calls the echo bot with either serializer at each rate."""
    reports = []
    api = RestApi()
    serializers = {"pipecat": PipecatSerializer, "ours": TwilioFrameSerializer}
    async with api.serve() as base_url:
        for serializer, rate in [("ours", 8000), *((s, r) for s in serializers for r in RATES)]:
            settings = Settings(
                account_sid=ACCOUNT_SID,
                api_key_sid=KEY_SID,
                api_key_secret=KEY_SECRET,
                base_url=base_url,
                sample_rate=rate,
                end_silence_secs=0,  # it would count as received
                serializer=serializers[serializer],
            )
            async with serve_bot(settings) as webhook:
                log, result = await place_call(webhook, script(speech))
            hung_up = result.identity.call_sid in api.ended
            name = f"{serializer}-{rate // 1000}khz"
            reports.append(report(name, log, result, hung_up=hung_up))
            audio.ulaw_to_wav(result.audio_received, folder / f"{name}.wav")
    return reports[1:]  # the first call loads and compiles things that later ones find ready


def print_table(reports: list[Report]) -> None:
    """Prints a line for each call."""
    columns = ("first audio", "echo delay", "sent", "received", "lost", "largest gap")
    print(f"{'':14}" + "".join(f"{name:>13}" for name in columns) + "  keys   clear  hung up")
    for r in reports:
        times = (r.first_audio, r.echo_delay, r.sent, r.received, r.lost, r.largest_gap)
        cells = "".join(f"{value:>10.0f} ms" for value in times)
        seen = f"  {r.keys:6} {'yes' if r.cleared else 'NO':6} {'yes' if r.hung_up else 'NO'}"
        print(f"{r.name:14}{cells}{seen}{'' if r.reliable else '  (the caller was late)'}")
        for violation in r.violations:
            print(f"{'':14}  violation: {violation}")


def broken_promises(reports: list[Report]) -> list[str]:
    """Returns what this package promises and a call did not show."""
    ours = [r for r in reports if r.name.startswith("ours")]
    base = min(r.first_audio for r in ours)
    broken = []
    for r in ours:
        if not r.complete:
            broken.append(f"{r.name}: the script did not run to its end")
        if abs(r.lost) > MOST_LOST_MS:
            broken.append(f"{r.name}: {r.lost:.0f} ms lost, more than {MOST_LOST_MS}")
        if r.first_audio > base + MOST_LATER_THAN_8_KHZ_MS:
            broken.append(f"{r.name}: first audio {r.first_audio - base:.0f} ms after the fastest")
    return broken


async def main() -> int:
    """Runs the calls that the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--url", help="voice webhook of a running bot, such as http://localhost:8765/"
    )
    parser.add_argument("--speech", type=Path, default=SPEECH, help="what the caller says, as WAV")
    parser.add_argument("--out", type=Path, default=Path("calls"), help="folder for the replies")
    parser.add_argument("--verbose", action="store_true", help="show the bot's log")
    arguments = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="DEBUG" if arguments.verbose else "WARNING")
    arguments.out.mkdir(exist_ok=True)
    if arguments.url:
        log, result = await place_call(arguments.url, script(arguments.speech))
        audio.ulaw_to_wav(result.audio_received, arguments.out / "reply.wav")
        # Whether the call was ended over REST only Twilio would know; the bot did close the stream.
        reports = [report("reply", log, result, hung_up=result.closed_by == "agent")]
        broken = [] if reports[0].complete else ["the script did not run to its end"]
    else:
        print("seven calls of about 6 s each, the first one unmeasured ...", flush=True)
        reports = await compare(arguments.speech, arguments.out)
        broken = broken_promises(reports)
    print_table(reports)
    print(f"\nThe replies are in {arguments.out}/.")
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
