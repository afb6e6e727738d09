"""Tells report-peers.json in Markdown. Promises: pure; medians over rounds, and how many rounds carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.load.peers.plan import LIMIT

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Name:
    """How a server is called in the report."""

    server: str
    title: str
    base: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Rows of one place over all rounds."""

    rows: tuple[Row, ...]

    def median(self, field: str) -> float | None:
        values = [row[field] for row in self.rows if row.get(field) is not None]
        return float(median(values)) if values else None

    def most(self, field: str) -> float | None:
        values = [row[field] for row in self.rows if row.get(field) is not None]
        return float(max(values)) if values else None

    def texts(self, field: str) -> str:
        """All that the rounds say, each once."""
        return " / ".join(dict.fromkeys(str(row[field]) for row in self.rows if row.get(field))) or "-"

    def total(self, field: str) -> int:
        return sum(row[field] for row in self.rows)

    def errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.rows:
            for label, count in row["errors"].items():
                found[label] = found.get(label, 0) + count
        return found

    @property
    def grew(self) -> int:
        """Rounds in which memory grew."""
        return sum(bool(row["memory_grew"]) for row in self.rows)


def cell_of(document: Row, subject: str, server: str, factor: float = 0.0) -> Cell:
    wanted = (subject, server, factor)
    rows = sorted(document["rows"].values(), key=lambda row: row["round"])
    return Cell(
        tuple(row for row in rows if (row["subject"], row["server"], row["factor"]) == wanted and "failed" not in row)
    )


def ratio_of(first: Cell, second: Cell) -> float | None:
    """Median over the rounds that both have of the first's throughput over the second's."""
    others = {row["round"]: row["per_second"] for row in second.rows if row["per_second"]}
    ratios = [row["per_second"] / others[row["round"]] for row in first.rows if row["round"] in others]
    return float(median(ratios)) if ratios else None


def markdown(document: Row, names: Sequence[Name], subjects: Sequence[str], first: Sequence[str] = ()) -> str:
    """The whole report; `first` comes before the single tables."""
    parts = [_head(document), *first]
    for subject in subjects:
        parts.append(f"## {subject}")
        parts.append(_capacities(document, subject, names))
        parts.extend(_overloads(document, subject, names))
    parts.append(_failures(document))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(document: Row) -> str:
    settings, calls = document["settings"], document["calls"]
    one = settings["processes"] == 1
    processes = "one process" if one else f"{settings['processes']} processes, the cores divided,"
    decoder = "saccade's decoder and resize in every server" if settings["decode"] == "saccade" else "Pillow in peers"
    lines = [
        "# saccade beside its peers",
        "",
        f"{settings['cores']} cores, shared with the client; JPEG in, top-5 JSON out; the same ONNX file, "
        f"which saccade runs in the runtime that it measures to be faster; the limit is that of the faster one; "
        f"{decoder}; {processes} for the network in each peer. "
        f"Closed loop with {settings['connections']} connections, {settings['seconds']:g} s; then Poisson arrivals at "
        f"multiples of each server's own capacity. Goodput: right within {settings['objective_ms']:g} ms of the moment "
        "a request was meant to be sent. Medians over rounds; every row of the JSON names the call that it comes from.",
        "",
        "| call | commit | machine | command |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {index} | {call['commit']} | {call['machine']} | `{call['command']}` |" for index, call in enumerate(calls)
    ]
    digests = ", ".join(f"{name} {digest[:12]}" for name, digest in settings["files"].items())
    versions = ", ".join(f"{name} {version}" for name, version in calls[-1]["versions"].items())
    return "\n".join([*lines, "", f"Networks: {digests}. Versions: {versions}."])


_CAPACITY_TITLES = (
    "server",
    "requests/s",
    "saccade / this",
    "this / limit",
    "p50 ms",
    "p99 ms",
    "cold start s",
    "memory MiB (peak)",
    "CPU cores",
    "rounds",
    "what runs",
)


