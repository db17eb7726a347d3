"""Only the API sees the credentials: no proxy and no log does."""

import asyncio
import base64
from typing import Any

import pytest
from loguru import logger
from rest_server import BASIC, BOTH_KINDS, PATH, SECRET, TOKEN, Answer, Server, call, reply
from yarl import URL

from pipecat_twilio.twilio.hangup import _proxy, hang_up

pytestmark = pytest.mark.usefixtures("quick")


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
        assert (await hang_up(call(server, auth_token=TOKEN, base_url="http://127.0.0.1:9"))).over
        (request,) = server.requests
        assert request.line == f"POST http://127.0.0.1:9{PATH} HTTP/1.1"
        assert request.headers["Authorization"] == BASIC
        assert "Proxy-Authorization" not in request.headers

    @pytest.mark.parametrize("login", ["", "user:pass@"])
    async def test_https_is_hidden_from_the_proxy(self, server, login, monkeypatch) -> None:
        monkeypatch.setenv("https_proxy", f"http://{login}127.0.0.1:{server.port}")
        server.answers = [Answer(b"HTTP/1.1 200 OK\r\n\r\n")]
        https = call(server, auth_token=TOKEN, base_url="https://127.0.0.1:9")
        assert not (await hang_up(https, timeout_secs=0.1)).over
        request = server.requests[0]
        assert request.line == "CONNECT 127.0.0.1:9 HTTP/1.1"
        assert "Authorization" not in request.headers
        basic = "Basic " + base64.b64encode(b"user:pass").decode()
        assert request.headers.get("Proxy-Authorization") == (basic if login else None)
        assert server.after_connect == b"\x16"  # a TLS handshake: RFC 8446, section 5.1

    @pytest.mark.parametrize("direct", ["127.0.0.1", "example.com,127.0.0.1:{}", "*"])
    async def test_no_proxy_is_honoured(self, server, direct, monkeypatch, unused_tcp_port) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_tcp_port}")
        monkeypatch.setenv("NO_PROXY", direct.format(server.port))
        server.answers = [reply(200)]
        assert (await hang_up(call(server), timeout_secs=1)).over
        assert server.requests[0].line == f"POST {PATH} HTTP/1.1"
        assert server.requests[0].headers["Authorization"] == BASIC

    def test_no_proxy_may_name_an_ipv6_address(self, monkeypatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        assert _proxy(URL("http://[::1]:9")) == "http://127.0.0.1:9"
        monkeypatch.setenv("NO_PROXY", "::1")
        assert _proxy(URL("http://[::1]:9")) is None


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
        assert (await hang_up(call(server, **credentials))).answer == "RuntimeError"
    logger.remove(sink)
    text = "".join(shown) + caplog.text
    assert "asyncio" in caplog.text
    assert "your token" in text
    for secret in (TOKEN, SECRET, basic, "Basic ", "Authorization"):
        assert secret not in text
