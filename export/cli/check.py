"""Implements `saccade-export check`, which exits with 1 when a recipe's data is refused and prints each complaint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from saccade.export.cli import options
from saccade.export.cli.options import FILE, console_for
from saccade.export.data.check import Told, check_data
from saccade.export.data.data_table import print_data
from saccade.export.recipe import load_recipe


@click.command()
@click.argument("recipe", type=FILE)
@options.as_json
def check(recipe: Path, as_json: bool) -> None:
    """Reads every picture of a recipe's data as the server would, and says what is there and what is wrong.

    Nothing is converted. `run` does the same first.
    """
    loaded = load_recipe(recipe)
    with _bar() as told:
        report = check_data(loaded, told)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        print_data(console_for(), report)
    raise SystemExit(1 if report.complaints else 0)


@contextmanager
def _bar() -> Iterator[Told]:
    """Shows a progress bar on stderr, so that stdout can be piped; shows nothing when stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("reading pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("read", total=None)
        yield lambda read, total: progress.update(bar, completed=read, total=total)
