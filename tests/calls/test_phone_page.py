"""The page of the phone in a real Chromium, with a microphone that plays a file."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import chromium
import numpy as np
import pytest
from chromium import Tab
from dialing import CalledBot
from listening import SPEECH
from phone.server import PhoneServer
from phoning import (
    BotSide,
    Talk,
    bot_that,
    comes_back,
    legs,
    likeness,
    sends_nothing,
    speech,
)

pytestmark = pytest.mark.skipif(
    not chromium.EXECUTABLE, reason="no Chromium here: apt-get install chromium, as .ci/run does"
)

TONE = b64encode((b"\x00" * 4 + b"\x80" * 4) * 10_000).decode()  # 10 s of 1 kHz, as loud as can be

# Lets the test hear what the page plays.
EAR = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to) {
  if (to instanceof AudioDestinationNode) {
    const ear = new AnalyserNode(this.context), samples = new Float32Array(ear.fftSize);
    connect.call(this, ear);
    window.loudness = () => (ear.getFloatTimeDomainData(samples), Math.max(...samples));
  }
  return connect.call(this, to);
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium.running(
        tmp_path_factory.mktemp("profile"),
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={SPEECH}",
    ) as devtools:
        yield devtools


@asynccontextmanager
async def page(browser: str, phone: PhoneServer, **options: str) -> AsyncIterator[Tab]:
    """Opens the page; checks at the end that it logged no error."""
    async with chromium.tab(browser, phone.url, script=EAR, **options) as tab:
        await tab.until("!call.disabled")
        yield tab
        assert tab.console == []


@asynccontextmanager
async def page_to(browser: str, talk: Talk, **options: str) -> AsyncIterator[Tab]:
    """Opens the page of a phone to a bot that takes each call as `talk` says."""
    async with (
        bot_that(talk) as url,
        PhoneServer(CalledBot(url)) as phone,
        page(browser, phone, **options) as tab,
    ):
        yield tab


async def starts_talking(tab: Tab) -> None:
    await tab.click("#call")
    await tab.until("document.querySelector('#status').innerText.startsWith('You are talking')")


async def ended(tab: Tab) -> str:
    await tab.until("call.innerText === 'Call'")
    return await tab.text("#status")


async def test_a_call_to_the_echo_bot_from_the_keyboard(browser: str, echo_bot) -> None:
    microphone = np.frombuffer(2 * speech(10), "<i2").astype(float)[::2]  # it begins anew
    async with (
        echo_bot() as url,
        PhoneServer(CalledBot(url)) as phone,
        page(browser, phone) as tab,
    ):
        await starts_talking(tab)
        await tab.until("loudness() > 0.1")
        for _ in range(20):  # a busy machine breaks up the sound for a while
            await asyncio.sleep(1)
            wav = "fetch(recording.href).then((r) => r.bytes()).then((bytes) => bytes.toBase64())"
            said, heard = legs(b64decode(await tab.value(wav)))
            # The browser works on the sound, to take out echo and noise.
            if comes_back(said, heard) and likeness(said[-12000:], microphone) > 0.5:
                break
        else:
            pytest.fail("speech did not come back")
        await tab.type("5")
        await tab.until("messages.innerText.includes('mark “key 5”')")
        await tab.click("#keypad button:nth-child(2)")
        await tab.until("messages.innerText.includes('mark “key 2”')")
        await tab.value("document.querySelector('#keypad button').focus()")
        await tab.type("#")
        assert await ended(tab) == "The bot ended the call."
        assert await tab.value("document.activeElement.id") == "call"
        assert await tab.value("notices.innerText") == ""


async def test_an_interruption_silences_at_once_and_garbage_gets_a_notice(browser: str) -> None:
    async def talk(bot: BotSide) -> None:
        for _ in range(6):  # a minute
            await bot.send(event="media", media={"payload": TONE})
        await bot.read("dtmf")
        await bot.send(event="clear")
        await bot.send(event="garbage")
        await bot.read("stop")

    warning = "Twilio would warn of a message from the bot, and drop it (31951)"
    async with page_to(browser, talk) as tab:
        await starts_talking(tab)
        await tab.until("loudness() > 0.5")
        await tab.type("*")
        await tab.until("messages.innerText.includes('interrupted')")
        await tab.until("loudness() === 0")
        await tab.until(f"notices.innerText.startsWith({warning!r})")
        await tab.click("#call")
        assert await ended(tab) == "You hung up."


async def test_without_a_microphone_speech_can_be_said_from_a_file(browser: str) -> None:
    async def answer_after_a_pause(bot: BotSide) -> None:
        loud, quiet = 0, 0
        while loud < 10 or quiet < 25:
            payload = b64decode((await bot.read("media"))["media"]["payload"])
            is_loud = any(code & 0x7F < 0x40 for code in payload)  # above a 16th of full scale
            loud, quiet = loud + is_loud, 0 if is_loud else quiet + 1
        await bot.send(event="media", media={"payload": TONE})
        await bot.read("stop")

    fault = "No permission to use a microphone: the bot hears silence, unless you say a file."
    async with page_to(browser, answer_after_a_pause, microphone="denied") as tab:
        await starts_talking(tab)
        assert await tab.text("#notices") == fault
        await tab.click("#sample")
        await tab.until("last.innerText.endsWith(' ms')")
        assert int((await tab.text("#last")).removesuffix(" ms")) >= 500
        assert await tab.text("#median") == await tab.text("#last")
        await tab.choose_file("#file", Path(__file__))
        await tab.until("notices.innerText.includes('it is no audio that this browser can read')")


async def test_it_works_with_a_keyboard_and_a_screen_reader_at_any_width(
    browser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phone.call.SILENT_SECS", 0.2)
    async with page_to(browser, sends_nothing) as tab:
        for width in (320, 700, 1400):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
            await tab.do("Emulation.setDeviceMetricsOverride", **size)
            assert await tab.value("document.documentElement.scrollWidth") <= width
        await tab.type("Tab")
        assert await tab.value("document.activeElement.id") == "call"
        await tab.type("Enter")
        await tab.until("notices.innerText.startsWith('The bot has sent nothing for')")
        tree = (await tab.do("Accessibility.getFullAXTree"))["nodes"]
        nodes = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree]
        names = [name for role, name in nodes if role in ("button", "link", "img", "log")]
        assert len(names) > 15
        assert all(names)
        assert ("button", "Hang up") in nodes
        assert {"status", "heading", "main"} <= {role for role, _ in nodes}


async def test_a_sound_card_of_another_rate_is_refused(browser: str) -> None:
    unusual = "const Usual = AudioContext; AudioContext = function () {"
    async with page_to(browser, sends_nothing) as tab:
        await tab.value(unusual + " return new Usual({ sampleRate: 8009 }); }; 0")
        await tab.click("#call")
        await tab.until("document.querySelector('#status').innerText.includes('of 8009 Hz')")
        await ended(tab)


async def test_a_phone_that_was_switched_off_is_waited_for(browser: str) -> None:
    bot = CalledBot("ws://127.0.0.1:1")
    phone = PhoneServer(bot)
    await phone.__aenter__()
    async with chromium.tab(browser, phone.url) as tab:
        await tab.until("!call.disabled")
        await phone.__aexit__()
        await tab.until("call.disabled")
        assert await tab.text("#status") == "The phone is switched off: start it again."
        async with PhoneServer(bot, port=int(phone.url.rsplit(":", 1)[1])):
            await tab.until("!call.disabled")