def _capacities(document: Row, subject: str, names: Sequence[Name]) -> str:
    lines = [line(_CAPACITY_TITLES), "|" + "---|" * len(_CAPACITY_TITLES)]
    ours, limit = cell_of(document, subject, "saccade"), cell_of(document, subject, LIMIT)
    if limit.rows:
        shown = ["no server: decode, resize, run", number(limit.median("per_second")), _ratio(ratio_of(ours, limit))]
        lines.append(line([*shown, *["-"] * 6, str(len(limit.rows)), limit.texts("served")]))
    for name in names:
        cell = cell_of(document, subject, name.server)
        if not cell.rows:
            continue
        lines.append(
            line(
                [
                    name.title,
                    number(cell.median("per_second")),
                    _ratio(ratio_of(ours, cell)),
                    _ratio(ratio_of(cell, limit)),
                    number(cell.median("p50_ms")),
                    number(cell.median("p99_ms")),
                    number(cell.median("cold_start_s"), 1),
                    f"{number(cell.median('rss_end_mib'), 0)} ({number(cell.median('rss_peak_mib'), 0)})",
                    number(cell.median("cpu_cores"), 2),
                    str(len(cell.rows)),
                    cell.texts("served"),
                ]
            )
        )
    return "\n".join(lines)


_OVERLOAD_TITLES = (
    "server",
    "offered/s",
    "goodput/s",
    "share of capacity",
    "p99 ms of accepted",
    "refused",
    "refusal p99 / max ms",
    "errors",
    "memory MiB, start to end (peak)",
    "rounds",
)


def _overloads(document: Row, subject: str, names: Sequence[Name]) -> list[str]:
    tables = []
    for factor in document["settings"]["factors"]:
        lines = [f"### {subject} at {factor:g} times its own capacity", "", line(_OVERLOAD_TITLES)]
        lines.append("|" + "---|" * len(_OVERLOAD_TITLES))
        found = [(name, cell_of(document, subject, name.server, factor)) for name in names]
        lines += [line(_overload(name, cell, factor)) for name, cell in found if cell.rows]
        if any(cell.rows for _, cell in found):
            tables.append("\n".join(lines))
    return tables


def _overload(name: Name, cell: Cell, factor: float) -> list[str]:
    share = cell.median("goodput_share")
    requests = cell.total("requests")
    refusal = f"{number(cell.median('refused_p99_ms'))} / {number(cell.most('refused_max_ms'))}"
    return [
        name.title,
        number(cell.median("rate")),
        number(cell.median("goodput_per_second")),
        "-" if share is None else f"{share * factor:.2f}",
        number(cell.median("p99_ms")),
        f"{cell.total('refused') / requests:.1%}" if requests else "-",
        refusal,
        ", ".join(f"{label} {count / requests:.1%}" for label, count in cell.errors().items()) or "none",
        _memory(cell),
        str(len(cell.rows)),
    ]


def _memory(cell: Cell) -> str:
    start, end, peak = (cell.median(f"rss_{which}_mib") for which in ("start", "end", "peak"))
    text = f"{number(start, 0)} to {number(end, 0)} ({number(peak, 0)})"
    return f"{text}, grew in {cell.grew} of {len(cell.rows)}" if cell.grew else f"{text}, flat"


def _failures(document: Row) -> str:
    rows = document["rows"].values()
    lines = [
        f"- {row['subject']}, {row['server']}, round {row['round']}, factor {row['factor']:g}: "
        f"{(str(row['failed']).splitlines() or ['no reason'])[0]}"
        for row in rows
        if "failed" in row
    ]
    parts = ["## Not measured", "\n".join(lines)] if lines else []
    saturated = sum(bool(row.get("client_is_saturated")) for row in rows)
    if saturated:
        parts.append(f"In {saturated} of {len(rows)} rows the client itself was too busy to be on time.")
    return "\n\n".join(parts)


def line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def number(value: float | None, digits: int | None = None) -> str:
    """A figure with `digits`, or as many as its size deserves."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if digits is not None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
