"""Ending a call, against a loopback server that answers well, badly, or not at all."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from loguru import logger

from pipecat_twilio import hangup
from pipecat_twilio.hangup import Call, call_url

ACCOUNT, CALL = "AC" + "a1" * 16, "CA" + "b2" * 16
TOKEN, KEY, SECRET = (
    "auth-token-that-stays-secret",
    "SK" + "c3" * 16,
    "key-secret-that-stays-secret",
)
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"

GONE = web.json_response({"code": 20404, "message": "not found", "status": 404}, status=404)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A loopback stand-in for Twilio's API that gives scripted answers, the last one for good."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(
            (request.method, request.path_qs, form, request.headers["Authorization"])
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    scripted = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield scripted
    await runner.cleanup()


def reply(status: int, text: str = "", headers: dict[str, str] | None = None) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


async def stall(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def hang_up_the_line(request: web.Request) -> web.StreamResponse:
    """Announces a longer body than it sends, and closes the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport is not None
    request.transport.abort()
    return response


def call(server: Server, **credentials: Any) -> Call:
    return Call(ACCOUNT, CALL, base_url=server.url, **(credentials or {"auth_token": TOKEN}))


def levels(log: list[str]) -> list[str]:
    return [line.split()[0] for line in log]


class TestAddress:
    @pytest.mark.parametrize(
        ("where", "root"),
        [
            ({}, "https://api.twilio.com"),
            ({"region": "ie1", "edge": "dublin"}, "https://api.dublin.ie1.twilio.com"),
            ({"region": "au1", "edge": "sydney"}, "https://api.sydney.au1.twilio.com"),
            ({"base_url": "https://example.com/"}, "https://example.com"),
            ({"base_url": "https://example.com:8443/twilio"}, "https://example.com:8443/twilio"),
            ({"base_url": "http://127.0.0.1:80", "region": "ie1"}, "http://127.0.0.1:80"),
            ({"base_url": "https://[::1]:1", "region": "ie1", "edge": "dublin"}, "https://[::1]:1"),
            ({"base_url": ""}, "https://api.twilio.com"),
        ],
    )
    def test_the_root_is_base_url_or_edge_and_region_or_the_default(self, where, root: str) -> None:
        assert call_url(ACCOUNT, CALL, **where) == root + PATH

    @pytest.mark.parametrize("name", ["account_sid", "call_sid"])
    @pytest.mark.parametrize(
        "sid",
        [
            "CA1/../../x",
            "CA1?a=b",
            "CA1#",
            "CA1%2e",
            "CA 1",
            "CA1\n",
            "C\u0410",
            "..",
            "@evil.com",
            "CA1.json",
        ],
    )
    def test_a_sid_with_any_other_character_is_refused_by_name(self, name: str, sid: str) -> None:
        sids = {"account_sid": ACCOUNT, "call_sid": CALL, name: sid}
        with pytest.raises(ValueError, match=name):
            call_url(**sids)
        with pytest.raises(ValueError, match=name):
            Call(**sids, auth_token=TOKEN)

    @pytest.mark.parametrize("name", ["region", "edge"])
    @pytest.mark.parametrize(
        "label", ["evil.com/", "a.b", "-a", "a-", "a" * 64, "a b", "ie1\n", "\u00e9"]
    )
    def test_a_region_or_edge_that_is_no_dns_label_is_refused_by_name(
        self, name: str, label: str
    ) -> None:
        where = {"region": "ie1", "edge": "dublin", name: label}
        with pytest.raises(ValueError, match=f"{name} must be a DNS label"):
            call_url(ACCOUNT, CALL, **where)

    @pytest.mark.parametrize("where", [{"region": "ie1"}, {"edge": "dublin"}])
    def test_region_and_edge_belong_together(self, where: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="region and edge"):
            call_url(ACCOUNT, CALL, **where)

    @pytest.mark.parametrize(
        "base_url",
        [
            "example.com",
            "ftp://example.com",
            "https://",
            "https:///path",
            "https://user:hidden@example.com",
            "https://example.com/?a=b",
            "https://example.com/#",
            "https://exa mple.com",
            "https://example.com\n",
            "https://example.com\\@evil.com",
            "https://example.com:port",
            "https://example.com:99999",
            "https://\u0435xample.com",
            "javascript:alert(1)",
        ],
    )
    def test_a_base_url_that_is_no_plain_root_is_refused_without_its_password(
        self, base_url: str
    ) -> None:
        with pytest.raises(ValueError, match="base_url must be") as error:
            call_url(ACCOUNT, CALL, base_url=base_url)
        assert "hidden" not in str(error.value)

    def test_clear_text_to_another_host_is_warned_about_once(self, log: list[str]) -> None:
        hangup._warn_of_clear_text.cache_clear()
        for _ in range(3):
            call_url(ACCOUNT, CALL, base_url="http://pbx.example.com")
            for loopback in ("http://localhost:1", "http://127.0.0.9", "http://[::1]"):
                call_url(ACCOUNT, CALL, base_url=loopback)
        assert levels(log) == ["WARNING"]
        assert "pbx.example.com" in log[0]


