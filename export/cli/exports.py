"""Runs recipes for the commands `run` and `step` and tells what came of each; renders reports for `report`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from saccade.export.artifact import StepResult
from saccade.export.cli.options import console_for, print_json
from saccade.export.cli.progress import progress_listener
from saccade.export.data.datasets import DataStore
from saccade.export.errors import RecipeError
from saccade.export.gate.decision import denial_text, verdict
from saccade.export.gate.table import report_table
from saccade.export.pipeline import RunSettings, run_pipeline
from saccade.export.precision.make import ensure_runtime
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.reports.export_report import REPORT_JSON, ExportReport, read_report
from saccade.export.reports.html_report import html
from saccade.export.reports.report_files import markdown, pictures_beside, write_report
from saccade.export.variants import VariantKind

DONE, FAILED = 0, 1

_ALLOWING = "`saccade serve --allow-unjudged true` serves it"


def export(
    paths: Iterable[Path],
    settings: RunSettings,
    *,
    variants: Sequence[VariantKind] = (),
    verbose: bool,
    as_json: bool,
) -> int:
    """Runs every recipe, even after earlier ones failed, and returns the exit code. Without `variants` all are made.

    Raises DeviceMissing for a variant of `variants` that this machine cannot measure.

    The lines for people go to stdout, or to stderr where stdout carries JSON; the verdicts are the last ones.
    """
    recipes = [load_recipe(path) for path in paths]
    recipes = [loaded.with_variants(variants) if variants else loaded for loaded in recipes]
    for name in variants:
        ensure_runtime(name)
    console, data = console_for(is_stderr=as_json), DataStore()
    outcomes: list[list[StepResult]] = []
    for loaded in recipes:
        if loaded.fit_note:
            console.print(f"{loaded.recipe.model}: {loaded.fit_note}", markup=False, soft_wrap=True)
        with progress_listener(console, loaded, settings, verbose=verbose) as listener:
            outcomes.append(run_pipeline(loaded, settings, data, listener))
    for loaded, results in zip(recipes, outcomes, strict=True):
        _tell(console, loaded, results, verbose=verbose)
    if as_json:
        print_json({one.recipe.model: _summary(results) for one, results in zip(recipes, outcomes, strict=True)})
    return DONE if all(_is_good(results) for results in outcomes) else FAILED


def render(source: Path, out: Path | None, form: str, work: Path) -> None:
    """Prints one form of a report, or writes all of them to the directory `out`."""
    path = _report_path(source, work)
    found = read_report(path)
    pictures = pictures_beside(found, path.parent)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        paths = write_report(found, out, pictures)
        print_json([str(path) for path in paths]) if form == "json" else print(*paths, sep="\n")
    elif form == "json":
        print_json(found.model_dump(mode="json"))
    elif form == "html":
        print(html(found, {name: file.read_bytes() for name, file in pictures.items() if file.exists()}), end="")
    else:
        print(markdown(found), end="")


def _tell(console: Console, loaded: LoadedRecipe, results: list[StepResult], *, verbose: bool) -> None:
    """Prints why variants were denied and then the verdict; `verbose` adds every check of every variant."""
    gate = next((each.artifact for each in results if each.step == "gate" and each.artifact is not None), None)
    report = None if gate is None else read_report(gate.file(REPORT_JSON))
    if report is not None and verbose:
        console.print(report_table(report))
    if loaded.left_out:
        console.print(f"{loaded.recipe.model}: left out by --variant: {', '.join(loaded.left_out)}", soft_wrap=True)
    for text in verdict_lines(loaded.recipe.model, results, report):
        style = "" if not console.is_terminal else "bold green" if _is_good(results) else "bold red"
        console.print(text, markup=False, soft_wrap=True, style=style)


def verdict_lines(model: str, results: list[StepResult], report: ExportReport | None) -> Iterator[str]:
    """Yields a line for each variant that was denied or waits, and the verdict in words as the last one."""
    last = results[-1]
    for variant in () if report is None else report.variants:
        if not variant.gate.accepted:
            yield f"{model}: {denial_text(variant.qualify.variant, variant.gate)}"
    if report is not None and report.unmeasured_labels():
        yield f"{model}: not measured, because no test picture shows them: {report.unmeasured_labels()}"
    yield from () if report is None else (f"{model}: {text}" for text in _poor_slices(report))
    lost = [each.step for each in results if each.status == "lost"]
    without = f"; could not be made: {', '.join(lost)}" if lost else ""
    if last.step == "publish" and last.status in ("done", "cached"):
        detail = last.detail
        again = "published" if detail["is_new"] else "unchanged, published before"
        pending = f", waiting for a device: {detail['pending']}" if detail["pending"] else ""
        key = detail["signed_by"]
        signed = "unsigned" if key == "unsigned" else f"signed by {key}"
        is_judged = report is None or report.thresholds.needs_labels
        unjudged = "" if is_judged else f", unjudged (nobody measured its answers: {_ALLOWING})"
        yield f"{model}: {again} as {detail['path']} with {detail['variants']}{unjudged}{pending}{without}; {signed}"
    elif last.step == "gate" and last.status == "failed" and report is not None:
        denied = [each.qualify.variant for each in report.variants if verdict(each.gate) == "denied"]
        yield f"{model}: nothing is published: the gate accepts no variant ({', '.join(denied)} denied){without}"
    elif last.status == "failed":
        yield f"{model}: nothing is published: step {last.step} failed: {last.detail.get('error', '')}{without}"
    else:
        yield f"{model}: step {last.step} is done{without}"


def _poor_slices(report: ExportReport) -> Iterator[str]:
    """Yields the worst slice of each variant that passed, if it surely lies below the metric of all pictures."""
    for variant in report.variants:
        found = variant.qualify
        worst = min(found.slices, key=lambda each: each.ci_high, default=None)
        if worst is not None and variant.gate.accepted and worst.ci_high < found.metric.ci_low:
            yield (
                f"{found.variant} is worse on {worst.name} ({worst.images} pictures): {found.metric.name} "
                f"{worst.value:.4f}, of all {found.metric.value:.4f}; `gate: {{min_slice_metric: …}}` is a floor"
            )


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
