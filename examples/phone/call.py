"""One call: Twilio's part between the bot and the page, in steps of 20 ms."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import median

import aiohttp
import numpy as np
from dialing import ANSWER_SECS, CalledBot, CallError, explain, find_stream
from listening import samples_of
from player import RATE, SILENCE, Player
from recording import wav
from streamdouble.protocol import MediaStreamEncoder, StreamIdentity
from yarl import URL

from phone.messages import MEDIA_DISCARDED, Clear, Mark, Media, RefusedMessageError, read
from phone.response_times import ResponseTimes
from pipecat_twilio import SincResampler, ulaw

STEP_SECS = 0.02
STEP = round(RATE * STEP_SECS)
AT_ONCE_SECS = 1.0  # a bot that closes earlier and sent nothing has refused the call
SILENT_SECS = 5.0  # after which the page is told that nothing has come from the bot
MAX_GAP_SECS = 1.0  # in the bot's speech; more is a pause between two turns
MAX_LATE_SECS = 2.0  # such as after the machine slept: too much to catch up
MAX_RECORDED = 3600 * RATE  # samples of a leg: an hour

# The page's clock is not ours: so much of the caller is kept before the first step is sent, and
# when there is too much, the oldest is dropped.
_KEPT, _MAX_KEPT = 3 * STEP, 10 * STEP
_NORMAL_CLOSE_CODES = (1000, 1001)  # RFC 6455, section 7.4.1


class PhoneCall:
    """One call from the page, whose PCM has `page_rate`, to a bot.

    `tell` sends an event, with what belongs to it, to the page; `play` sends PCM to it.
    """

    def __init__(
        self,
        bot: CalledBot,
        page_rate: int,
        *,
        tell: Callable[..., Awaitable[None]],
        play: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._bot = bot
        self._tell = tell
        self._play = play
        self._from_page = SincResampler(page_rate, RATE, clear_after_secs=None)
        self._to_page = SincResampler(RATE, page_rate, clear_after_secs=None)
        self._identity = StreamIdentity(account_sid=bot.account_sid)
        self.call_sid = self._identity.call_sid
        self._encoder = MediaStreamEncoder(self._identity)
        self._unsent = bytearray()  # the caller's mu-law
        self._is_flowing = False  # whether enough of it was there to begin with
        self.keys: list[str] = []  # pressed and not yet sent
        self._response_times = ResponseTimes()
        self._gaps_ms: list[int] = []
        self._warnings: set[str] = set()
        self._has_bot_sent = False
        self._caller_heard, self._bot_heard = bytearray(), bytearray()  # mu-law, recorded
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def recording(self) -> bytes:
        """Returns what was said up to now as a WAV file: the caller left, the bot right."""
        return wav(samples_of(self._caller_heard), samples_of(self._bot_heard))

    def hear(self, pcm: bytes) -> None:
        """Takes the next PCM from the page's microphone."""
        self._unsent += ulaw.encode(self._from_page.process(pcm[: len(pcm) // 2 * 2]))
        if len(self._unsent) > _MAX_KEPT:
            del self._unsent[:-_KEPT]

    def hang_up(self, sentence: str) -> bool:
        """Ends the call, unless it has ended; the sentence says who did, or why."""
        goes_on = not self._ended.done()
        if goes_on:
            self._ended.set_result(sentence)
        return goes_on

    async def run(self) -> str:
        """Makes the call; returns a sentence that says how it ended."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            call = group.create_task(self._call(session))
            sentence = await self._ended
            call.cancel()
        return sentence

    async def _call(self, session: aiohttp.ClientSession) -> None:
        try:
            url, self._parameters = await find_stream(self._bot, self.call_sid)
            self._socket = await self._open_stream(session, url)
        except CallError as error:
            self.hang_up(str(error))
            return
        self._started = time.monotonic()
        # Senders that keep pace do so by timers, and it would click each time that one is late.
        self._player = Player(self._started, hold_secs=STEP_SECS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive())
                group.create_task(self._send())
        finally:
            # The socket may be closed already, and a bot that reads nothing would block it.
            with suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(1):
                    if self._encoder.started:
                        await self._socket.send_json(self._encoder.stop())
            await self._socket.close()

    async def _open_stream(
        self, session: aiohttp.ClientSession, url: str
    ) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(ANSWER_SECS):
                return await session.ws_connect(
                    URL(url, encoded=True),
                    headers=self._bot.signature(url),
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallError(explain("stream", url, error)) from None

    async def _send(self) -> None:
        """Sends the caller's leg and plays the bot's, a step of each every 20 ms."""
        send, encoder = self._socket.send_json, self._encoder
        steps = 0
        with suppress(aiohttp.ClientError):  # `_receive` says why the socket is closed
            await send(encoder.connected())
            await send(encoder.start(custom_parameters=self._parameters))
            await self._tell("talking")
            while True:
                steps += 1
                late_secs = time.monotonic() - self._started - steps * STEP_SECS
                if late_secs > MAX_LATE_SECS:
                    self.hang_up(f"The phone stood still for {late_secs:.0f} s.")
                await asyncio.sleep(-late_secs)
                caller_step = self._next_of_caller()
                await send(encoder.media(caller_step))
                while self.keys:
                    await send(encoder.dtmf(self.keys.pop(0)))
                await self._echo(self._player.played_marks(time.monotonic()))
                await self._show(caller_step)
                if steps == round(SILENT_SECS / STEP_SECS) and not self._has_bot_sent:
                    text = f"The bot has sent nothing for {SILENT_SECS:.0f} s."
                    await self._tell("notice", text=text)

    def _next_of_caller(self) -> bytes:
        if len(self._unsent) >= _KEPT:
            self._is_flowing = True
        elif len(self._unsent) < STEP:
            self._is_flowing = False
        if not self._is_flowing:
            return SILENCE * STEP
        step = bytes(self._unsent[:STEP])
        del self._unsent[:STEP]
        return step

    async def _show(self, caller_step: bytes) -> None:
        """Gives the page a step of both legs: to hear, to draw, and what is measured of it."""
        bot_step, is_playing = self._player.take(STEP)
        if len(self._bot_heard) < MAX_RECORDED:
            self._caller_heard += caller_step
            self._bot_heard += bot_step
        caller, bot = samples_of(caller_step), samples_of(bot_step)
        await self._play(self._to_page.process(ulaw.decode(bot_step)))
        caller_peak, bot_peak = (float(np.abs(leg).max()) / 32768 for leg in (caller, bot))
        await self._tell("step", caller=caller_peak, bot=bot_peak if any(is_playing) else None)
        delay_ms = self._response_times.add(caller, bot)
        if delay_ms is not None:
            await self._tell(
                "answer", ms=delay_ms, median_ms=median(self._response_times.delays_ms)
            )

    async def _receive(self) -> None:
        """Takes the bot's messages until it closes the stream, which ends the call."""
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                break
            self._has_bot_sent = True
            try:
                await self._act_on(read(message.data, self._identity.stream_sid))
            except RefusedMessageError as warning:
                await self._warn(warning.code, str(warning))
            except OverflowError as warning:
                await self._warn(MEDIA_DISCARDED, str(warning))
            except aiohttp.ClientError:  # it is closed, so there is nobody to send a mark to
                break
        code = self._socket.close_code
        if not self._has_bot_sent and time.monotonic() - self._started < AT_ONCE_SECS:
            self.hang_up(f"The bot closed the connection at once, with WebSocket code {code}.")
        elif code in _NORMAL_CLOSE_CODES:
            self.hang_up("The bot ended the call.")
        else:
            self.hang_up(f"The connection to the bot broke, with WebSocket code {code}.")

    async def _act_on(self, message: Media | Mark | Clear) -> None:
        now = time.monotonic()
        match message:
            case Media():
                gap_secs = self._player.add(message.media.payload, now)
                if 0 < gap_secs <= MAX_GAP_SECS:
                    ms = round(gap_secs * 1000)
                    self._gaps_ms.append(ms)
                    total = sum(self._gaps_ms)
                    await self._tell("gap", ms=ms, count=len(self._gaps_ms), sum_ms=total)
            case Mark():
                self._player.mark(message.mark.name)
                await self._echo(self._player.played_marks(now))
            case Clear():
                marks = self._player.clear(now)
                await self._tell("clear")
                await self._echo(marks)

    async def _echo(self, marks: list[str]) -> None:
        for name in marks:
            await self._socket.send_json(self._encoder.mark(name))
            await self._tell("mark", name=name)

    async def _warn(self, code: int, text: str) -> None:
        if text not in self._warnings and len(self._warnings) < 50:  # their texts may differ
            self._warnings.add(text)
            await self._tell("warning", code=code, text=text)
