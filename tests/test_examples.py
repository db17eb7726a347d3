"""Whole calls: the example bot over the real transport, called the way Twilio calls."""

import asyncio
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
from streamdouble import audio
from streamdouble.scenario import Dtmf, Say, Scenario, Wait, WaitFor
from twilio.request_validator import RequestValidator

EXAMPLES = Path(__file__).parent.parent / "examples"
TOKEN = "0123456789abcdef0123456789abcdef"
CALL_SID = "CA" + "1" * 32

# uvicorn's default WebSocket implementation imports what websockets has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning")


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
    async with api.serve() as base_url:
        settings = call.Settings(
            account_sid=call.ACCOUNT_SID,
            api_key_sid=call.KEY_SID,
            api_key_secret=call.KEY_SECRET,
            base_url=base_url,
            sample_rate=rate,
            end_silence_secs=0,
        )
        async with call.serve_bot(settings) as webhook:
            log, result = await call.place_call(webhook, scenario)
    report = call.report("test", log, result, hung_up=result.identity.call_sid in api.ended)
    assert report.complete, report
    # 20 ms that the interruption may catch on a machine that keeps up; 100 ms on one that does not.
    assert 0 <= report.lost <= 100
    assert result.closed_by == "agent"


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

    async def test_a_signed_webhook_is_told_a_stream_that_names_the_call(
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
        """Opens a signed stream for one call, and starts it for another; returns how it closed."""
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

    @pytest.mark.parametrize("first", ["", "{", '{"event": "media"}', '{"event": "stop"}', "\x00"])
    async def test_a_stream_that_does_not_start_as_documented_is_closed(
        self, call, first: str
    ) -> None:
        async with (
            call.serve_bot(call.Settings()) as webhook,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{webhook.replace('http', 'ws')}stream/{CALL_SID}") as socket,
        ):
            await socket.send_str(first)
            await asyncio.wait_for(socket.receive(), 5)
            assert socket.close_code == 1008
