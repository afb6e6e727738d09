"""Shows a run's progress on stderr, as bars on a terminal and as plain lines elsewhere; stdout carries only JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from saccade.export.artifact import StepResult
from saccade.export.data.data_step import DATA_JSON, read_data_report
from saccade.export.data.data_table import print_data
from saccade.export.pipeline import Listener, RunSettings, rerun_command

_LONGEST = 60  # characters of the longest fact that is shown beside others
_ALWAYS = ("error", "denied", "reason", "not_batchable_reason")  # these facts are shown at any length
_STYLES = {"done": "green", "cached": "cyan", "lost": "red", "failed": "red"}


@contextmanager
def progress_listener(
    console: Console, model: str, recipe: Path, settings: RunSettings, step_count: int
) -> Iterator[Listener]:
    """Yields a listener that reports one recipe's steps on `console`."""
    if not console.is_terminal:
        yield Listener(
            started=lambda name: None,
            noted=lambda text: None,
            finished=lambda result: _print(console, _line(model, recipe, settings, result), result),
        )
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(model, total=step_count)
        current = {"step": ""}

        def started(name: str) -> None:
            current["step"] = name
            progress.update(bar, description=f"{model} [bold]{name}[/bold]")

        def noted(text: str) -> None:
            progress.update(bar, description=f"{model} [bold]{current['step']}[/bold] {text}")

        def finished(result: StepResult) -> None:
            progress.advance(bar)
            _print(progress.console, _line(model, recipe, settings, result), result)

        yield Listener(started, noted, finished)


def _print(console: Console, line: str, result: StepResult) -> None:
    console.print(line, style=_STYLES[result.status] if console.is_terminal else "", markup=False, soft_wrap=True)
    if result.step == "data" and result.status == "done" and result.artifact is not None:
        print_data(console, read_data_report(result.artifact.file(DATA_JSON)))


def _line(model: str, recipe: Path, settings: RunSettings, result: StepResult) -> str:
    return (
        f"{model}  {result.step:<20} {result.status:<6} {result.seconds:6.2f} s  {_facts(result.detail)}"
        f"\n    again: {rerun_command(recipe, settings, result.step)}"
    )


def _facts(detail: Mapping[str, str | float | int | bool]) -> str:
    """Joins the short facts of a step; lists of operators are left to the report."""
    shown = {key: value for key, value in detail.items() if key in _ALWAYS or len(str(value)) <= _LONGEST}
    return " ".join(f"{key}={_short(value)}" for key, value in shown.items() if value != "")


def _short(value: str | float | int | bool) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