class TestCredentials:
    @pytest.mark.parametrize(
        "credentials",
        [
            {},
            {"api_key_sid": KEY},
            {"api_key_secret": SECRET},
            {"auth_token": TOKEN, "api_key_sid": KEY},
            {"auth_token": TOKEN, "api_key_sid": KEY, "api_key_secret": SECRET},
        ],
    )
    def test_one_whole_kind_is_needed_and_no_error_shows_a_secret(self, credentials) -> None:
        with pytest.raises(ValueError, match=r"auth_token|api_key") as error:
            Call(ACCOUNT, CALL, **credentials)
        assert TOKEN not in str(error.value)
        assert SECRET not in str(error.value)

    @pytest.mark.parametrize(
        ("credentials", "login"),
        [
            ({"auth_token": TOKEN}, f"{ACCOUNT}:{TOKEN}"),
            ({"api_key_sid": KEY, "api_key_secret": SECRET}, f"{KEY}:{SECRET}"),
        ],
    )
    async def test_the_request_is_the_documented_one(
        self, server: Server, credentials, login: str, log: list[str]
    ) -> None:
        server.answers = [reply(200, '{"status": "completed"}')]
        assert await call(server, **credentials).complete()
        basic = "Basic " + base64.b64encode(login.encode()).decode()
        assert server.requests == [("POST", PATH, {"Status": "completed"}, basic)]
        assert levels(log) == ["INFO"]


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "over", "level"),
        [
            (reply(200, "{}"), True, "INFO"),
            (reply(201, ""), True, "INFO"),
            (reply(404, '{"code": 20404}'), True, "DEBUG"),
            (reply(400, '{"code": 21220}'), True, "DEBUG"),
            (reply(404, "<html>no such page</html>"), False, "ERROR"),
            (reply(404, '{"code": "20404"}'), False, "ERROR"),
            (reply(404, "[" * 4000), False, "ERROR"),
            (reply(400, '{"code": 20001}'), False, "ERROR"),
            (reply(401, '{"code": 20003}'), False, "ERROR"),
            (reply(403, ""), False, "ERROR"),
            (reply(302, "", {"Location": "/elsewhere"}), False, "ERROR"),
        ],
    )
    async def test_final_answers_are_not_asked_for_twice(
        self, server: Server, answer: Answer, over: bool, level: str, log: list[str]
    ) -> None:
        server.answers = [answer]
        assert await call(server).complete() is over
        assert len(server.requests) == 1
        assert levels(log) == [level]

    @pytest.mark.parametrize(
        ("credentials", "kind"),
        [
            ({"auth_token": TOKEN}, "auth token"),
            ({"api_key_sid": KEY, "api_key_secret": SECRET}, f"API key '{KEY}'"),
        ],
    )
    async def test_401_names_the_credentials_and_where_they_belong(
        self, server: Server, credentials, kind: str, log: list[str]
    ) -> None:
        server.answers = [reply(401, '{"code": 20003}')]
        await call(server, **credentials).complete()
        assert kind in log[0]
        assert server.url in log[0]

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
    async def test_passing_troubles_are_tried_again(
        self, server: Server, status: int, log: list[str]
    ) -> None:
        server.answers = [reply(status), reply(status), reply(200)]
        assert await call(server).complete()
        assert len(server.requests) == 3
        assert levels(log) == ["DEBUG", "DEBUG", "INFO"]

    async def test_trouble_that_does_not_pass_ends_within_the_limit(
        self, server: Server, log: list[str]
    ) -> None:
        server.answers = [reply(503, "down for maintenance")]
        start = time.monotonic()
        assert not await call(server).complete(timeout_secs=1)
        assert time.monotonic() - start < 1.5
        # Pauses of 0.1 to 0.4, 0.2 to 0.8, 0.4 to 1.6 s: at least one fits, five cannot.
        assert 2 <= len(server.requests) <= 4
        assert levels(log)[-1] == "ERROR"
        assert "maintenance" in log[-1]

    @pytest.mark.parametrize("as_date", [False, True])
    async def test_retry_after_is_honoured(self, server: Server, as_date: bool) -> None:
        # A date has whole seconds, so 2 s ahead is 1 to 2 s.
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        server.answers = [reply(429, "", {"Retry-After": date if as_date else "1"}), reply(200)]
        start = time.monotonic()
        assert await call(server).complete()
        assert 0.9 < time.monotonic() - start < 4
        assert len(server.requests) == 2

    @pytest.mark.parametrize("header", ["60", "Fri, 31 Dec 2999 23:59:59 GMT", "9" * 500])
    async def test_a_retry_after_beyond_the_limit_ends_it_at_once(
        self, server: Server, header: str, log: list[str]
    ) -> None:
        server.answers = [reply(429, "", {"Retry-After": header})]
        start = time.monotonic()
        assert not await call(server).complete()
        assert time.monotonic() - start < 1
        assert len(server.requests) == 1
        assert levels(log) == ["ERROR"]

    @pytest.mark.parametrize("header", ["soon", "-5", "1.5", "", "Fri, 99 Dec 2999", "\u00b2"])
    async def test_a_retry_after_that_says_nothing_is_ignored(
        self, server: Server, header: str
    ) -> None:
        server.answers = [reply(429, "", {"Retry-After": header}), reply(200)]
        assert await call(server).complete()
        assert len(server.requests) == 2

    async def test_a_server_that_stalls_is_left_at_the_limit(
        self, server: Server, log: list[str]
    ) -> None:
        server.answers = [stall]
        start = time.monotonic()
        assert not await call(server).complete(timeout_secs=0.3)
        assert time.monotonic() - start < 1
        assert len(server.requests) == 1
        assert levels(log) == ["ERROR"]
        assert "within 0.3 s" in log[0]

    async def test_a_connection_closed_half_way_is_tried_again(self, server: Server) -> None:
        server.answers = [hang_up_the_line, reply(200)]
        assert await call(server).complete()
        assert len(server.requests) == 2

    async def test_a_server_that_does_not_listen_is_tried_until_the_limit(
        self, unused_tcp_port: int, log: list[str]
    ) -> None:
        nobody = Call(
            ACCOUNT, CALL, auth_token=TOKEN, base_url=f"http://127.0.0.1:{unused_tcp_port}"
        )
        start = time.monotonic()
        assert not await nobody.complete(timeout_secs=0.5)
        assert time.monotonic() - start < 1
        assert levels(log)[-1] == "ERROR"
        assert "ClientConnectorError" in log[-1]

    async def test_a_long_answer_is_not_read_to_its_end(
        self, server: Server, log: list[str]
    ) -> None:
        server.answers = [reply(404, "x\n" * 5_000_000)]
        assert not await call(server).complete()
        assert len(log[0]) < 500
        assert log[0].count("\n") == 1

    async def test_cancelling_ends_it_at_once(self, server: Server) -> None:
        arrived = asyncio.Event()

        async def stall_and_tell(request: web.Request) -> web.StreamResponse:
            arrived.set()
            return await stall(request)

        server.answers = [stall_and_tell]
        task = asyncio.create_task(call(server).complete())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


