"""`saccade-export matrix`: every network of the seeds through the product. Promises: resumable, one table."""

from __future__ import annotations

import signal
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from saccade.export.errors import RecipeError
from saccade.export.matrix.entries import ENTRIES, Entry
from saccade.export.matrix.rows import Row, read_rows

_DEFAULT_RESULTS = Path("export/matrix")


def matrix(
    only: Annotated[str, typer.Option(help="entries whose id matches, such as 'timm-*'")] = "*",
    dozen: Annotated[bool, typer.Option("--dozen", help="the representative ones that CI runs")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="entries at once, each on one core")] = 2,
    limit_minutes: Annotated[float, typer.Option(min=0.0, help="start nothing new after so long")] = 60.0,
    again: Annotated[bool, typer.Option("--again", help="also entries whose row still holds")] = False,
    results: Annotated[Path, typer.Option(help="directory of results.json and RESULTS.md")] = _DEFAULT_RESULTS,
) -> None:
    """Exports, builds, serves every network of the matrix; rows that still hold are kept."""
    from saccade.export.matrix.runner import Budget, outdated, run_entries, save  # imports the libraries' adapters
    from saccade.export.matrix.table import totals

    chosen = _chosen(only, dozen)
    pending = chosen if again else outdated(chosen, read_rows(results))
    console = Console(stderr=True, highlight=False)
    console.print(f"{len(chosen)} entries, {len(chosen) - len(pending)} rows still hold, {len(pending)} to run")
    with _progress(console, len(pending)) as progress:
        bar = progress.add_task("matrix", total=len(pending))

        def told(entry: Entry, row: Row) -> None:
            progress.advance(bar)
            progress.console.print(_line(row), markup=False, soft_wrap=True)

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that children are ended too
        rows = run_entries(pending, results, Budget(jobs, 60.0 * limit_minutes), told)
    save(results, rows)
    print("\n".join(totals(ENTRIES, rows)))
    left = outdated(chosen, rows)
    if left:
        print(f"{len(left)} not run within {limit_minutes:g} minutes; run the command again to go on", file=sys.stderr)
    failed = [entry.id for entry in chosen if entry.id in rows and rows[entry.id].failure]
    raise typer.Exit(1 if left or failed else 0)


def _chosen(only: str, dozen: bool) -> list[Entry]:
    """Raises RecipeError when nothing matches."""
    chosen = [entry for entry in ENTRIES if fnmatch(entry.id, only) and (entry.is_dozen or not dozen)]
    if not chosen:
        raise RecipeError(f"no entry matches {only!r}; there are: {', '.join(entry.id for entry in ENTRIES)}")
    return chosen


def _progress(console: Console, count: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not (console.is_terminal and count))


def _line(row: Row) -> str:
    parity = "-" if row.worst_parity is None else f"{row.worst_parity:.1e}"
    int8 = "int8" if row.int8 is not None and row.int8.is_built else "no int8"
    plans = f"{len(row.plans)} plans" if row.plans else "no plan"
    served = "served" if row.served is not None and row.served.is_equal else "not served"
    figures = f"{row.seconds:6.1f} s  {row.peak_gib:4.1f} GiB  parity {parity}  {int8}, {plans}, {served}"
    return f"{row.id:<48} {figures}  {row.failure or row.plan_problem}"
