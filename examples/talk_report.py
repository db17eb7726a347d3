"""The results of calls to the talking bot, built three ways: the demo's second table."""

from collections.abc import Callable
from pathlib import Path

from call_recording import Recording
from caller import MAX_LATENESS_MS, TRIES, serve_in_thread
from conversation import BOTS, Conversation, built_as, converse
from talking_bot import create_app

SECS = 13.5  # that a call takes
HOLD_UP_SECS = 0.12
FIGURES = ("first sound", "lost", "silence inside a sentence")
# What this package promises with everything installed; the first is 10, and what a busy machine
# adds.
LIMITS_MS = (30, 20, 20)


async def demonstrate(
    folder: Path, show_progress: Callable[[str, float], None]
) -> dict[str, Conversation]:
    """Calls the talking bot three ways; asks three questions of each."""
    talks = {}
    for name in BOTS:
        show_progress(name, SECS)
        options = {"tts": "resampled", "held_up_from": 1, "stalls_from": 2}
        for _ in range(TRIES):
            app = create_app(HOLD_UP_SECS)
            with built_as(name) as serializer, serve_in_thread(app) as port:
                call = await converse(port, app, 3, serializer=serializer, **options)
            if call.log.lateness_ms() < MAX_LATENESS_MS:
                break
        talks[name] = call
        stem = name.lower().replace(" ", "-").replace("'", "")
        Recording.of(call.log).save(folder / f"talking-{stem}")
    return talks


def talk_figures(conversation: Conversation) -> tuple[float, float, float]:
    """Returns the first sound, what was lost, and the silence inside a sentence, in ms."""
    undisturbed, held_up, stalled = conversation.answers()
    lost = sum(answer.lost_ms + answer.cut_ms for answer in (undisturbed, held_up, stalled))
    return 1000 * undisturbed.first_at, lost, held_up.silence_ms


def print_table(talks: dict[str, Conversation]) -> None:
    """Prints a line for each way in which the talking bot was built."""
    print(f"\n{'talking bot':24}" + "".join(f"{name:>{len(name) + 4}}" for name in FIGURES))
    for name, conversation in talks.items():
        cells = (
            f"{f:.0f} ms".rjust(len(c) + 4)
            for f, c in zip(talk_figures(conversation), FIGURES, strict=True)
        )
        print(f"{name:24}" + "".join(cells))
    print(
        "First sound: after TTS's first byte. Lost: of three answers, cut off at the end or in\n"
        "mid-word where TTS stalls for 0.3 s. Silence: while the event loop is held up for\n"
        f"{1000 * HOLD_UP_SECS:.0f} ms, twice a second."
    )


def broken_promises(talks: dict[str, Conversation]) -> list[str]:
    """Returns the promises that the bot with everything installed did not keep."""
    name = BOTS[-1]
    return [
        f"{name}: {what} {figure:.0f} ms, more than {limit}"
        for what, figure, limit in zip(FIGURES, talk_figures(talks[name]), LIMITS_MS, strict=True)
        if not figure <= limit
    ]