LIMIT_SECS = 0.6


class TestTheWholeScript:
    """Every answer in one table: how often it is asked for, how long that takes, what is logged."""

    @pytest.mark.parametrize(
        ("answers", "over", "requests", "longest_secs", "logged"),
        [
            ([reply(200, "{}")], True, 1, 0.5, ["INFO"]),
            ([reply(401, '{"code": 20003}')], False, 1, 0.5, ["ERROR"]),
            ([reply(404, '{"code": 20404}')], True, 1, 0.5, ["DEBUG"]),
            ([reply(404, "<html>no such page</html>")], False, 1, 0.5, ["ERROR"]),
            ([reply(400, '{"code": 21220}')], True, 1, 0.5, ["DEBUG"]),
            # A first pause is of 0.1 to 0.4 s.
            ([reply(429), reply(200)], True, 2, 0.9, ["DEBUG", "INFO"]),
            ([reply(429, "", {"Retry-After": "0"}), reply(200)], True, 2, 0.5, ["DEBUG", "INFO"]),
            ([reply(429, "", {"Retry-After": "1"})], False, 1, 0.5, ["ERROR"]),
            ([reply(500), reply(200)], True, 2, 0.9, ["DEBUG", "INFO"]),
            ([stall], False, 1, LIMIT_SECS + 0.5, ["ERROR"]),
            ([hang_up_the_line, reply(200)], True, 2, 0.9, ["DEBUG", "INFO"]),
        ],
        ids=[
            *("200", "401", "404 20404", "404 HTML", "400 21220", "429", "429 in time"),
            *("429 too late", "500 then 200", "stalled", "closed half-way"),
        ],
    )
    async def test_an_answer(
        self, server: Server, answers, over, requests, longest_secs, logged, log: list[str]
    ) -> None:
        server.answers = list(answers)
        start = time.monotonic()
        assert await call(server).complete(timeout_secs=LIMIT_SECS) is over
        assert time.monotonic() - start < longest_secs
        assert len(server.requests) == requests
        assert levels(log) == logged

    async def test_nobody_listens(self, unused_tcp_port: int, log: list[str]) -> None:
        nobody = Call(
            ACCOUNT, CALL, auth_token=TOKEN, base_url=f"http://127.0.0.1:{unused_tcp_port}"
        )
        start = time.monotonic()
        assert not await nobody.complete(timeout_secs=LIMIT_SECS)
        assert time.monotonic() - start < LIMIT_SECS + 0.5
        assert levels(log)[-1] == "ERROR"
        assert set(levels(log)[:-1]) <= {"DEBUG"}


