"""Prints, below pytest-benchmark's own table, each group as ratios to this package."""

from collections import defaultdict
from typing import Any

OURS = "ours"


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Prints for each group the median time of a call, and how many times ours it is."""
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    for bench in config._benchmarksession.benchmarks:
        if not bench.has_error:
            groups[bench.group or bench.name][bench.param or bench.name] = bench
    if not groups:
        return
    terminalreporter.section("median time of a call, and as a multiple of ours")
    for group in sorted(groups):
        rows = groups[group]
        times = {name: seconds_per_call(bench) for name, bench in rows.items()}
        terminalreporter.write_line(group)
        for name in sorted(times, key=lambda name: times[name]):
            ratio = f"{times[name] / times[OURS]:7.1f} x" if OURS in times else " " * 9
            extra = {k: v for k, v in rows[name].extra_info.items() if k != "calls"}
            shown = ", ".join(f"{key} {value}" for key, value in extra.items())
            terminalreporter.write_line(f"  {name:24}{times[name] * 1e6:12.3f} us{ratio}  {shown}")


def seconds_per_call(bench: Any) -> float:
    """Returns the median time of one call where a round is many of them."""
    return float(bench.stats.median) / bench.extra_info.get("calls", 1)
