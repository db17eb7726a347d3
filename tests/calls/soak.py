"""Fifty calls at once against one bot process, at the pace of speech, for ten minutes.

    export PYTHONPATH=simulation:examples:tests:tests/with_pipecat
    python tests/calls/soak.py [--minutes 10] [--calls 50]

The example bot runs in its own process and echoes. The callers in this process talk for 20 to 60 s,
then they hang up, or make the bot end the call over REST, and call again. All audio has to come
back. The soak fails if any was lost, if the bot's memory grew, if the bot logged a warning, or if
bad messages take longer than as many good ones. Linux only: it reads the bot's memory from /proc.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import sys
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import aiohttp
import numpy as np
from dialing import ACCOUNT_SID
from echo_bot import Settings, create_app, serve
from loguru import logger
from rest_api import API_KEY, RestApi
from serving import wait_until_served
from streams import BAD, FLOOD

from pipecat_twilio import SincResampler, TwilioFrameSerializer, ulaw

PORT = 18790
RATE = 16000
TICK_SECS = 0.02
OUTPUT_MS = 40  # in a message, as Pipecat has it by default
CALL_SECS = (20, 60)
PATIENCE_SECS = 10  # for what is still to come back, and for the bot's hang-up
MOST_GROWTH_MIB = 4  # with 50 calls, 10 KiB for each that came and went in that time

MESSAGE_BYTES = 160
CODES = np.random.default_rng(1).bytes(8000 * CALL_SECS[1])
PAYLOADS = [
    b64encode(CODES[i : i + MESSAGE_BYTES]).decode() for i in range(0, len(CODES), MESSAGE_BYTES)
]
ECHO = ulaw.encode(
    SincResampler(RATE, 8000).process(SincResampler(8000, RATE).process(ulaw.decode(CODES)))
)


def media(i: int) -> str:
    """Returns a caller's message number `i` of audio, as Twilio writes it."""
    return (
        f'{{"event":"media","sequenceNumber":"{i + 2}","media":{{"track":"inbound","chunk":'
        f'"{i + 1}","timestamp":"{20 * i}","payload":"{PAYLOADS[i]}"}},"streamSid":"MZ1"}}'
    )


def run_bot(base_url: str, log: Path) -> None:
    """Runs the bot; called in its own process."""
    logger.remove()
    logger.add(log, level="WARNING")
    settings = Settings(
        ACCOUNT_SID,
        **API_KEY,
        base_url=base_url,
        allow_anyone=True,
        sample_rate=RATE,
        output_ms=OUTPUT_MS,
    )
    serve(create_app(settings), port=PORT, log_level="critical", lifespan="off")


@dataclass
class Call:
    """One call: when its messages were due and sent, what came back, and with which delay."""

    sid: str
    socket: aiohttp.ClientWebSocketResponse
    due_at: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    back: bytearray = field(default_factory=bytearray)
    delays: list[float] = field(default_factory=list)
    all_back: asyncio.Event = field(default_factory=asyncio.Event)

    async def talk(self, count: int) -> None:
        """Starts the stream, and sends `count` messages of audio, one every 20 ms."""
        sids = {"streamSid": "MZ1", "callSid": self.sid, "accountSid": ACCOUNT_SID}
        await self.socket.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        await self.socket.send_json({"event": "start", "streamSid": "MZ1", "start": sids})
        start = time.perf_counter()
        for i in range(count):
            self.due_at.append(start + i * TICK_SECS)
            await asyncio.sleep(self.due_at[i] - time.perf_counter())
            self.sent_at.append(time.perf_counter())
            await self.socket.send_str(media(i))

    async def listen(self, count: int) -> None:
        """Records what comes back, until the bot closes the call."""
        async for text in self.socket:
            message = json.loads(text.data)
            if message["event"] == "media":
                self.back += b64decode(message["media"]["payload"])
                # Measured from the newest message that it holds something of.
                newest = -(-len(self.back) // MESSAGE_BYTES) - 1
                self.delays.append(time.perf_counter() - self.sent_at[newest])
                if len(self.back) >= MESSAGE_BYTES * count:
                    self.all_back.set()


@dataclass
class Tally:
    """The results of all calls; times in seconds."""

    calls: int = 0
    exact: int = 0
    hung_up_by_bot: int = 0
    sent: int = 0
    back: float = 0
    failures: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)

    def add(self, call: Call) -> None:
        """Adds the results of a call."""
        self.calls += 1
        self.exact += call.back == ECHO[: MESSAGE_BYTES * len(call.sent_at)]
        self.sent += len(call.sent_at)
        self.back += len(call.back) / MESSAGE_BYTES
        self.delays += call.delays
        self.lateness += np.subtract(call.sent_at, call.due_at).tolist()


async def place_call(
    session: aiohttp.ClientSession, count: int, tally: Tally, *, bot_hangs_up: bool
) -> None:
    """Calls, sends `count` messages, waits until they are back, and ends the call."""
    sid = f"CA{random.getrandbits(128):032x}"
    async with session.ws_connect(f"ws://127.0.0.1:{PORT}/stream/{sid}") as socket:
        call = Call(sid, socket)
        listening = asyncio.create_task(call.listen(count))
        try:
            await call.talk(count)
            await asyncio.wait_for(call.all_back.wait(), PATIENCE_SECS)
            if bot_hangs_up:
                await socket.send_json({"event": "dtmf", "dtmf": {"digit": "#"}})
                await asyncio.wait_for(listening, PATIENCE_SECS)
            else:
                await socket.send_json({"event": "stop", "streamSid": "MZ1", "stop": {}})
            tally.hung_up_by_bot += bot_hangs_up
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            tally.failures.append(repr(error))
        finally:
            listening.cancel()
            tally.add(call)


