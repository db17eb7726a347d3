"""The request that ends a call, against a loopback server with good, bad or no answers.

Only the API sees the credentials: no proxy and no log does.
"""

import asyncio
import base64
import gzip
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from loguru import logger
from rest_server import (
    ACCOUNT,
    BASIC,
    BOTH_KINDS,
    CALL,
    KEY,
    PATH,
    SECRET,
    TOKEN,
    Answer,
    Server,
    call,
    reply,
)

from pipecat_twilio.twilio import hangup
from pipecat_twilio.twilio.hangup import hang_up

pytestmark = pytest.mark.usefixtures("quick")

GONE = '{"code": 20404, "message": "not found", "status": 404}'
ODD_SIDS = {"account_sid": "v3:abc:def", "call_sid": "!\"$&'()*+,-.0:;<=>@[]^_`{|}~"}
PAST = "Fri, 31 Dec 1999 23:59:59 GMT"


def levels(log: list[str]) -> list[str]:
    return [line.split()[0] for line in log]


@BOTH_KINDS
@pytest.mark.parametrize("sids", [{}, ODD_SIDS])
async def test_the_request_is_the_documented_one_at_the_address_verbatim(
    server: Server, credentials, login, sids, log: list[str]
) -> None:
    if sids:  # a login cannot hold a colon
        credentials = {"api_key_sid": KEY, "api_key_secret": SECRET}
        login = f"{KEY}:{SECRET}"
    server.answers = [reply(200, '{"status": "completed"}')]
    resource = call(server, **credentials, **sids, base_url=f"{server.url}/%7e%2F")
    assert (await hang_up(resource)).text == "200"
    (request,) = server.requests
    account, sid = {"account_sid": ACCOUNT, "call_sid": CALL, **sids}.values()
    path = f"/%7e%2F/2010-04-01/Accounts/{account}/Calls/{sid}.json"
    assert request.line == f"POST {path} HTTP/1.1"
    assert request.body == b"Status=completed"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(login.encode()).decode()
    assert request.headers["Accept-Encoding"] == "identity"
    assert log[-1] == f"INFO <Call {sid}> was ended\n"


class TestAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            *(reply(200, "{}"), reply(204), reply(299, GONE)),
            *(reply(200, "{", length=1000, held=held) for held in (False, True)),
            *(reply(200, "no gzip", Content_Encoding=code) for code in ("gzip", "unheard-of")),
        ],
    )
    async def test_any_2xx_means_over_whatever_its_body(
        self, server, answer, log, monkeypatch
    ) -> None:
        monkeypatch.setattr(hangup, "_MAX_BODY_SECS", 60)
        server.answers = [answer, reply(500)]
        outcome = await asyncio.wait_for(hang_up(call(server), timeout_secs=60), 10)
        assert outcome.text == answer.data[9:12].decode()
        assert len(server.requests) == 1
        assert levels(log) == ["INFO"]

    @pytest.mark.parametrize(
        ("answer", "over", "told"),
        [
            (reply(404, GONE), True, "404, code 20404"),
            (reply(400, '{"code": 21220}'), True, "400, code 21220"),
            (reply(404, '{"code": 20404, "a": "%s"}' % ("x" * 4000)), True, "404, code 20404"),
            (reply(404, '{"code": 20404, "a": "%s"}' % ("x" * 4096)), False, "404, '"),
            (reply(404, "<html>no such page</html>"), False, "404, '<html>no such page"),
            (reply(404, '{"code": "20404"}'), False, "404, '"),
            (reply(404, "[" * 4000), False, "404, '[["),
            (reply(404, '{"code": %s}' % ("9" * 4300)), False, "404, '"),
            (reply(404, GONE, length=1000), True, "404, code 20404"),
            (reply(404, GONE, length=1000, held=True), True, "404, code 20404"),
            (reply(404, "half a", length=1000, held=True), False, "404, 'half a'"),
            (reply(404, gzip.compress(GONE.encode()), Content_Encoding="gzip"), False, "404, "),
            (reply(400, '{"code": 20001}'), False, "400, '"),
            (reply(401, '{"code": 20003}'), False, "401, check the auth token, and that it"),
            (reply(403), False, "403, ''"),
            (reply(302, Location="/elsewhere"), False, "302, ''"),
        ],
    )
    async def test_after_any_other_final_answer_there_is_no_second_request(
        self, server: Server, answer: Answer, over: bool, told: str, log: list[str]
    ) -> None:
        server.answers = [answer, reply(200)]
        text = (await hang_up(call(server))).text
        assert len(server.requests) == 1
        assert text.startswith(told)
        assert len(text) < 2000
        assert text.isprintable()
        assert levels(log) == ["INFO" if over else "ERROR"]

    @pytest.mark.parametrize(
        "answer",
        [
            *[reply(status) for status in (408, 429, 500, 502, 503, 599)],
            reply(503, "{", length=1000, held=True),
            Answer(b""),
            Answer(b"not HTTP\r\n\r\n"),
        ],
    )
    async def test_temporary_failures_are_tried_again(self, server, answer, log) -> None:
        server.answers = [answer, answer, reply(200)]
        assert (await hang_up(call(server))).text == "200"
        assert len(server.requests) == 3
        assert levels(log) == ["DEBUG", "DEBUG", "INFO"]

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (Answer(b"", held=True), "no answer within 0.1 s"),
            (reply(503, "{", length=1000, held=True), "503, ''"),
        ],
    )
    async def test_an_answer_is_waited_for_until_the_limit(
        self, server, answer, told, log, monkeypatch
    ) -> None:
        monkeypatch.setattr(hangup, "_MAX_BODY_SECS", 60)
        server.answers = [answer]
        assert (await hang_up(call(server), timeout_secs=0.1)).text == told
        assert levels(log) == ["ERROR"]

    async def test_a_server_that_does_not_listen_is_tried_until_the_limit(
        self, server: Server, unused_tcp_port: int, log: list[str]
    ) -> None:
        nobody = call(server, auth_token=TOKEN, base_url=f"http://127.0.0.1:{unused_tcp_port}")
        assert (await hang_up(nobody, timeout_secs=0.1)).text == "ClientConnectorError"
        assert (set(levels(log)[:-1]), levels(log)[-1]) == ({"DEBUG"}, "ERROR")


class TestRetryAfter:
    @pytest.mark.parametrize(
        "header",
        [
            *("0", PAST, "-5", "1.5", "soon", "", "\xb2", "Fri, 99 Dec 2999"),
            *(f"Fri, 31 Dec {end}" for end in (f"{10**20} 23:59:59 GMT", "2999 23:59:59 +9999999")),
        ],
    )
    async def test_the_past_and_nonsense_do_not_shorten_the_pauses(
        self, server, header, monkeypatch
    ) -> None:
        monkeypatch.setattr(hangup, "_FIRST_PAUSE_SECS", 0.01)  # a 20th of all times
        server.answers = [reply(429, Retry_After=header)]
        assert (await hang_up(call(server), timeout_secs=0.25)).text == "429, ''"
        assert 2 <= len(server.requests) < 12

    @pytest.mark.parametrize("header", ["60", "9" * 5000, "a date"])
    async def test_a_time_beyond_the_limit_ends_it_at_once(self, server, header, log) -> None:
        date = datetime.now(UTC) + timedelta(seconds=60)
        header = header if header.isdecimal() else f"{date:%a, %d %b %Y %H:%M:%S} GMT"
        server.answers = [reply(429, Retry_After=header)]
        await asyncio.wait_for(hang_up(call(server), timeout_secs=50), 10)
        assert len(server.requests) == 1
        assert levels(log) == ["ERROR"]

    async def test_it_is_waited_for(self, server) -> None:
        server.answers = [reply(429, Retry_After="1"), reply(200)]
        begin = time.monotonic()
        assert (await hang_up(call(server))).text == "200"
        assert time.monotonic() - begin >= 1


async def test_pauses_are_random_and_double(server: Server, monkeypatch) -> None:
    ranges: list[tuple[float, float]] = []
    monkeypatch.setattr("random.uniform", lambda *bounds: ranges.append(bounds) or 0.0)
    server.answers = [reply(500)]
    await hang_up(call(server), timeout_secs=0.2)
    for (shortest, longest), expected in zip(ranges[:4], (0.4, 0.8, 1.6, 3.2), strict=True):
        assert (shortest, longest) == pytest.approx((expected / 4 / 100, expected / 100))


