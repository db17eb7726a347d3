"""The page of the phone in a real Chromium, with a microphone that plays a file."""

import asyncio
import shutil
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import numpy as np
import pytest
from dialing import CalledBot
from listening import SPEECH
from phone.server import PhoneServer
from phoning import BotSide, Talk, bot_that, comes_back, legs, likeness, sends_nothing, speech
from playwright.async_api import Page, async_playwright, expect

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
MICROPHONE = "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={SPEECH}"
TONE = b64encode((b"\x00" * 4 + b"\x80" * 4) * 10_000).decode()  # 10 s of 1 kHz, as loud as can be

pytestmark = pytest.mark.skipif(
    not EXECUTABLE, reason="no Chromium here: apt-get install chromium, as .ci/run does"
)
expect.set_options(timeout=30_000)  # for what comes at once on a machine that is not busy

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


@asynccontextmanager
async def page_of(phone: PhoneServer, *permissions: str) -> AsyncIterator[Page]:
    """Opens the page in a browser of its own; `page.complaints` is what its console shows."""
    async with async_playwright() as playwright:
        options = {"executable_path": EXECUTABLE, "args": MICROPHONE, "chromium_sandbox": False}
        browser = await playwright.chromium.launch(**options)
        context = await browser.new_context(permissions=permissions)
        await context.add_init_script(EAR)
        page = await context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        await page.goto(phone.url)
        await expect(page.locator("#call")).to_be_enabled()
        yield page
        await browser.close()


@asynccontextmanager
async def page_to(talk: Talk | str, *permissions: str) -> AsyncIterator[Page]:
    """Opens the page of a phone to a bot: at an address, or one that takes calls as `talk` says.

    At the end, the page must have logged no error.
    """
    async with (
        nullcontext(talk) if isinstance(talk, str) else bot_that(talk) as url,
        PhoneServer(CalledBot(url)) as phone,
        page_of(phone, *(permissions or ["microphone"])) as page,
    ):
        yield page
        assert page.complaints == []


async def until(page: Page, condition: str) -> None:
    """Waits for a condition in JavaScript; the page's policy forbids Playwright's own wait."""
    async with asyncio.timeout(30):
        while not await page.evaluate(condition):  # noqa: ASYNC110  # has no event
            await asyncio.sleep(0.02)


async def starts_talking(page: Page) -> None:
    await page.click("#call")
    await expect(page.locator("#status")).to_contain_text("You are talking")


async def has_ended(page: Page, status: str) -> None:
    await expect(page.locator("#call")).to_have_text("Call")
    await expect(page.locator("#status")).to_contain_text(status)


async def test_a_call_to_the_echo_bot_from_the_keyboard(echo_bot) -> None:
    microphone = np.frombuffer(2 * speech(10), "<i2").astype(float)[::2]  # it begins anew
    async with echo_bot() as url, page_to(url) as page:
        await starts_talking(page)
        await until(page, "loudness() > 0.1")
        for _ in range(20):  # a busy machine breaks up the sound for a while
            await asyncio.sleep(1)
            wav = "fetch(recording.href).then((r) => r.bytes()).then((bytes) => bytes.toBase64())"
            said, heard = legs(b64decode(await page.evaluate(wav)))
            # The browser works on the sound, to take out echo and noise.
            if comes_back(said, heard) and likeness(said[-12000:], microphone) > 0.5:
                break
        else:
            pytest.fail("speech did not come back")
        await page.keyboard.press("5")
        await expect(page.locator("#messages")).to_contain_text("mark “key 5”")
        await page.click("#keypad button:nth-child(2)")
        await expect(page.locator("#messages")).to_contain_text("mark “key 2”")
        await page.focus("#keypad button")
        await page.keyboard.press("#")
        await has_ended(page, "The bot ended the call.")
        await expect(page.locator("#call")).to_be_focused()
        await expect(page.locator("#notices")).to_be_empty()


async def test_an_interruption_silences_at_once_and_garbage_gets_a_notice() -> None:
    async def talk(bot: BotSide) -> None:
        for _ in range(6):  # a minute
            await bot.send(event="media", media={"payload": TONE})
        await bot.read("dtmf")
        await bot.send(event="clear")
        await bot.send(event="garbage")
        await bot.read("stop")

    warning = "Twilio would warn of a message from the bot, and drop it (31951)"
    async with page_to(talk) as page:
        await starts_talking(page)
        await until(page, "loudness() > 0.5")
        await page.keyboard.press("*")
        await expect(page.locator("#messages")).to_contain_text("interrupted")
        await until(page, "loudness() === 0")
        await expect(page.locator("#notices")).to_contain_text(warning)
        await page.click("#call")
        await has_ended(page, "You hung up.")


async def test_without_a_microphone_speech_can_be_said_from_a_file() -> None:
    async def answer_after_a_pause(bot: BotSide) -> None:
        loud, quiet = 0, 0
        while loud < 10 or quiet < 25:
            payload = b64decode((await bot.read("media"))["media"]["payload"])
            is_loud = any(code & 0x7F < 0x40 for code in payload)  # above a 16th of full scale
            loud, quiet = loud + is_loud, 0 if is_loud else quiet + 1
        await bot.send(event="media", media={"payload": TONE})
        await bot.read("stop")

    fault = "No permission to use a microphone: the bot hears silence, unless you say a file."
    async with page_to(answer_after_a_pause, "notifications") as page:
        await starts_talking(page)
        await expect(page.locator("#notices")).to_have_text(fault)
        await page.click("#sample")
        await expect(page.locator("#last")).to_contain_text(" ms")
        last = await page.inner_text("#last")
        assert int(last.removesuffix(" ms")) >= 500
        await expect(page.locator("#median")).to_have_text(last)
        await page.set_input_files("#file", __file__)
        fault = "it is no audio that this browser can read"
        await expect(page.locator("#notices")).to_contain_text(fault)


async def test_it_works_with_a_keyboard_and_a_screen_reader_at_any_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phone.call.SILENT_SECS", 0.2)
    async with page_to(sends_nothing) as page:
        for width in (320, 700, 1400):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.keyboard.press("Tab")
        await expect(page.locator("#call")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#notices")).to_contain_text("The bot has sent nothing for")
        devtools = await page.context.new_cdp_session(page)
        tree = (await devtools.send("Accessibility.getFullAXTree"))["nodes"]
        nodes = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree]
        names = [name for role, name in nodes if role in ("button", "link", "img", "log")]
        assert len(names) > 15
        assert all(names)
        assert ("button", "Hang up") in nodes
        assert {"status", "heading", "main"} <= {role for role, _ in nodes}


async def test_a_phone_that_was_switched_off_is_waited_for() -> None:
    bot = CalledBot("ws://127.0.0.1:1")
    phone = PhoneServer(bot)
    await phone.__aenter__()
    async with page_of(phone) as page:
        await phone.__aexit__()
        await expect(page.locator("#call")).to_be_disabled()
        off = "The phone is switched off: start it again."
        await expect(page.locator("#status")).to_have_text(off)
        async with PhoneServer(bot, port=int(phone.url.rsplit(":", 1)[1])):
            await expect(page.locator("#call")).to_be_enabled()
