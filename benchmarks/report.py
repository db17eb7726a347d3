"""Writes what `pytest benchmarks --benchmark-json FILE` measured as tables and pictures.

    python benchmarks/report.py FILE FOLDER

speed.md has every group as a table, response.png what each resampler lets through from 24 to
8 kHz, tradeoff.png how fast it is against how long it holds audio back.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from peers import PEERS, level_db

mpl.use("Agg")
from matplotlib import pyplot as plt

PICTURED = (24000, 8000)
GROUP = "resample 20 ms, 24 to 8 kHz"
OURS, OTHERS = "#d62728", ["#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"]

BELOW = ("scipy upfirdn", "fast-audio-resampler")  # whose names would cover others

Rows = dict[str, dict[str, Any]]


def groups_of(measured: dict[str, Any]) -> dict[str, Rows]:
    """Returns the groups, each a dict of what was measured by who it was."""
    groups: dict[str, Rows] = defaultdict(dict)
    for bench in measured["benchmarks"]:
        extra = bench["extra_info"]
        secs = bench["stats"]["median"] / extra.pop("calls", 1)
        groups[bench["group"]][bench["param"]] = {"secs": secs, **extra}
    return groups


def table(rows: Rows) -> str:
    """Returns a group as a Markdown table, the fastest first."""
    extra = list(dict.fromkeys(key for row in rows.values() for key in row if key != "secs"))
    ours = rows.get("ours", {}).get("secs")
    lines = ["| | time | to ours |" + "".join(f" {key} |" for key in extra)]
    lines.append("|---|---:|---:|" + "---:|" * len(extra))
    for name, row in sorted(rows.items(), key=lambda item: item[1]["secs"]):
        ratio = f"{row['secs'] / ours:.1f} x" if ours else ""
        cells = "".join(f" {row.get(key, '')} |" for key in extra)
        lines.append(f"| {name} | {row['secs'] * 1e6:.3g} us | {ratio} |{cells}")
    return "\n".join(lines)


def write_tables(groups: dict[str, Rows], machine: dict[str, Any], path: Path) -> None:
    """Writes all groups into one file."""
    cpu = machine["cpu"].get("brand_raw", machine["machine"])
    parts = [
        "# Speed",
        f"Median times on {cpu}, Python {machine['python_version']}; written by `tox -e results`.",
        *(f"## {name}\n\n{table(groups[name])}" for name in sorted(groups)),
    ]
    path.write_text("\n\n".join(parts) + "\n")


def draw_response(path: Path) -> None:
    """Draws the level that leaves each resampler by the frequency that entered it."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    # Dense around the edge; no multiple of 8 kHz, which would come out as a mere offset.
    frequencies = np.r_[100:3000:200, 3000:5200:60, 5237:12000:170]
    for i, (name, make) in enumerate(PEERS.items()):
        levels = [max(level_db(make, *PICTURED, f, None), -110) for f in frequencies]
        style = (
            {"color": OURS, "lw": 2.5}
            if name == "ours"
            else {"color": OTHERS[i % len(OTHERS)], "lw": 1, "ls": ("-", "--")[i // len(OTHERS)]}
        )
        axes.plot(frequencies, levels, label=name, **style)
    axes.axvspan(300, 3400, color="#eeeeee", label="telephone band")
    axes.axvline(4000, color="black", lw=0.8, ls=":")
    axes.set(
        title="24 to 8 kHz: what gets through. Right of 4000 Hz it is an alias: noise in the call.",
        xlabel="frequency that came in, Hz",
        ylabel="level that goes out, dB",
        xlim=(0, 12000),
        ylim=(-110, 8),
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(ncols=2, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.94))
    figure.savefig(path, dpi=130)


def draw_tradeoff(rows: Rows, path: Path) -> None:
    """Draws the speed of each resampler against how long it holds audio back."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for name, row in rows.items():
        clean = row["rejection dB"] >= 80 and row["dB at 3400 Hz"] >= -0.2
        color = OURS if name == "ours" else "#1f77b4" if clean else "#888888"
        x, y = row["hold-back ms"], 0.02 / row["secs"]
        axes.scatter(x, y, s=110 if name == "ours" else 60, color=color, zorder=3)
        place = (7, -14) if name in BELOW else (7, 5)
        axes.annotate(name, (x, y), xytext=place, textcoords="offset points", color=color)
    axes.set(
        title="24 to 8 kHz in 20 ms chunks. Grey: dulls the telephone band or lets aliases in.",
        xlabel="audio is held back for up to, ms",
        ylabel="times faster than real time",
        xscale="symlog",
        yscale="log",
        xlim=(-0.2, 900),
        ylim=(100, 50_000),
    )
    axes.set_xticks([0, 1, 4, 10, 40, 150], ["0", "1", "4", "10", "40", "150"])
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=130)


def main(source: Path, folder: Path) -> None:
    """Writes all into a folder."""
    measured = json.loads(source.read_text())
    groups = groups_of(measured)
    folder.mkdir(exist_ok=True)
    write_tables(groups, measured["machine_info"], folder / "speed.md")
    draw_response(folder / "response.png")
    draw_tradeoff(groups[GROUP], folder / "tradeoff.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
