"""The page of the phone in a real Chromium, with a microphone that plays a file."""

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import chromium
import numpy as np
import phone.server
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
    phone_to,
    phone_to_echo_bot,
    sends_garbage,
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
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode) {
    const ear = new AnalyserNode(this.context, { fftSize: 2048 });
    connect.call(this, ear);
    window.loudness = () => {
      const samples = new Float32Array(2048);
      ear.getFloatTimeDomainData(samples);
      return Math.max(...samples.map(Math.abs));
    };
  }
  return connect.call(this, to, ...rest);
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


@pytest.fixture(scope="module")
def browser_without_microphone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium.running(tmp_path_factory.mktemp("profile")) as devtools:
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
        phone_to(url) as phone,
        page(browser, phone, **options) as tab,
    ):
        yield tab


async def starts_talking(tab: Tab) -> None:
    await tab.click("#call")
    await tab.until("document.querySelector('#status').innerText.startsWith('You are talking')")


async def ended(tab: Tab) -> str:
    await tab.until("call.innerText === 'Call'")
    return await tab.text("#status")


async def recording(tab: Tab) -> tuple[np.ndarray, np.ndarray]:
    """Downloads the recording; returns its two legs."""
    wav = await tab.value(
        "fetch(recording.href).then((r) => r.bytes()).then((bytes) => bytes.toBase64())"
    )
    return legs(b64decode(wav))


async def test_speech_goes_to_the_bot_and_comes_back(browser: str) -> None:
    microphone = np.frombuffer(2 * speech(10), "<i2").astype(float)[::2]  # it begins anew
    async with phone_to_echo_bot() as phone, page(browser, phone) as tab:
        await starts_talking(tab)
        await tab.until("loudness() > 0.1")
        for _ in range(20):  # a busy machine breaks up the sound for a while
            await asyncio.sleep(1)
            said, heard = await recording(tab)
            # The browser works on the sound, to take out echo and noise.
            if comes_back(said, heard) and likeness(said[-12000:], microphone) > 0.5:
                break
        else:
            pytest.fail("it did not come back")
        await tab.click("#call")
        assert await ended(tab) == "You hung up."


async def test_keys_interruption_and_hang_up_from_the_keyboard(browser: str) -> None:
    async with phone_to_echo_bot() as phone, page(browser, phone) as tab:
        await starts_talking(tab)
        await tab.type("5")
        await tab.until("messages.innerText.includes('mark “key 5”')")
        await tab.click("#keypad button:nth-child(2)")
        await tab.until("messages.innerText.includes('mark “key 2”')")
        await tab.type("*")
        await tab.until("messages.innerText.includes('interrupted')")
        await tab.value("document.querySelector('#keypad button').focus()")
        await tab.type("#")
        assert await ended(tab) == "The bot hung up."
        assert await tab.value("document.activeElement.id") == "call"
        assert await tab.value("notices.innerText") == ""


async def test_an_interruption_silences_at_once(browser: str) -> None:
    async def talk(bot: BotSide) -> None:
        for _ in range(6):  # a minute
            await bot.send(event="media", media={"payload": TONE})
        await bot.read("dtmf")
        await bot.send(event="clear")
        await bot.read("stop")

    async with page_to(browser, talk) as tab:
        await starts_talking(tab)
        await tab.until("loudness() > 0.5")
        await tab.type("*")
        await tab.until("messages.innerText.includes('interrupted')")
        await tab.until("loudness() === 0")


@pytest.mark.parametrize(
    ("talk", "sentence"),
    [
        (sends_garbage, "Twilio would warn of a message from the bot, and drop it (31951)"),
        (sends_nothing, "The bot has sent nothing for"),
    ],
)
async def test_a_bot_that_talks_no_sense_gets_a_notice(
    browser: str, talk, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phone.call.SILENT_SECS", 0.2)
    async with page_to(browser, talk) as tab:
        await starts_talking(tab)
        await tab.until(f"notices.innerText.startsWith({sentence!r})")


@pytest.mark.parametrize(
    ("name", "permission", "fault", "how"),
    [
        ("browser", "denied", "No permission to use a microphone", "say the example"),
        ("browser_without_microphone", "granted", "No microphone", "say a file"),
    ],
)
async def test_without_a_microphone_a_speech_file_can_be_said(
    request: pytest.FixtureRequest, name: str, permission: str, fault: str, how: str
) -> None:
    async def answer_after_a_pause(bot: BotSide) -> None:
        loud, quiet = 0, 0
        while loud < 10 or quiet < 25:
            payload = b64decode((await bot.read("media"))["media"]["payload"])
            is_loud = any(code & 0x7F < 0x40 for code in payload)  # above a 16th of full scale
            loud, quiet = loud + is_loud, 0 if is_loud else quiet + 1
        await bot.send(event="media", media={"payload": TONE})
        await bot.read("stop")

    browser = request.getfixturevalue(name)
    async with page_to(browser, answer_after_a_pause, microphone=permission) as tab:
        await starts_talking(tab)
        assert await tab.text("#notices") == (
            f"{fault}: the bot hears silence, unless you say a file."
        )
        if how == "say a file":
            await tab.choose_file("#file", SPEECH)
        else:
            await tab.click("#sample")
        await tab.until("last.innerText.endsWith(' ms')")
        assert int((await tab.text("#last")).removesuffix(" ms")) >= 500
        assert await tab.text("#median") == await tab.text("#last")
        await tab.choose_file("#file", Path(__file__))
        await tab.until("notices.innerText.includes('it is no audio that this browser can read')")


async def test_it_works_with_a_keyboard_and_a_screen_reader(browser: str) -> None:
    async with page_to(browser, sends_nothing) as tab:
        await tab.type("Tab")
        assert await tab.value("document.activeElement.id") == "call"
        await tab.type("Enter")
        await tab.until("document.querySelector('#status').innerText.startsWith('You are')")
        tree = (await tab.do("Accessibility.getFullAXTree"))["nodes"]
        nodes = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree]
        names = [name for role, name in nodes if role in ("button", "link", "img", "log")]
        assert len(names) > 15
        assert all(names)
        assert ("button", "Hang up") in nodes
        assert {"status", "heading", "main"} <= {role for role, _ in nodes}


async def test_the_page_fits_wide_and_narrow(browser: str) -> None:
    async with phone_to("ws://127.0.0.1:1") as phone, page(browser, phone) as tab:
        for width in (320, 390, 700, 1400):
            await tab.resize(width, 800)
            assert await tab.value("document.documentElement.scrollWidth") <= width
            assert await tab.value("sample.getBoundingClientRect().right") <= width


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


def contrast(one: str, other: str) -> float:
    """Returns the contrast of two colours. Source: WCAG 2.2, contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_all_text_can_be_read_on_its_ground(scheme: int) -> None:
    css = (phone.server.HERE / "page.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", css)
    colours = {name: pair[scheme] for name, *pair in pairs}
    for text in ("text", "quiet", "caller", "bot", "gap", "mark", "clear"):
        assert contrast(colours[text], colours["card"]) >= 4.5, text
    for ground in ("go", "stop"):
        assert contrast(colours["on-button"], colours[ground]) >= 4.5, ground
    assert contrast(colours["text"], colours["page"]) >= 4.5
