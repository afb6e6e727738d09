"""`python -m tests.matrix.ultralytics --setup`, then `--run`. Promises: resumable, finished rows are on disk."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.matrix.photographs import write_photographs
from tests.matrix.rows import replace_file
from tests.matrix.ultralytics.environment import copy_own_photographs, set_up
from tests.matrix.ultralytics.networks import ENTRIES, FORMS
from tests.matrix.ultralytics.rows import Row, read_rows, write_rows
from tests.matrix.ultralytics.runner import key_of, rows_of
from tests.matrix.ultralytics.scenes import write_scenes
from tests.matrix.ultralytics.table import TABLE_NAME, markdown, totals

WORK = Path(__file__).resolve().parents[3] / ".saccade" / "ultralytics"
RESULTS = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1: a chosen row disagrees or failed."""
    given = _parser().parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.setup:
        set_up(given.work)
        write_photographs(given.work / "photographs")
        copy_own_photographs(given.work, given.work / "photographs")
        write_scenes(given.work / "scenes")
    rows = read_rows(given.results)
    for entry in ENTRIES if given.run else ():
        forms = tuple(
            form
            for form in FORMS
            if fnmatch(f"{entry.id}/{form}", given.only)
            and (given.again or (entry.id, form) not in rows or rows[entry.id, form].key != key_of(entry, form))
        )
        for row in rows_of(entry, given.work, forms, is_published=not given.graph_only) if forms else ():
            rows[row.id, row.form] = row
            save(given.results, rows)
            print(_told(row), file=sys.stderr, flush=True)
    save(given.results, rows)
    print(totals(rows))
    return int(any(not row.agrees for row in rows.values() if fnmatch(f"{row.id}/{row.form}", given.only)))


def save(results: Path, rows: dict[tuple[str, str], Row]) -> None:
    listed = write_rows(results, list(rows.values()))
    replace_file(results / TABLE_NAME, markdown({(row.id, row.form): row for row in listed}).encode())


def _told(row: Row) -> str:
    figures = f"{row.same} of {row.theirs}, {row.surplus} surplus, {row.seconds:.0f} s"
    return f"{row.id:<30} {row.form:<8} {'agrees' if row.agrees else 'DIFFERS'}  {figures}  {row.failure}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix.ultralytics", description=__doc__)
    parser.add_argument("--setup", action="store_true", help="makes the library's environment and the pictures")
    parser.add_argument("--run", action="store_true", help="rows that do not hold any more")
    parser.add_argument("--only", default="*", help="NETWORK/FORM that matches, such as 'yolo26n*/static'")
    parser.add_argument("--graph-only", action="store_true", help="neither `run` nor a server; the rows say so")
    parser.add_argument("--again", action="store_true", help="also rows that still hold")
    parser.add_argument("--work", type=Path, default=WORK, help="environment, networks, pictures")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of ultralytics.json and ULTRALYTICS.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
