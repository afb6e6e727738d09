"""Implements the commands that export: `run`, `step`, and `report`, which renders a run's report again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from saccade.export.artifact import StepResult
from saccade.export.cli import options
from saccade.export.cli.options import FILE, print_json
from saccade.export.cli.progress import progress_listener
from saccade.export.cli.signing import sign_key_option, signer_from
from saccade.export.data.datasets import DataStore
from saccade.export.errors import RecipeError
from saccade.export.gate.decision import denial_text, verdict
from saccade.export.gate.table import report_table
from saccade.export.pipeline import RunSettings, planned_steps, run_pipeline
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.reports.export_report import REPORT_JSON, read_report
from saccade.export.reports.html_report import html
from saccade.export.reports.report_files import markdown, pictures_beside, write_report

DONE, FAILED = 0, 1
_WIDE = 200  # width in characters of a table that is written to a file


@click.command()
@click.argument("recipes", type=FILE, nargs=-1, required=True)
@options.repository
@options.work
@sign_key_option
@options.as_json
def run(recipes: tuple[Path, ...], repository: Path, work: Path, sign_key: Path | None, as_json: bool) -> None:
    """Exports each recipe: check data, wrap, convert, quantize, qualify, gate, publish."""
    loaded = [load_recipe(path) for path in recipes]
    settings = RunSettings(work, repository, signer=signer_from(sign_key))
    outcomes = _run_all(loaded, settings, as_json)
    sys.exit(DONE if all(_is_good(results) for results in outcomes) else FAILED)


@click.command()
@click.argument("recipe", type=FILE)
@click.argument("name")
@options.repository
@options.work
@sign_key_option
@options.as_json
def step(recipe: Path, name: str, repository: Path, work: Path, sign_key: Path | None, as_json: bool) -> None:
    """Runs one step again, NAME being such as wrap or precision.int8-cpu.

    What it builds on is taken from the work directory, or made first.
    """
    loaded = load_recipe(recipe)
    settings = RunSettings(work, repository, redo=name, until=name, signer=signer_from(sign_key))
    outcomes = _run_all([loaded], settings, as_json)
    sys.exit(DONE if _is_good(outcomes[0]) else FAILED)


@click.command()
@click.argument("source", type=FILE)
@click.option("--out", type=FILE, help="write all forms, plots and pictures here, print nothing")
@click.option(
    "--format", "form", type=click.Choice(["md", "html", "json"]), default="md", show_default=True, help="what to print"
)
@options.work
@options.as_json
def report(source: Path, out: Path | None, form: str, work: Path, as_json: bool) -> None:
    """Renders a report again: SOURCE is a report.json, a version directory or a recipe whose newest one is meant."""
    path = _report_path(source, work)
    found = read_report(path)
    pictures = pictures_beside(found, path.parent)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        paths = write_report(found, out, pictures)
        print_json([str(path) for path in paths]) if as_json else print(*paths, sep="\n")
    elif as_json or form == "json":
        print_json(found.model_dump(mode="json"))
    elif form == "html":
        print(html(found, {name: file.read_bytes() for name, file in pictures.items() if file.exists()}), end="")
    else:
        print(markdown(found), end="")


def _run_all(recipes: list[LoadedRecipe], settings: RunSettings, as_json: bool) -> list[list[StepResult]]:
    """Runs every recipe, even after earlier ones failed."""
    console = Console(stderr=as_json, highlight=False)
    data = DataStore()
    outcomes: list[list[StepResult]] = []
    for loaded in recipes:
        count = len(planned_steps(loaded))
        with progress_listener(console, loaded.recipe.model, loaded.path, settings, count) as listener:
            outcomes.append(run_pipeline(loaded, settings, data, listener))
    _print_gates(outcomes, as_json)
    if as_json:
        print_json({one.recipe.model: _summary(results) for one, results in zip(recipes, outcomes, strict=True)})
    return outcomes


def _print_gates(outcomes: list[list[StepResult]], as_json: bool) -> None:
    """Prints every check of every variant, then why variants were denied; JSON output keeps stdout for itself."""
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else _WIDE)
    for results in outcomes:
        for result in results:
            if result.step == "gate" and result.artifact is not None:
                report = read_report(result.artifact.file(REPORT_JSON))
                console.print(report_table(report))
                for variant in report.variants:
                    if verdict(variant.gate) == "denied":
                        text = denial_text(variant.qualify.variant, variant.gate)
                        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _summary(results: list[StepResult]) -> dict[str, Any]:
    return {
        "ok": _is_good(results),
        "steps": [
            {
                "step": result.step,
                "status": result.status,
                "seconds": round(result.seconds, 3),
                "artifact": str(result.artifact.directory) if result.artifact else None,
                "detail": dict(result.detail),
            }
            for result in results
        ],
    }


def _is_good(results: list[StepResult]) -> bool:
    return all(result.status != "failed" for result in results)


def _report_path(source: Path, work: Path) -> Path:
    """Returns the path of a report.json. Raises RecipeError when there is none."""
    if source.is_dir():
        return source / REPORT_JSON
    if source.suffix == ".json":
        return source
    model = load_recipe(source).recipe.model
    finished = sorted((work / model).glob(f"gate-*/{REPORT_JSON}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise RecipeError(f"no report of {model!r} in {work}; run `saccade-export run {source}` first")
    return finished[-1]
