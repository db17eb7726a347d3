"""Random calls with `TwilioTransport`, against the same calls with Pipecat's transport."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames import frames
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport
from streams import STREAM_SID
from virtual_bot import Bot, Play, own_clear, words
from virtual_call import CHUNK_SECS, RATE, stall

from pipecat_twilio import TwilioTransport, messages
from pipecat_twilio.audio.ulaw import encode

LEADS = [0, 0.1, 0.5, 2]
KEY_BYTES = 1600  # a message this long is a key; it is 0.5 s, and speech is 40 ms
BRIEF_SECS = 0.002  # what was heard for less may count as heard or as not


class Call(NamedTuple):
    """What happens in a call: times with frames, stalls, and what the utterances are."""

    events: list[tuple[float, frames.Frame]]
    stalls: list[tuple[float, float]]
    spoken: dict[int, bytes]  # mu-law of each utterance
    is_kept: dict[int, bool]  # whether it is uninterruptible
    came: dict[int, list[float]]  # when its frames came
    cuts: list[float]
    is_cleared: bool  # by the bot's own `clear`


def made(random: Random, *, has_cuts: bool, has_stalls: bool) -> Call:
    """Makes up a call."""
    events: list[tuple[float, frames.Frame]] = []
    spoken, is_kept, came = defaultdict(bytes), {}, defaultdict(list)
    cuts = sorted(random.uniform(0.2, 6) for _ in range(random.randint(1, 4))) if has_cuts else []
    at = 0.1
    for number in range(random.randint(2, 5)):
        secs, pace = random.uniform(0.05, 1.4), random.choice([0, 0, 0.6, 1, 1.4])
        is_kept[number] = random.random() < 0.25
        # At the end of speech Pipecat drops what has begun to fill a frame of the next.
        secs = round(secs / CHUNK_SECS + 0.5) * CHUNK_SECS
        step = round(random.choice([0.04, 0.12, 0.32]) * RATE)
        cut = next((cut for cut in cuts if cut > at), 1e9)
        audio = words(secs, number).audio
        begin = at
        for index in range(0, len(audio), 2 * step):
            at = begin + pace * index / 2 / RATE
            if at > cut and not is_kept[number]:  # the TTS is interrupted too
                break
            frame = frames.TTSAudioRawFrame(audio[index : index + 2 * step], RATE, 1)
            frame.interruptible = not is_kept[number]
            spoken[number] += encode(frame.audio)
            came[number].append(at)
            events.append((at, frame))
            if random.random() < 0.2:
                events.append((at, frames.LLMTextFrame(f"{number} {index}")))
        else:
            events.append((at, frames.TTSStoppedFrame()))
        if random.random() < 0.3:
            mark = messages.mark(STREAM_SID, str(number))
            events.append((at, frames.OutputTransportMessageFrame(mark)))
        if random.random() < 0.2:
            events.append(
                (at, frames.OutputDTMFFrame(buttons=[KeypadEntry("7")] * random.randint(1, 3)))
            )
        if random.random() < 0.1:
            key = frames.OutputDTMFUrgentFrame(buttons=[KeypadEntry("1")] * random.randint(1, 2))
            events.append((at + random.uniform(0, 1), key))
        at += random.choice([0, 0, secs, secs + 1])
    is_cleared = random.random() < 0.3
    events += [(cut, own_clear() if is_cleared else frames.InterruptionFrame()) for cut in cuts]
    stalls = [(random.uniform(0, 6), random.choice([0.05, 0.12, 0.3])) for _ in range(4)]
    events.sort(key=lambda event: event[0])
    return Call(events, stalls if has_stalls else [], spoken, is_kept, came, cuts, is_cleared)


def played(play: Play, call: Call, transport: Any, **options: Any) -> Bot:
    """Has a bot make the call."""

    async def scenario(bot: Bot) -> None:
        begin = bot.begin = bot.loop.now
        for at, secs in call.stalls:
            bot.loop.call_later(at, stall, bot.loop, secs)
        for at, frame in call.events:
            await asyncio.sleep(max(0, begin + at - bot.loop.now))
            await bot.queue(frame)
        if call.cuts:  # an interruption drops the end of TTS, and Pipecat waits for 3 s
            await asyncio.sleep(15)
        await bot.end()
        assert len(asyncio.all_tasks()) <= 2

    return play(scenario, transport, **options)


def runs(bot: Bot) -> Iterator[tuple[float, int, bytes]]:
    """What was heard of each utterance, in order: when, which, and the mu-law; without keys."""
    for piece in bot.twilio.plays:
        if len(piece.ulaw) < KEY_BYTES:
            at = piece.begin
            for number, codes in groupby(piece.heard.rstrip(b"\xff"), lambda code: code // 8):
                run = bytes(codes)
                yield at, number, run
                at += len(run) / RATE


def speech(bot: Bot) -> bytes:
    return b"".join(run for _, _, run in runs(bot))


def keys(bot: Bot) -> list[bytes]:
    return sorted(piece.heard for piece in bot.twilio.plays if len(piece.ulaw) >= KEY_BYTES)


def story(bot: Bot) -> list[Any]:
    """What was pushed downstream, in order."""
    told = []
    for _, frame in bot.downstream.seen:
        kind = type(frame).__name__
        if kind.startswith("BotSt"):
            told.append(kind)
        elif isinstance(frame, frames.TTSAudioRawFrame):
            told.append((kind, encode(frame.audio)[0] // 8))
        elif not isinstance(frame, frames.SystemFrame):
            told.append((kind, getattr(frame, "text", None)))
    return told


def check_speaking(bot: Bot) -> None:
    for witness in (bot.upstream, bot.downstream):
        told = [word for word in witness.speaking if word in ("started", "stopped")]
        assert told == ["started", "stopped"] * (len(told) // 2)
    assert isinstance(bot.downstream.seen[-1][1], frames.EndFrame)


# 60 calls; with `--hypothesis-profile=long` many more.
SEEDS = pytest.mark.parametrize("seed", range(settings.default.max_examples * 3 // 20))
STALLS = pytest.mark.parametrize("has_stalls", [False, True])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Has Pipecat log nothing, which would take longer than the calls."""
    logger.disable("pipecat")
    yield
    logger.enable("pipecat")