class TestProxies:
    """Requests through a real proxy on loopback, with a `.netrc` that has a login for the host."""

    @pytest.fixture(autouse=True)
    def _netrc(self, tmp_path, monkeypatch) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login netrc password netrc\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

    @pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}"])
    async def test_http_goes_through_the_proxy(self, server, form, monkeypatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", form.format(server.port))
        server.answers = [reply(200)]
        await hang_up(call(server, auth_token=TOKEN, base_url="http://127.0.0.1:9"))
        (request,) = server.requests
        assert request.line == f"POST http://127.0.0.1:9{PATH} HTTP/1.1"
        assert request.headers["Authorization"] == BASIC
        assert "Proxy-Authorization" not in request.headers

    async def test_https_is_hidden_from_the_proxy_which_gets_its_own_login(
        self, server, monkeypatch
    ) -> None:
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{server.port}")
        server.answers = [Answer(b"HTTP/1.1 200 OK\r\n\r\n")]
        https = call(server, auth_token=TOKEN, base_url="https://127.0.0.1:9")
        await hang_up(https, timeout_secs=0.1)
        request = server.requests[0]
        assert request.line == "CONNECT 127.0.0.1:9 HTTP/1.1"
        assert "Authorization" not in request.headers
        basic = "Basic " + base64.b64encode(b"user:pass").decode()
        assert request.headers["Proxy-Authorization"] == basic
        assert server.after_connect == b"\x16"  # a TLS handshake: RFC 8446, section 5.1

    @pytest.mark.parametrize("direct", ["127.0.0.1", "example.com,127.0.0.1:{}", "*"])
    async def test_no_proxy_is_honoured(self, server, direct, monkeypatch, unused_tcp_port) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_tcp_port}")
        monkeypatch.setenv("NO_PROXY", direct.format(server.port))
        server.answers = [reply(200)]
        await hang_up(call(server), timeout_secs=1)
        assert server.requests[0].line == f"POST {PATH} HTTP/1.1"
        assert server.requests[0].headers["Authorization"] == BASIC


@BOTH_KINDS
async def test_no_secret_is_ever_shown(
    server: Server, unused_tcp_port: int, credentials, login, caplog: pytest.LogCaptureFixture
) -> None:
    # All that anybody logs, aiohttp and asyncio at their most talkative included.
    caplog.set_level(0)
    asyncio.get_running_loop().set_debug(True)
    shown: list[str] = []
    form = "{level} {message} {extra} {exception}"
    sink = logger.add(shown.append, level=0, format=form, backtrace=True, diagnose=True)
    basic = base64.b64encode(login.encode()).decode()
    for text in ("your token", f"you sent Basic {basic}", f"you are {login}"):
        for status in (200, 302, 400, 401, 403, 404, 429, 500, 503):
            server.answers = [reply(status, text)]
            secs = 0.02 if status in (429, 500, 503) else 5  # the others are not tried again
            shown.append(repr(await hang_up(call(server, **credentials), timeout_secs=secs)))
    for answer in (Answer(b"", held=True), reply(404, "{", length=9)):
        server.answers = [answer]
        shown.append(repr(await hang_up(call(server, **credentials), timeout_secs=0.05)))
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    await hang_up(call(server, **credentials, base_url=nobody), timeout_secs=0.05)
    with pytest.MonkeyPatch.context() as patch:
        # What aiohttp may raise of its own, quoting the request.
        def fail(*_args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"failed with {kwargs}")

        patch.setattr("aiohttp.ClientSession.post", fail)
        answer = await hang_up(call(server, **credentials), timeout_secs=0.05)
        assert answer.text == "RuntimeError"
    logger.remove(sink)
    text = "".join(shown) + caplog.text
    assert "asyncio" in caplog.text
    assert "your token" in text
    for secret in (TOKEN, SECRET, basic, "Basic ", "Authorization"):
        assert secret not in text
