"""`python -m tests.matrix`: every network of the matrix through the product. Promises: resumable, one table."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.matrix.entries import ENTRIES, Entry
from tests.matrix.rows import Row, read_rows
from tests.matrix.runner import Budget, outdated, run_entries, save
from tests.matrix.table import totals


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports, builds, serves every chosen network; rows that still hold are kept. Exit code 1: some failed or wait."""
    given = _parser().parse_args(arguments)
    chosen = [
        entry
        for entry in ENTRIES
        if fnmatch(entry.id, given.only) and (entry.is_representative or not given.representatives)
    ]
    pending = chosen if given.again else outdated(chosen, read_rows(given.results))
    print(
        f"{len(chosen)} entries, {len(chosen) - len(pending)} rows still hold, {len(pending)} to run", file=sys.stderr
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that children are ended too
    budget = Budget(given.jobs, 60.0 * given.limit_minutes, given.served_only)
    rows = run_entries(pending, given.results, budget, _tell)
    save(given.results, rows)
    print("\n".join(totals(ENTRIES, rows)))
    left = outdated(chosen, rows)
    if left:
        print(f"{len(left)} not run in time; run the command again to go on", file=sys.stderr)
    return int(bool(left) or any(rows[entry.id].failure for entry in chosen if entry.id in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--only", default="*", help="entries whose id matches, such as 'timm-*'")
    parser.add_argument("--representatives", action="store_true", help="the representative ones that CI runs")
    parser.add_argument("--jobs", type=int, default=2, help="entries at once, each on one core")
    parser.add_argument("--limit-minutes", type=float, default=60.0, help="start nothing new after so long")
    parser.add_argument("--served-only", action="store_true", help="neither int8 nor plans; the rows say so")
    parser.add_argument("--again", action="store_true", help="also entries whose row still holds")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="of results.json and RESULTS.md")
    return parser


def _tell(entry: Entry, row: Row) -> None:
    parity = "-" if row.worst_parity is None else f"{row.worst_parity:.1e}"
    int8 = "int8" if row.int8 is not None and row.int8.is_built else "no int8"
    plans = f"{len(row.plans)} plans" if row.plans else "no plan"
    served = "served" if row.served is not None and row.served.is_equal else "not served"
    figures = f"{row.seconds:6.1f} s  {row.peak_gib:4.1f} GiB  parity {parity}  {int8}, {plans}, {served}"
    print(f"{entry.id:<48} {figures}  {row.failure or row.plan_problem}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
