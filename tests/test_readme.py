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

    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    uninstall()


async def test_the_mark_snippet_hears_its_mark() -> None:
    from pipecat.frames.frames import InputTransportMessageFrame, OutputTransportMessageFrame
    from pipecat.tests.utils import run_test

    namespace: dict = {"__name__": "readme"}
    (snippet,) = [text for text in snippets("python") if "class Heard" in text]
    exec(snippet, namespace)
    heard = namespace["Heard"]("MZ1")
    mark = {"event": "mark", "streamSid": "MZ1", "mark": {"name": "promise"}}
    other = {**mark, "mark": {"name": "other"}}
    await run_test(heard, frames_to_send=[InputTransportMessageFrame(other)])
    assert not heard.heard
    heard = namespace["Heard"]("MZ1")
    await run_test(heard, frames_to_send=[InputTransportMessageFrame(mark)])
    assert heard.heard
    assert heard._mark == OutputTransportMessageFrame(mark).message


def test_its_second_command_is_what_continuous_integration_runs() -> None:
    demo, tests = (command.strip() for command in snippets("sh"))
    assert demo == f"{tests} -e demo"
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


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