@pytest.mark.parametrize(
    "credentials", [{"auth_token": TOKEN}, {"api_key_sid": KEY, "api_key_secret": SECRET}]
)
async def test_no_secret_is_ever_shown(
    server: Server, unused_tcp_port: int, credentials, caplog: pytest.LogCaptureFixture
) -> None:
    # All that anybody logs, aiohttp and asyncio at their most talkative included.
    caplog.set_level(0)
    asyncio.get_running_loop().set_debug(True)
    shown: list[str] = []
    sink = logger.add(
        shown.append,
        level=0,
        format="{level} {message} {extra} {exception}",
        backtrace=True,
        diagnose=True,
    )
    for status in (200, 302, 400, 401, 403, 404, 429, 500, 503):
        server.answers = [reply(status, f"your token {status}")]
        target = call(server, **credentials)
        shown.append(repr(target))
        await target.complete(timeout_secs=0.2)
    for answer in (stall, hang_up_the_line):
        server.answers = [answer]
        await call(server, **credentials).complete(timeout_secs=0.2)
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    await Call(ACCOUNT, CALL, base_url=nobody, **credentials).complete(timeout_secs=0.2)
    with pytest.MonkeyPatch.context() as patch:
        # What aiohttp may raise of its own, quoting the request.
        def fail(*_args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"failed with {kwargs}")

        patch.setattr("aiohttp.ClientSession.post", fail)
        assert not await call(server, **credentials).complete(timeout_secs=0.2)
    logger.remove(sink)
    text = "".join(shown) + caplog.text
    assert "RuntimeError" in text
    assert "asyncio" in caplog.text
    login = f"{ACCOUNT}:{TOKEN}" if "auth_token" in credentials else f"{KEY}:{SECRET}"
    for secret in (
        TOKEN,
        SECRET,
        base64.b64encode(login.encode()).decode(),
        "Basic ",
        "Authorization",
    ):
        assert secret not in text