async def keep_calling(
    session: aiohttp.ClientSession, number: int, end: float, tally: Tally
) -> None:
    """Calls again and again until the end, as one caller."""
    rng = random.Random(number)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(number * 0.1 + rng.random() * TICK_SECS)
    for turn in itertools.count():
        secs = min(rng.uniform(*CALL_SECS), end - loop.time())
        if secs < 1:
            return
        bot_hangs_up = (number + turn) % 2 == 0
        # The bot echoes whole messages of its own.
        count = int(1000 * secs / OUTPUT_MS) * 2
        await place_call(session, count, tally, bot_hangs_up=bot_hangs_up)


@dataclass
class Process:
    """A process, as /proc shows it."""

    pid: int
    resident_mib: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        """Records its memory every second."""
        while True:
            status = Path(f"/proc/{self.pid}/status").read_text()  # noqa: ASYNC240  # no disk
            self.resident_mib.append(float(status.split("VmRSS:")[1].split()[0]) / 1024)
            await asyncio.sleep(1)

    def cpu_secs(self) -> float:
        """Returns the processor time that it has used."""
        times = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


async def soak(minutes: float, callers: int, log: Path) -> tuple[Tally, Tally, Process, float]:
    """Returns the results of one call alone and of all calls, the bot, and the cores it used."""
    alone, all_of_them, api = Tally(), Tally(), RestApi()
    async with api.serve() as base_url, aiohttp.ClientSession() as session:
        process = multiprocessing.get_context("spawn").Process(target=run_bot, args=(base_url, log))
        process.start()
        try:
            await wait_until_served(f"http://127.0.0.1:{PORT}/")
            await place_call(session, 250, alone, bot_hangs_up=True)
            bot = Process(process.pid or 0)
            start, used = time.monotonic(), bot.cpu_secs()
            watching = asyncio.create_task(bot.watch())
            end = asyncio.get_running_loop().time() + 60 * minutes
            async with asyncio.timeout(60 * minutes + 4 * PATIENCE_SECS):
                await asyncio.gather(
                    *(keep_calling(session, number, end, all_of_them) for number in range(callers))
                )
            watching.cancel()
            cores = (bot.cpu_secs() - used) / (time.monotonic() - start)
        finally:
            process.terminate()
            process.join()
    if api.ended.total() != alone.hung_up_by_bot + all_of_them.hung_up_by_bot:
        all_of_them.failures.append(f"{api.ended.total()} calls were ended over REST")
    return alone, all_of_them, bot, cores


def flood(batch: list[str | bytes]) -> float:
    """Returns the processor time for FLOOD messages."""

    async def receive() -> float:
        params = TwilioFrameSerializer.InputParams(auto_hang_up=False)
        serializer = TwilioFrameSerializer("MZ1", params=params)
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=RATE))
        start = time.process_time()
        for data in itertools.islice(itertools.cycle(batch), FLOOD):
            await serializer.deserialize(data)
        return time.process_time() - start

    return asyncio.run(receive())


def main() -> int:
    """Runs it, prints the figures, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    logger.remove()
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        alone, tally, bot, cores = asyncio.run(soak(arguments.minutes, arguments.calls, log))
        warnings = log.read_text().splitlines()
    base = np.median(alone.delays)
    added = 1000 * (np.array(tally.delays) - base)
    late = 1000 * np.array(tally.lateness)
    # In the first half, every caller calls several times, and the heap finds its size.
    tenths = [np.median(part) for part in np.array_split(bot.resident_mib, 10)]
    growth = tenths[-1] - tenths[4]
    good, bad = (min(flood(batch) for _ in range(3)) for batch in ([*map(media, range(1000))], BAD))
    print(f"""\
calls at once      {arguments.calls} for {arguments.minutes:g} minutes
calls              {tally.calls}, {tally.hung_up_by_bot} of them ended by the bot over REST
messages           {tally.sent} of 20 ms sent, {tally.sent - tally.back:g} lost
exact to the bit   {tally.exact} calls
added delay        median {np.median(added):.1f} ms, 99 % below {np.percentile(added, 99):.1f} ms, \
worst {added.max():.1f} ms; a call alone has {1000 * base:.1f} ms
callers were late  median {np.median(late):.1f} ms, 99 % below {np.percentile(late, 99):.1f} ms, \
worst {late.max():.1f} ms
bot's memory       {growth:+.1f} MiB in the second half; MiB in each tenth of the time: \
{" ".join(f"{mib:.0f}" for mib in tenths)}
bot's processor    {cores:.2f} of a core
bot's warnings     {len(warnings)}
bad messages       {FLOOD} take {bad / good:.2f} of the processor time of as many good ones""")
    broken = [*tally.failures[:5], *warnings[:5]]
    if tally.back < tally.sent:
        broken.append("messages were lost")
    if growth > MOST_GROWTH_MIB:
        broken.append(f"the memory grew by more than {MOST_GROWTH_MIB} MiB")
    if bad > good:
        broken.append("bad messages cost more than good ones")
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