@SEEDS
@STALLS
def test_without_interruptions_a_call_is_heard_and_told_as_with_pipecats_transport(
    play: Play, seed: int, has_stalls: bool
) -> None:
    random = Random(seed)
    call = made(random, has_cuts=False, has_stalls=has_stalls)
    ours = played(play, call, TwilioTransport, lead_secs=random.choice(LEADS))
    theirs = played(play, call, FastAPIWebsocketTransport)
    assert speech(ours) == speech(theirs)
    assert keys(ours) == keys(theirs)
    assert story(ours) == story(theirs)
    if not keys(ours) and not (has_stalls and any(call.is_kept.values())):
        # Behind audio that an interruption keeps, there is no lead.
        assert ours.twilio.heard_until <= theirs.twilio.heard_until + BRIEF_SECS
    check_speaking(ours)


@SEEDS
@STALLS
def test_after_interruptions_only_what_must_be_is_heard_and_what_was_heard_is_told(
    play: Play, seed: int, has_stalls: bool
) -> None:
    random = Random(seed)
    call = made(random, has_cuts=True, has_stalls=has_stalls)
    bot = played(play, call, TwilioTransport, lead_secs=random.choice(LEADS))
    check_speaking(bot)
    heard = defaultdict(bytes)
    for _, number, run in runs(bot):
        heard[number] += run
    if not call.is_cleared:
        for number in (number for number, is_kept in call.is_kept.items() if is_kept):
            assert heard[number] == call.spoken[number]
    interruptions = bot.downstream.times(frames.InterruptionFrame)
    for cut, at in zip(call.cuts, interruptions, strict=not call.is_cleared):
        # Speech that came before the cut must be silent. A stalled bot is interrupted later.
        old = {n for n, times in call.came.items() if times[-1] < cut}
        late = [
            (begin + len(run) / RATE) - max(at, begin)
            for begin, number, run in runs(bot)
            if number in old and not call.is_kept[number] and begin + len(run) / RATE > at
        ]
        assert sum(late) <= CHUNK_SECS + BRIEF_SECS
    begun = [
        piece.ulaw
        for piece in bot.twilio.plays
        if len(piece.ulaw) < KEY_BYTES and piece.end - piece.begin > BRIEF_SECS
    ]
    told = [encode(audio) for audio in bot.downstream.speech]
    assert set(begun) <= set(told)
    assert len(told) - len(begun) <= len(call.cuts)  # one may be pushed before it is heard
