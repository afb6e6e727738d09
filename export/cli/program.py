"""The `saccade-export` program. Promises: exit code 0 done, 1 the work failed, 2 wrong usage; one JSON document."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from saccade.export.artifact import StepResult
from saccade.export.cli.build import register_build
from saccade.export.cli.gate import register_gate
from saccade.export.cli.matrix import matrix
from saccade.export.cli.progress import progress_listener
from saccade.export.cli.recover import recover
from saccade.export.cli.signing import SignKeyOption, register_signing, signer_from
from saccade.export.cli.sources import register_sources
from saccade.export.data.datasets import DataStore
from saccade.export.errors import ExportError, RecipeError
from saccade.export.gate.table import report_table
from saccade.export.pipeline import RunSettings, planned_steps, run_pipeline
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.reports.export_report import REPORT_JSON, read_report
from saccade.export.reports.html_report import html
from saccade.export.reports.report_files import markdown, pictures_beside, write_report

DONE, FAILED, USAGE = 0, 1, 2
_WIDE = 200  # characters of a table that goes into a file

RepositoryOption = Annotated[Path, typer.Option(envvar="SACCADE_REPOSITORY", help="model repository to publish to")]
WorkOption = Annotated[Path, typer.Option(help="where steps keep what they made")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")]


class ReportForm(StrEnum):
    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Exports, gates and publishes trained networks.",
)
register_sources(app)
register_signing(app)
app.command()(matrix)
app.command()(recover)
register_gate(app)
register_build(app)


@app.command()
def run(
    recipes: Annotated[list[Path], typer.Argument(help="recipe.yaml, one or more")],
    repository: RepositoryOption = Path("repository"),
    work: WorkOption = Path(".saccade/export"),
    sign_key: SignKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Exports each recipe: wrap, convert, quantize, qualify, gate, publish."""
    loaded = [load_recipe(path) for path in recipes]
    settings = RunSettings(work, repository, signer=signer_from(sign_key))
    outcomes = _run_all(loaded, settings, as_json)
    raise typer.Exit(DONE if all(_is_good(results) for results in outcomes) else FAILED)


@app.command()
def step(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml")],
    name: Annotated[str, typer.Argument(help="step to run again, such as wrap or precision.int8-cpu")],
    repository: RepositoryOption = Path("repository"),
    work: WorkOption = Path(".saccade/export"),
    sign_key: SignKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs one step again; what it builds on is taken from the work directory, or made first."""
    loaded = load_recipe(recipe)
    settings = RunSettings(work, repository, redo=name, until=name, signer=signer_from(sign_key))
    outcomes = _run_all([loaded], settings, as_json)
    raise typer.Exit(DONE if _is_good(outcomes[0]) else FAILED)


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="recipe.yaml, version directory or report.json")],
    out: Annotated[Path | None, typer.Option(help="write all forms, plots and pictures here, print nothing")] = None,
    form: Annotated[ReportForm, typer.Option("--format", help="what to print")] = ReportForm.MARKDOWN,
    work: WorkOption = Path(".saccade/export"),
    as_json: JsonOption = False,
) -> None:
    """Renders a report again, from a version directory or from the newest finished gate step of a recipe."""
    path = _report_path(source, work)
    found = read_report(path)
    pictures = pictures_beside(found, path.parent)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        paths = write_report(found, out, pictures)
        _print_json([str(path) for path in paths]) if as_json else print(*paths, sep="\n")
    elif as_json or form is ReportForm.JSON:
        _print_json(found.model_dump(mode="json"))
    elif form is ReportForm.HTML:
        print(html(found, {name: file.read_bytes() for name, file in pictures.items() if file.exists()}), end="")
    else:
        print(markdown(found), end="")


def main() -> None:
    """Entry point: known failures end as one line on stderr."""
    try:
        app(standalone_mode=True)
    except RecipeError as error:
        print(f"saccade-export: {error}", file=sys.stderr)
        raise SystemExit(USAGE) from error
    except ExportError as error:
        print(f"saccade-export: {error}", file=sys.stderr)
        raise SystemExit(FAILED) from error


def _run_all(recipes: list[LoadedRecipe], settings: RunSettings, as_json: bool) -> list[list[StepResult]]:
    """Every recipe runs, whatever became of the ones before it."""
    console = Console(stderr=as_json, highlight=False)
    data = DataStore()
    outcomes: list[list[StepResult]] = []
    for loaded in recipes:
        count = len(planned_steps(loaded))
        with progress_listener(console, loaded.recipe.model, loaded.path, settings, count) as listener:
            outcomes.append(run_pipeline(loaded, settings, data, listener))
    _print_gates(outcomes, as_json)
    if as_json:
        _print_json({one.recipe.model: _summary(results) for one, results in zip(recipes, outcomes, strict=True)})
    return outcomes


def _print_gates(outcomes: list[list[StepResult]], as_json: bool) -> None:
    """Every check of every variant, denied ones included; stdout stays free for JSON."""
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else _WIDE)
    for results in outcomes:
        for result in results:
            if result.step == "gate" and result.artifact is not None:
                console.print(report_table(read_report(result.artifact.file(REPORT_JSON))))


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
    """Raises RecipeError when there is no report to be found."""
    if source.is_dir():
        return source / REPORT_JSON
    if source.suffix == ".json":
        return source
    model = load_recipe(source).recipe.model
    finished = sorted((work / model).glob(f"gate-*/{REPORT_JSON}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise RecipeError(f"no report of {model!r} in {work}; run `saccade-export run {source}` first")
    return finished[-1]


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
