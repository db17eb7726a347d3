"""The README: snippets that run, commands that are used, tables that are complete."""

import re
from pathlib import Path

import pytest

from pipecat_twilio import TwilioFrameSerializer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("snippet", snippets("python"))
def test_a_snippet_runs(snippet: str) -> None:
    from pipecat_twilio import uninstall

    try:
        exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    finally:
        uninstall()


async def test_the_mark_snippet_tells_what_was_heard() -> None:
    from pipecat.frames.frames import OutputTransportMessageFrame, TTSStoppedFrame
    from pipecat.tests.utils import run_test

    from pipecat_twilio import MarkFrame, messages

    namespace: dict = {"__name__": "readme"}
    (snippet,) = [text for text in snippets("python") if "class Heard" in text]
    exec(snippet, namespace)
    marks = [MarkFrame("other"), MarkFrame("answer"), MarkFrame("answer", cleared=True)]
    down, _ = await run_test(namespace["Heard"]("MZ1"), frames_to_send=[TTSStoppedFrame()])
    types = [type(frame) for frame in down]
    assert types.index(OutputTransportMessageFrame) > types.index(TTSStoppedFrame)
    (mark,) = [frame for frame in down if isinstance(frame, OutputTransportMessageFrame)]
    assert mark.message == messages.mark("MZ1", "answer")
    heard = namespace["Heard"]("MZ1")
    await run_test(heard, frames_to_send=marks)
    assert heard.heard == [True, False]


async def test_the_transfer_snippet_hands_off_before_it_moves_the_call() -> None:
    order: list[str] = []

    class Serializer:
        def hand_off(self) -> None:
            order.append("handed off")

    class Calls:
        def __call__(self, call_sid: str) -> "Calls":
            assert call_sid == "CA1"
            return self

        def update(self, *, twiml: str) -> None:
            assert twiml == "<Response><Dial>+15005550006</Dial></Response>"
            order.append("moved")

    namespace: dict = {"__name__": "readme"}
    (snippet,) = [text for text in snippets("python") if "def transfer" in text]
    exec(snippet, namespace)
    client = type("Client", (), {"calls": Calls()})()
    await namespace["transfer"](Serializer(), client, "CA1", "+15005550006")
    assert order == ["handed off", "moved"]


def test_the_second_command_is_what_continuous_integration_runs() -> None:
    demo, tests, phone = (command.strip() for command in snippets("sh"))
    assert demo == f"{tests} -e demo"
    assert phone == f"{tests} -e phone"
    assert tests in (ROOT / ".ci" / "run").read_text()


def test_the_swap_names_what_is_there() -> None:
    (swap,) = snippets("diff")
    for line in swap.splitlines():
        exec(line[1:])


def test_every_parameter_is_in_the_tables_with_its_default() -> None:
    for name, field in TwilioFrameSerializer.InputParams.model_fields.items():
        assert re.search(
            rf"^\| `{name}` \|.*\| {re.escape(str(field.default))} \|$", README, re.MULTILINE
        )
    signature = TwilioFrameSerializer.__init__.__annotations__
    for name in signature.keys() - {"return", "params"}:
        assert f"`{name}`" in README


@pytest.mark.parametrize("link", re.findall(r"\]\(([^):]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    file, _, section = link.partition("#")
    assert (ROOT / file).exists()
    sections = {
        title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)", README, re.MULTILINE)
    }
    assert not section or section in sections


def test_the_changelog_names_every_release_of_pipecat_that_is_tested() -> None:
    tested = re.search(r"^Tested with pipecat-ai (.*) on CPython", README, re.MULTILINE)
    assert tested
    assert f"Tested with pipecat-ai {tested[1]}." in (ROOT / "CHANGELOG.md").read_text()
