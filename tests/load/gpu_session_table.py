"""The table that `gpu_session.sh` prints last. Promises: short; it says of every part what it found or why it did not.

python -m tests.load.gpu_session_table OUTDIR
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.load.gpu_report import lost_lines
from tests.load.gpu_rows import is_measured

Row = Mapping[str, Any]
REPORT = "report-gpu.json"
_LOG_CHARACTERS = 160
_FAILED_TESTS = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a session, as the script wrote it down."""

    name: str
    seconds: int
    limit_s: int
    outcome: str
    what: str


def parts_from(text: str) -> list[Part]:
    """The lines of parts.tsv."""
    found = []
    for line in text.splitlines():
        name, seconds, limit_s, outcome, what = line.split("\t")
        found.append(Part(name, int(seconds), int(limit_s), outcome, what))
    return found


def session_table(parts: Sequence[Part], document: Mapping[str, Any], logs: Mapping[str, Sequence[str]]) -> str:
    """`logs`: the lines of each part's log that are not empty, by its name."""
    failed_tests = [line for line in logs.get("tests", ()) if line.startswith(("FAILED", "ERROR"))][:_FAILED_TESTS]
    lines = [_machine(document), "", "| part | seconds | limit | outcome | last line of its log |", "|" + "---|" * 5]
    for part in parts:
        last = "".join(logs.get(part.name, ())[-1:])[:_LOG_CHARACTERS].replace("|", "/")
        lines.append(f"| {part.name}: {part.what} | {part.seconds} | {part.limit_s} | {part.outcome} | {last} |")
    rows = list(document.get("rows", {}).values())
    lines += ["", *failed_tests] if failed_tests else []
    figures = [line for row in rows if is_measured(row) for line in _figures(row)]
    lines += [
        "",
        *(figures or ["No figure was measured."]),
        "",
        *lost_lines([row for row in rows if not is_measured(row)]),
    ]
    return "\n".join(lines).rstrip()


def _machine(document: Mapping[str, Any]) -> str:
    if not document.get("calls"):
        return "The benchmark wrote no report."
    call = document["calls"][-1]
    versions = ", ".join(f"{name} {value}" for name, value in call["versions"].items())
    return (
        f"Device: {call['device']} ({call['capability']}), {call['cores']} cores; commit {call['commit']}; {versions}"
    )


def _figures(row: Row) -> list[str]:
    """The few figures of a row that a reader wants first."""
    place = " ".join(str(row[name]) for name in ("stage", "network", "variant", "runtime", "batch") if row[name])
    if row["stage"] == "served":
        head = f"{place}: first request {row['first_ms']} ms, tenth {row['tenth_ms']} ms"
        by = f"  JPEGs by {row['jpegs_by']}; {row['why']}".rstrip("; ")
        return [head, by, *(f"  {_load(trial)}" for trial in row["trials"])]
    if row["stage"] == "graphs":
        return [f"{place}: graphs make it {row['ratio']:.2f} times as fast [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"]
    latency = f", p50 {row['p50_ms']} ms" if "p50_ms" in row else ""
    pixels = f", {row['worst_share']:.4%} of pixels of {row['worst_image']}" if "worst_share" in row else ""
    return [f"{place}: {row['images_per_s']:.0f} images/s{latency}{pixels}"]


def _load(trial: Mapping[str, Any]) -> str:
    figures = f"{trial['per_second']:.0f}/s, p50 {trial['p50_ms']:.1f} ms, p99 {trial['p99_ms']:.1f} ms"
    return f"{trial['connections']} connections: {figures}, {trial['not_200']} not 200"


def _lines(log: Path) -> list[str]:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    return [line.strip() for line in lines if line.strip()]


def main(directory: Path) -> None:
    """Prints the table of a session that wrote below `directory`."""
    parts = parts_from((directory / "parts.tsv").read_text())
    report = directory / REPORT
    document = orjson.loads(report.read_bytes()) if report.exists() else {}
    print(session_table(parts, document, {part.name: _lines(directory / f"{part.name}.log") for part in parts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
