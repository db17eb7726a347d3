"""Whole calls to the example bot over the real transport, made the way Twilio makes them."""

import asyncio
import os
import subprocess
import sys
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import aiohttp
import pytest
from fastapi import FastAPI, WebSocket
from phoning import EXAMPLES
from starlette.websockets import WebSocketDisconnect
from streamdouble import audio
from streamdouble.scenario import Dtmf, Say, Scenario, Wait, WaitFor
from twilio.request_validator import RequestValidator

from pipecat_twilio import messages

TOKEN = "0123456789abcdef0123456789abcdef"
CALL_SID = "CA" + "1" * 32


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
async def test_a_call_is_heard_interrupted_and_ended(call: ModuleType, rate: int) -> None:
    api = call.RestApi()
    speech = audio.wav_to_ulaw_frames(EXAMPLES / "speech.wav")[:60]
    scenario = Scenario(
        "speak, interrupt the echo, speak on, hang up",
        [
            Dtmf("123"),
            WaitFor("mark", timeout_s=5),  # a process that is new to it takes a while to answer
            Say(Path("-"), speech),
            Dtmf("*"),
            WaitFor("clear", timeout_s=5),
            Say(Path("-"), speech),
            Dtmf("#"),
            Wait(5),
        ],
    )
    async with (
        api.serve() as base_url,
        call.serve_bot(call.local_settings(base_url, sample_rate=rate)) as webhook,
    ):
        log, result = await call.place_call(webhook, scenario)
    report = call.report("test", log, result, hung_up=result.identity.call_sid in api.ended)
    assert report.complete, report
    # What Twilio had not yet played is lost to the interruption, and what was on its way: a message
    # on the wire and a frame in the bot on a machine that keeps up, 100 ms on one that does not.
    assert 0 <= report.lost - unplayed_at_clear_ms(log.received) <= 100
    assert result.closed_by == "agent"


def unplayed_at_clear_ms(received: list[tuple[float, dict[str, Any]]]) -> float:
    """Returns how much Twilio had in its buffer when it was told to clear it."""
    ends = 0.0
    for at, message in received:
        if message["event"] == "media":
            ends = max(ends, at) + len(b64decode(message["media"]["payload"])) / 8000
        elif message["event"] == "clear":
            return 1000 * max(0.0, ends - at)
    raise AssertionError("there was no clear")


