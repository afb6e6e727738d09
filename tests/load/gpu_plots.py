"""Draws `report-gpu.json`: measured points only, and a plot only where there is something to draw.

python -m tests.load.gpu_plots tests/load/results/h200-2026-11-28.json --only bare    # draws a kept report again
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.load.gpu_rows import is_measured

Row = Mapping[str, Any]
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0.0,
}


def write_plots(document: Mapping[str, Any], beside: Path, only: str = "") -> list[str]:
    """Writes PNGs next to `beside`, named after it; returns their names. `only`: how the names of plots must begin."""
    rows = [row for row in document["rows"].values() if is_measured(row)]
    note = "" if document["kind"] == "gpu" else " (self-check on a CPU)"
    names = []
    for name, draw in _plots(rows, note):
        if not name.startswith(only):
            continue
        file = beside.with_name(f"{beside.stem}-{name}.png")
        with matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=(8.4, 4.4), layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure)
            figure.savefig(file, dpi=110, metadata={"Software": "saccade"})
        names.append(file.name)
    return names


def _plots(rows: list[Row], note: str) -> Iterator[tuple[str, Callable[[Figure], None]]]:
    for network in dict.fromkeys(str(row["network"]) for row in rows if row["stage"] == "bare"):
        found = [row for row in rows if row["stage"] == "bare" and row["network"] == network]
        yield f"bare-{network}", lambda figure, network=network, found=found: _draw_bare(figure, network + note, found)  # type: ignore[misc]  # default argument
    paired = [row for row in rows if row["stage"] in ("paired", "graphs")]
    if paired:
        yield "paired", lambda figure: _draw_paired(figure, note, paired)
    served = [row for row in rows if row["stage"] == "served"]
    if served:
        yield "served", lambda figure: _draw_served(figure, note, served)


def _draw_bare(figure: Figure, title: str, rows: list[Row]) -> None:
    left, right = figure.subplots(1, 2)
    sizes = sorted({int(row["batch"]) for row in rows})
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(f"{row['variant']} {row['runtime']}", []).append(row)
    for index, (name, found) in enumerate(series.items()):
        ordered = sorted(found, key=lambda row: int(row["batch"]))
        places = [sizes.index(int(row["batch"])) for row in ordered]
        style = {"marker": "o", "linestyle": "--" if "backend" in name else "-", "color": f"C{index % 10}"}
        left.plot(places, [row["images_per_s"] for row in ordered], label=name, **style)
        right.plot(places, [row["p50_ms"] for row in ordered], **style)
    for axes in (left, right):
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    left.set(xlabel="batch size", ylabel="images per second", ylim=(0, None))
    right.set(xlabel="batch size", ylabel="ms per batch, p50", ylim=(0, None))
    figure.suptitle(title)
    figure.legend(loc="outside lower center", ncols=3, fontsize="x-small")


def _draw_paired(figure: Figure, note: str, rows: list[Row]) -> None:
    axes = figure.add_subplot()
    names = [f"{row['network']} · {_pair(row)} · batch {row['batch']}" for row in rows]
    for place, row in enumerate(rows):
        below, above = max(row["ratio"] - row["ci_low"], 0.0), max(row["ci_high"] - row["ratio"], 0.0)
        axes.errorbar(row["ratio"], place, xerr=[[below], [above]], fmt="o", capsize=3, color="tab:blue")
    axes.axvline(1.0, color="tab:grey", linestyle=":")
    axes.set_yticks(range(len(names)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.set(xlabel=f"times as fast, 95 % interval{note}")


def _pair(row: Row) -> str:
    return (
        f"{row['variant']} graphs on against off, {row['runtime']}" if row["stage"] == "graphs" else str(row["variant"])
    )


def _draw_served(figure: Figure, note: str, rows: list[Row]) -> None:
    axes = figure.add_subplot()
    fields = (("per_second", "served"), ("decode_limit", "decode limit"), ("bare_limit", "bare limit"))
    for index, (field, label) in enumerate(fields):
        places = [place + (index - 1) * 0.27 for place, row in enumerate(rows) if row.get(field)]
        axes.bar(places, [row[field] for row in rows if row.get(field)], 0.25, label=label)
    names = [f"{row['network']}\n{row['variant']} {row['runtime']}\np99 ≤ {row['objective_ms']:g} ms" for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize="x-small")
    axes.set(ylabel="images per second", title=f"served against its limits{note}")
    axes.legend()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws a report of gpu_bench again.")
    parser.add_argument("report", type=Path, help="report-gpu.json, or one that was kept")
    parser.add_argument("--only", default="", help="plots whose names begin so: bare, paired, served")
    given = parser.parse_args()
    print(*write_plots(json.loads(given.report.read_text("utf-8")), given.report, given.only), sep="\n")
