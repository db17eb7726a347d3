"""A headless Chromium for the tests, driven over the DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
START_SECS = 60
WAIT_SECS = 30  # for what comes at once on a machine that is not busy

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio")


@contextmanager
def running(profile: Path, *options: str) -> Iterator[str]:
    """Runs a browser with an empty profile; gives the address of its DevTools."""
    command = [EXECUTABLE, *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-port=0"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    port = profile / "DevToolsActivePort"
    try:
        end = time.monotonic() + START_SECS
        while not (port.exists() and len(port.read_text().splitlines()) == 2):
            assert process.poll() is None, f"{EXECUTABLE} ended with {process.returncode}"
            assert time.monotonic() < end, f"{EXECUTABLE} did not start in {START_SECS} s"
            time.sleep(0.05)
        number, path = port.read_text().splitlines()
        yield f"ws://127.0.0.1:{number}{path}"
    finally:
        process.terminate()
        process.wait()


class Tab:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._session: dict[str, str] = {}
        self.console: list[str] = []  # what the page complained of

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result; notes what the page logs meanwhile."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        await self._socket.send_json(command | self._session)
        async with asyncio.timeout(WAIT_SECS):
            while True:
                message = json.loads((await self._socket.receive()).data)
                if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                    self.console.append(json.dumps(message["params"]))
                if message.get("id") == self._number:
                    assert "error" not in message, (method, message["error"])
                    return message["result"]

    async def open(self, url: str, script: str, microphone: str) -> None:
        """Opens a new page, in which `script` runs first."""
        context = await self.do("Target.createBrowserContext")
        target = await self.do("Target.createTarget", url="about:blank", **context)
        permission = {"permission": {"name": "microphone"}, "setting": microphone}
        await self.do("Browser.setPermission", origin=url, **permission, **context)
        self._session = await self.do("Target.attachToTarget", **target, flatten=True)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await self.do(f"{domain}.enable")
        await self.do("Page.addScriptToEvaluateOnNewDocument", source=script)
        await self.do("Page.navigate", url=url)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """Evaluates JavaScript as if a person had clicked; returns its value."""
        options = dict.fromkeys(("userGesture", "awaitPromise", "returnByValue"), True)
        answer = await self.do("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        end = time.monotonic() + WAIT_SECS
        while not await self.value(f"Boolean({condition})"):
            page = "document.body.innerText"
            assert time.monotonic() < end, f"{condition} never held: {await self.value(page)}"
            await asyncio.sleep(0.02)

    async def click(self, selector: str) -> None:
        await self.value(f"document.querySelector({selector!r}).click()")

    async def type(self, key: str) -> None:
        """Presses a key of the keyboard, by its name or its character."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}.get(key, (0, key))
        event = {"key": key, "windowsVirtualKeyCode": code}
        await self.do("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        await self.do("Input.dispatchKeyEvent", type="keyUp", **event)

    async def choose_file(self, selector: str, path: Path) -> None:
        root = (await self.do("DOM.getDocument"))["root"]["nodeId"]
        node = await self.do("DOM.querySelector", nodeId=root, selector=selector)
        await self.do("DOM.setFileInputFiles", files=[str(path)], **node)

    async def text(self, selector: str) -> str:
        return await self.value(f"document.querySelector({selector!r}).innerText")


@asynccontextmanager
async def tab(
    devtools: str, url: str, script: str = "", microphone: str = "granted"
) -> AsyncIterator[Tab]:
    """Opens a page in a running browser; the microphone is `granted` to it or `denied`."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(devtools, max_msg_size=0) as socket,
    ):
        tab = Tab(socket)
        await tab.open(url, script, microphone)
        try:
            yield tab
        finally:
            await tab.do("Page.close")