class TestWhoIsServed:
    """Only Twilio is served unless anyone is allowed, and other requests cost little."""

    @pytest.mark.parametrize(
        "known", [{}, {"public_url": "https://bot.example.com"}, {"auth_token": TOKEN}]
    )
    def test_without_what_it_needs_to_check_signatures_the_bot_refuses_to_start(
        self, call: ModuleType, known: dict[str, str]
    ) -> None:
        with pytest.raises(ValueError, match="PUBLIC_URL and TWILIO_AUTH_TOKEN"):
            call.create_app(call.Settings(**known))
        call.create_app(call.Settings(**known, allow_anyone=True))

    def test_the_command_line_says_how_to_serve_anyone(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO", "PUBL"))}
        command = [sys.executable, EXAMPLES / "echo_bot.py"]
        done = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert "--allow-anyone" in done.stderr

    @pytest.mark.parametrize(
        ("options", "host", "token"),
        [(["--allow-anyone"], "127.0.0.1", ""), ([], "0.0.0.0", TOKEN)],
    )
    def test_with_allow_anyone_the_bot_listens_on_loopback_only_and_cannot_end_calls(
        self, call: ModuleType, options, host, token, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import echo_bot

        served: dict[str, Any] = {}
        monkeypatch.setattr(echo_bot.uvicorn, "run", lambda _, **options: served.update(options))
        monkeypatch.setattr(echo_bot, "gc", MagicMock())
        monkeypatch.setattr(echo_bot, "create_app", made := MagicMock())
        monkeypatch.setattr(sys, "argv", ["echo_bot.py", *options])
        monkeypatch.setenv("PUBLIC_URL", "https://bot.example.com")
        monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
        monkeypatch.setenv("TWILIO_ACCOUNT_SID", account_sid := "AC" + "1" * 32)
        assert echo_bot.main() == 0
        [settings] = made.call_args.args
        assert settings.auth_token == token
        assert settings.account_sid == (account_sid if token else "")
        assert served["host"] == host
        assert served["ws_per_message_deflate"] is False

    async def test_a_long_form_is_not_read_to_its_end(self, call) -> None:
        settings = call.Settings(auth_token=TOKEN, public_url="https://bot.example.com")
        sent = 0

        async def endless():
            nonlocal sent
            for _ in range(10_000):
                sent += 65536
                yield b"a=" + bytes(65534)

        async with call.serve_bot(settings) as webhook, aiohttp.ClientSession() as session:
            try:
                async with session.post(
                    webhook, data=endless(), headers={"Content-Type": "multipart/form-data"}
                ) as response:
                    assert response.status == 413
            except aiohttp.ClientConnectionError:
                pass  # the server has answered and closed while this one was still sending
        assert sent < 50 * 1024 * 1024  # what sockets hold, not the 625 MiB that were offered


class TestSignatures:
    """With a public URL and an auth token, only Twilio is served."""

    @pytest.fixture
    def settings(self, call: ModuleType):
        return call.Settings(
            account_sid=call.ACCOUNT_SID, auth_token=TOKEN, public_url="https://bot.example.com"
        )

    async def post(self, webhook: str, signature: str | None) -> tuple[int, str]:
        headers = {} if signature is None else {"X-Twilio-Signature": signature}
        form = {"CallSid": CALL_SID, "From": "+15005550006"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(webhook, data=form, headers=headers) as response,
        ):
            return response.status, await response.text()

    async def test_the_answer_to_a_signed_webhook_is_a_stream_that_names_the_call(
        self, call, settings
    ) -> None:
        form = {"CallSid": CALL_SID, "From": "+15005550006"}
        signature = RequestValidator(TOKEN).compute_signature("https://bot.example.com/", form)
        async with call.serve_bot(settings) as webhook:
            status, twiml = await self.post(webhook, signature)
        assert status == 200
        assert f'<Stream url="wss://bot.example.com/stream/{CALL_SID}"/>' in twiml

    @pytest.mark.parametrize("signature", [None, "", "bm90IGEgc2lnbmF0dXJl"])
    async def test_an_unsigned_webhook_is_forbidden(self, call, settings, signature) -> None:
        async with call.serve_bot(settings) as webhook:
            assert (await self.post(webhook, signature))[0] == 403

    async def connect(self, webhook: str, call_sid: str, start_call_sid: str) -> int | None:
        """Opens a signed stream for one call, and starts it for another; returns the close code."""
        url = f"wss://bot.example.com/stream/{call_sid}"
        signature = RequestValidator(TOKEN).compute_signature(url, {})
        start = {"streamSid": "MZ1", "callSid": start_call_sid, "accountSid": "AC1"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"{webhook.replace('http', 'ws')}stream/{call_sid}",
                headers={"X-Twilio-Signature": signature},
            ) as socket,
        ):
            await socket.send_json({"event": "connected"})
            await socket.send_json({"event": "start", "streamSid": "MZ1", "start": start})
            try:
                await socket.receive(timeout=2)
            except TimeoutError:
                return None
            return socket.close_code

    async def test_a_signed_stream_of_another_call_is_closed(self, call, settings) -> None:
        async with call.serve_bot(settings) as webhook:
            assert await self.connect(webhook, CALL_SID, "CA" + "2" * 32) == 1008

    async def test_an_unsigned_stream_is_refused(self, call, settings) -> None:
        async with call.serve_bot(settings) as webhook, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await session.ws_connect(f"{webhook.replace('http', 'ws')}stream/{CALL_SID}")
        assert error.value.status == 403

    @pytest.mark.parametrize(
        "first",
        [
            [],
            [""],
            ["{"],
            ['{"event": "media"}'],
            ['{"event": "stop"}'],
            ["\x00"],
            ['{"event": "connected"}', '{"event": "stop"}'],
        ],
    )
    async def test_a_stream_that_does_not_start_as_documented_is_closed(
        self, call, first: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("echo_bot.HANDSHAKE_SECS", 0.1 if not first else 60)
        async with (
            call.serve_bot(call.Settings(allow_anyone=True)) as webhook,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{webhook.replace('http', 'ws')}stream/{CALL_SID}") as socket,
        ):
            for text in first:
                await socket.send_str(text)
            await asyncio.wait_for(socket.receive(), 5)
            assert socket.close_code == 1008

    @pytest.mark.parametrize("last", [b"", b"{", b"\xff"])
    async def test_whoever_leaves_early_is_no_error_of_the_server(self, call, last, capsys) -> None:
        async with (
            call.serve_bot(call.Settings(allow_anyone=True)) as webhook,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{webhook.replace('http', 'ws')}stream/{CALL_SID}") as socket,
        ):
            await socket.send_json({"event": "connected"})
            if last:
                await socket.send_frame(last, aiohttp.WSMsgType.TEXT)
            await socket.close()
            _, form = await asyncio.open_connection("127.0.0.1", int(webhook.split(":")[2][:-1]))
            form.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nCallSid")
            await form.drain()
            await asyncio.sleep(0.1)  # the server has begun to read it
            form.close()
            await form.wait_closed()
        assert "Exception in ASGI application" not in capsys.readouterr().err


class TestAddresses:
    """A fault of an address is printed as a sentence, without a traceback."""

    async def run(self, call: ModuleType, monkeypatch, tmp_path, *arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["call.py", *arguments, "--out", str(tmp_path)])
        monkeypatch.setattr(call.logger, "remove", lambda: None)
        monkeypatch.setattr(call.logger, "add", lambda *_, **__: None)
        return await call.main()

    @pytest.mark.parametrize(
        ("scheme", "words"),
        [
            ("ws", "is no Media Streams server"),
            ("wss", "does not speak TLS"),
            ("http", "is no ws:// or wss:// address"),
        ],
    )
    async def test_a_web_server_is_no_stream(
        self, call, monkeypatch, tmp_path, capsys, scheme: str, words: str
    ) -> None:
        async with call.serve_bot(call.Settings(allow_anyone=True)) as webhook:
            url = webhook.replace("http", scheme)
            assert await self.run(call, monkeypatch, tmp_path, "--stream", url) == 2
        (line,) = capsys.readouterr().out.splitlines()
        assert words in line

    @pytest.mark.parametrize("option", ["--stream", "--url"])
    async def test_an_address_nobody_listens_on(
        self, call, monkeypatch, tmp_path, capsys, option: str
    ) -> None:
        async with call.serve_bot(call.Settings(allow_anyone=True)) as webhook:
            pass
        url = webhook if option == "--url" else webhook.replace("http", "ws")
        assert await self.run(call, monkeypatch, tmp_path, option, url) == 2
        (line,) = capsys.readouterr().out.splitlines()
        assert "nobody" in line

    @pytest.mark.parametrize("answers", [True, False])
    async def test_any_bots_socket_is_called_directly(
        self, call, monkeypatch, tmp_path, capsys, answers
    ) -> None:
        app = FastAPI()

        @app.websocket("/ws")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            sid = ""
            with suppress(WebSocketDisconnect):
                while True:
                    message = messages.parse(await websocket.receive_text())
                    if isinstance(message, messages.Media) and answers:
                        await websocket.send_text(messages.media(sid, message.media.payload))
                    elif isinstance(message, messages.Start):
                        sid = message.stream_sid

        monkeypatch.setattr(call, "script", lambda _: Scenario("wait", [Wait(0.5)]))
        async with call.serve(app) as port:
            url = f"ws://127.0.0.1:{port}/ws"
            status = await self.run(call, monkeypatch, tmp_path, "--stream", url)
        if answers:
            assert status == 0
            assert {path.name for path in tmp_path.iterdir()} == {"reply.wav", "reply.svg"}
        else:
            assert status == 2
            assert "sent nothing" in capsys.readouterr().out
