"""README, CONTRIBUTING and docs/: snippets run, links lead somewhere, figures were measured."""

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import aiohttp
import fastapi_bot
import pytest
from dialing import ACCOUNT_SID, read_twiml
from pipecat.frames.frames import CancelFrame, TTSStoppedFrame
from pipecat.tests.utils import run_test
from serving import serve
from streams import CALL_SID, documented, media

from pipecat_twilio import MarkFrame, TwilioFrameSerializer, TwilioTransport, install, messages
from pipecat_twilio.twilio.call_report import CallReport

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "examples" / "README.md")
}
README, REFERENCE = PAGES["README.md"], PAGES["docs/reference.md"]


def snippets(language: str, *pages: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [text for page in pages or PAGES for text in pattern.findall(PAGES[page])]


def names_of(snippet_with: str) -> dict[str, Any]:
    """Runs the snippet that has a text in it; returns what it defines."""
    (snippet,) = [text for text in snippets("python") if snippet_with in text]
    names: dict[str, Any] = {"__name__": "docs"}
    exec(compile(snippet, "docs", "exec"), names)
    return names


class TestSnippets:
    def test_the_bot_is_the_example_which_has_tests_of_its_own(self) -> None:
        assert snippets("python", "README.md") == [(ROOT / "examples" / "bot.py").read_text()]

    @pytest.mark.parametrize("snippet", snippets("python", *(PAGES.keys() - {"README.md"})))
    def test_a_snippet_runs(self, snippet: str) -> None:
        names_of(snippet)

    def test_the_second_command_is_what_continuous_integration_runs(self) -> None:
        demo, tests, phone, _ = (command.strip() for command in snippets("sh", "README.md"))
        assert (demo, phone) == (f"{tests} -e demo", f"{tests} -e phone")
        assert tests in (ROOT / ".ci" / "run").read_text()

    def test_every_environment_that_is_named_is_there(self) -> None:
        there = (ROOT / "tox.ini").read_text()
        used = re.findall(r"tox -e ([\w,]+)", "".join(PAGES.values()))
        for name in {name for names in used for name in names.split(",")}:
            assert re.search(rf"\b{name}\b", there), name

    async def test_what_was_heard_is_recorded(self) -> None:
        heard = names_of("class Heard")["Heard"]("MZ1")
        marks = [MarkFrame("other"), MarkFrame("answer"), MarkFrame("answer", cleared=True)]
        down, _ = await run_test(heard, frames_to_send=[*marks, TTSStoppedFrame()])
        assert heard.heard == [True, False]
        assert down[-1].message == messages.mark("MZ1", "answer")

    async def test_a_transfer_hands_off_before_it_moves_the_call(self) -> None:
        order: list[object] = []

        class Call:
            hand_off = staticmethod(lambda: order.append("handed off"))
            calls = staticmethod(lambda call_sid: Call)
            update = staticmethod(lambda *, twiml: order.append(twiml))

        await names_of("def transfer")["transfer"](Call, Call, "CA1", "+15005550006")
        assert order == ["handed off", "<Response><Dial>+15005550006</Dial></Response>"]

    @pytest.mark.parametrize(("breaks", "is_ended"), [(True, False), (False, True)])
    async def test_a_call_whose_socket_broke_goes_on(self, breaks, is_ended, monkeypatch) -> None:
        requests, handlers = [], []

        async def request(_: object) -> None:
            requests.append("hang up")

        class Call:
            event_handler = staticmethod(lambda _: handlers.append)
            cancel = staticmethod(lambda: serializer.serialize(CancelFrame()))

        monkeypatch.setattr(TwilioFrameSerializer, "_hang_up_call", request)
        serializer = TwilioFrameSerializer("MZ1", "CA1", "AC1", "token")
        serializer.socket_closed(1006 if breaks else 1012)
        names_of("def let_the_call_go_on")["let_the_call_go_on"](Call, Call, serializer)
        await asyncio.wait_for(handlers[0](), 5)
        assert bool(requests) is is_ended

    async def test_a_server_that_stops_ends_its_calls(self, monkeypatch, log) -> None:
        requests = []

        async def request(serializer: TwilioFrameSerializer) -> None:
            await asyncio.sleep(0.2)  # uvicorn waits for it
            requests.append(serializer._call_sid)

        monkeypatch.setattr(TwilioFrameSerializer, "_hang_up_call", request)
        monkeypatch.setenv("TWILIO_ACCOUNT_SID", ACCOUNT_SID)
        monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token")
        async with aiohttp.ClientSession() as session:
            async with serve(fastapi_bot.app) as port:
                socket = await session.ws_connect(f"http://127.0.0.1:{port}/stream")
                for event in ("connected", "start"):
                    await socket.send_json(documented(event))
                for at_ms in range(0, 200, 20):
                    await socket.send_str(media(bytes(160), at_ms))
                await socket.receive(20)  # the echo
            while (message := await socket.receive(5)).type != aiohttp.WSMsgType.CLOSE:
                pass
            assert message.data == 1012
        assert requests == [CALL_SID]
        assert any("ended_by server stopped" in line for line in log)

    def test_the_twiml_opens_a_stream_and_then_asks_the_webhook_again(self) -> None:
        (twiml,) = snippets("xml")
        assert read_twiml(twiml, "https://x")[0] == "wss://bot.example.com/stream"
        assert re.findall(r"<(\w+)", twiml)[-1] == "Redirect"


class TestReference:
    def test_every_parameter_has_a_row_with_its_default(self) -> None:
        for name, field in TwilioFrameSerializer.InputParams.model_fields.items():
            default = re.escape(str(field.default))
            assert re.search(rf"^\| `{name}` \|.*\| {default} \|$", REFERENCE, re.MULTILINE), name

    @pytest.mark.parametrize("of", [TwilioFrameSerializer, TwilioTransport, install])
    def test_signatures_are_written_as_they_are(self, of: Any) -> None:
        plain = [p.replace(annotation=p.empty) for p in inspect.signature(of).parameters.values()]
        text = f"`{of.__name__}{inspect.Signature(plain)}`"
        assert text in REFERENCE.replace("\n", " ")

    @pytest.mark.parametrize("name", CallReport.__dataclass_fields__)
    def test_every_figure_of_the_call_report_is_explained(self, name: str) -> None:
        assert re.search(rf"^\| .*`{name}`.* \| .+ \|$", REFERENCE, re.MULTILINE)


class TestPages:
    def test_the_readme_is_short(self) -> None:
        assert len(README.split()) <= 1600

    @pytest.mark.parametrize(
        ("page", "link"),
        [(page, link) for page in PAGES for link in re.findall(r"\]\(([^):]+)\)", PAGES[page])],
    )
    def test_a_link_leads_somewhere(self, page: str, link: str) -> None:
        file, _, section = link.partition("#")
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.exists()
        titles = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if section else []
        anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
        assert not section or section in anchors

    @pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
    def test_every_row_of_figures_was_measured_in_one_place(self, page: str) -> None:
        rows = 0
        for section in re.split(r"^## ", PAGES[page], flags=re.MULTILINE):
            files = re.findall(r"benchmarks/results/\w+\.md", section)
            texts = [(ROOT / file).read_text() for file in files]
            places = [p for text in texts for p in text.split("\n## " if "\n## " in text else "\n")]
            for row in re.findall(r"^\|.*\|$", section, re.MULTILINE):
                figures = set(re.findall(r"(?<=\| )[\d.]+(?= \|)", row))
                rows += bool(figures)
                assert not figures or any(
                    figures <= set(re.findall(r"[\d.]+", p)) for p in places
                ), row
        assert rows > 5

    def test_every_file_of_the_package_has_its_one_job(self) -> None:
        table = PAGES["CONTRIBUTING.md"].split("\n## ")[1]
        files = {path.name for path in (ROOT / "pipecat_twilio").rglob("*.*")}
        kept = {name for name in files if re.search(r"(?<!__init__)\.(py|pyx|pxd|h)$", name)}
        assert kept == set(re.findall(r"`(\w+\.\w+)`", table)) - {"test_package.py"}

    def test_the_same_releases_of_pipecat_are_named_everywhere(self) -> None:
        assert "Tested with Pipecat v1.14.0; 1.13 is the oldest" in README
        assert "\nTested with pipecat-ai 1.14.0 and 1.13.0." in PAGES["CHANGELOG.md"]
        assert '"pipecat-ai>=1.13,<2"' in (ROOT / "pyproject.toml").read_text()
