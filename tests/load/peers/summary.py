"""Tells report-peers.json as one table, a row per server. Promises: pure; medians over rounds."""

from __future__ import annotations

from collections.abc import Sequence

from tests.load.peers.plan import LIMIT
from tests.load.peers.table import Cell, Name, Row, cell_of, line, number, ratio_of


def summary(document: Row, names: Sequence[Name], subjects: Sequence[str]) -> str:
    """The table: for each network requests/s with the ratio to saccade's, and what was right in time at overload."""
    factors = document["settings"]["factors"]
    most = max(factors, default=0.0)
    titles = ["server"]
    for subject in subjects:
        titles.append(f"{subject}: requests/s (saccade / this)")
        if most:
            titles.append(f"at {most:g} times that: in time, p99 ms, refused within ms")
    rows = [["no server: decode, resize, run", *_cells(document, (LIMIT, ""), subjects, most)]]
    rows += [[each.title, *_cells(document, (each.server, best), subjects, most)] for each, best in with_best(names)]
    known = [row for row in rows if any(cell != "-" for cell in row[1:])]
    return "\n".join([line(titles), "|" + "---|" * len(titles), *(line(row) for row in known)])


def with_best(names: Sequence[Name]) -> list[tuple[Name, str]]:
    """Every server as it comes, and itself with what it has against overload, or as it comes where it has nothing."""
    tuned = {name.base: name.server for name in reversed(names) if name.base != name.server}
    return [(name, tuned.get(name.server, name.server)) for name in names if name.base == name.server]


def _cells(document: Row, servers: tuple[str, str], subjects: Sequence[str], most: float) -> list[str]:
    found = []
    for subject in subjects:
        ours, cell = cell_of(document, subject, "saccade"), cell_of(document, subject, servers[0])
        ratio = ratio_of(ours, cell)
        known = cell.rows and ratio is not None
        found.append(f"{number(cell.median('per_second'))} ({ratio:.2f})" if known else "-")
        if most:
            found.append(_overload(cell_of(document, subject, servers[1], most), most))
    return found


def _overload(cell: Cell, factor: float) -> str:
    share = cell.median("goodput_share")
    if share is None:
        return "-"
    return f"{share * factor:.2f}, {number(cell.median('p99_ms'))}, {number(cell.median('refused_p99_ms'))}"
