"""The matrix as Markdown. Promises: one row per entry, also without a result; totals counted from the rows shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from saccade.models.contract.specs import Task
from tests.matrix.entries import Entry
from tests.matrix.rows import Plan, Row

TABLE_NAME = "RESULTS.md"
PARITY_LIMIT = 1e-4  # relative L2 of raw outputs, at every batch size
_HEADER = (
    "network",
    "family",
    "task",
    "input",
    "million parameters",
    "export s",
    "opset",
    "parity at batch 1 / 3 / 8",
    "int8-cpu",
    "TensorRT plans, MB (s)",
    "served = exported",
    "notes",
)
_INTRODUCTION = """# The matrix

Made by `make matrix`. Weights are random, from a seed, with real spread (`tests/matrix/weights.py`): nothing
here says how good a network is, everything says whether it comes through. Every row is the whole product: recipe,
pipeline, gate, published version, server.

- **parity**: relative L2 of the ONNX file's raw outputs against the eager network's, worst output; the limit is 1e-4.
- **int8-cpu**: size of the quantized file.
- **plans**: built from the fp32 graph with TensorRT for RTX, strongly typed, dynamic batch 1 to 8, without a GPU.
  Where an operator stops it, the fallback that serves the network is named.
- **as the trained file** (notes): the published file beside the package's file, same pixels; at least 99.9 % of pixels,
  or of boxes every one, and scores within 1e-3.
- **served**: JPEG over HTTP against the published file in ONNX Runtime with the same pixels; numbers within 1e-4.
"""

Claim = Callable[[Row], bool]


def markdown(entries: Sequence[Entry], rows: Mapping[str, Row]) -> str:
    """The whole document."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    lines += [_line(_cells(entry, rows.get(entry.id))) for entry in entries]
    return "\n".join([_INTRODUCTION, *totals(entries, rows), "", *lines, ""])


def totals(entries: Sequence[Entry], rows: Mapping[str, Row]) -> list[str]:
    """One line per claim, over all entries."""
    shown = [rows[entry.id] for entry in entries if entry.id in rows]
    claims: dict[str, Claim] = {
        "exported": lambda row: row.is_exported,
        "parity within the limit at every batch size": has_parity,
        "int8-cpu built": lambda row: row.int8 is not None and row.int8.is_built,
        "TensorRT plan built": lambda row: bool(row.plans),
        "served, answers equal": lambda row: row.served is not None and row.served.is_equal,
    }
    counted = [f"- {name}: **{sum(map(claim, shown))}** of {len(entries)}" for name, claim in claims.items()]
    minutes = sum(row.processor_seconds for row in shown) / 60
    return [*counted, f"- processor time of all rows: {minutes:.0f} minutes"]


def has_parity(row: Row) -> bool:
    worst = row.worst_parity
    return worst is not None and worst <= PARITY_LIMIT


def _cells(entry: Entry, row: Row | None) -> tuple[str, ...]:
    if row is None:
        return (f"`{entry.id}`", entry.family, entry.task.value, *[""] * (len(_HEADER) - 4), "not run yet")
    return (
        f"`{row.id}`",
        row.family,
        row.task.value,
        _size(row.size),
        "" if row.parameters is None else f"{row.parameters / 1e6:.2f}",
        "" if row.export_seconds is None else f"{row.export_seconds:.1f}",
        "" if row.opset is None else str(row.opset),
        " / ".join(f"{figure.relative_l2:.1e}" for figure in row.parity),
        _int8(row),
        _plans(row.plans),
        _served(row),
        _notes(row),
    )


def _size(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[0]}×{size[1]}"


def _int8(row: Row) -> str:
    if row.int8 is None:
        return ""
    return f"{row.int8.megabytes:.1f} MB" if row.int8.is_built else "no"


def _plans(plans: Sequence[Plan]) -> str:
    return ", ".join(f"{plan.capability} {plan.megabytes:.1f} ({plan.seconds:.1f})" for plan in plans)


def _served(row: Row) -> str:
    if row.served is None:
        return ""
    if not row.served.is_equal:
        return "no"
    return f"yes ({row.served.largest_difference or 0.0:.0e} over {row.served.items} values)"


def _own(row: Row) -> str:
    if row.own is None:
        return ""
    if row.task is Task.SEGMENT:
        return f"as the trained file: {row.own.least_equal:.4%} of pixels at least, over {row.own.images} pictures"
    if row.task is Task.DETECT:
        return (
            f"as the trained file: every box, scores within {row.own.largest_difference:.0e}, {row.own.images} pictures"
        )
    return f"as the trained file: scores within {row.own.largest_difference:.0e}, over {row.own.images} pictures"


def _notes(row: Row) -> str:
    notes = [
        f"**fails** in {row.failure}" if row.failure else "",
        f"int8: {row.int8.note}" if row.int8 is not None and row.int8.note else "",
        f"no plan: {row.plan_problem}" + (f"; served by {row.fallback}" if row.fallback else "")
        if row.plan_problem
        else "",
        f"plan at {_size(row.plan_size)}" if row.plan_size is not None else "",
        f"must not batch: {row.not_batchable_reason}" if row.not_batchable_reason else "",
        f"gate: {row.denied}" if row.denied else "",
        _own(row),
    ]
    return "; ".join(note for note in notes if note)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"
