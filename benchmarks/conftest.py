"""Prints each group of benchmarks as ratios to this package; `--results` writes them to a file."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from measuring import machine

OURS = "ours"


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--results", type=Path, help="folder for speed.md")


def table(rows: dict[str, Any]) -> str:
    """Returns a group as a Markdown table, the fastest first; a round may be many calls."""
    times = {who: b.stats.median / b.extra_info.get("calls", 1) for who, b in rows.items()}
    extra = [key for key in rows[OURS].extra_info if key != "calls"]
    lines = ["| | time, us | to ours |" + "".join(f" {key} |" for key in extra)]
    lines.append("|---|---:|---:|" + "---:|" * len(extra))
    for who in sorted(times, key=times.__getitem__):
        cells = [who, f"{times[who] * 1e6:.3g}", f"{times[who] / times[OURS]:.2f} x"]
        cells += [str(rows[who].extra_info.get(key, "")) for key in extra]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Prints the tables below pytest-benchmark's own, and writes them."""
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    for bench in config._benchmarksession.benchmarks:
        if not bench.has_error:
            groups[bench.group][bench.param] = bench
    parts = [f"## {name}\n\n{table(rows)}" for name, rows in sorted(groups.items()) if OURS in rows]
    head = f"Median times of a call on {machine()}; written by `tox -e results`."
    terminalreporter.section("median time of a call, and as a multiple of ours")
    terminalreporter.write_line("\n\n".join([head, *parts]))
    if parts and (folder := config.getoption("results")):
        (folder / "speed.md").write_text("\n\n".join(["# Speed", head, *parts]) + "\n")
