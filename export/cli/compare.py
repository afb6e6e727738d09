"""Implements `saccade-export compare`, which exits with 1 when too few answers agree and names the worst pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from saccade.export.cli import options
from saccade.export.cli.options import FILE, print_json
from saccade.export.errors import RecipeError
from saccade.export.gate.limits import LibraryName
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.qualification.picture_answers import PictureDifference, agreement_share, answers_document
from saccade.models.contract.specs import Task

if TYPE_CHECKING:
    from saccade.export.recipe import LoadedRecipe

_GRAPH_STEP = "onnx_from_torch"  # the last step that needs no labelled pictures
_WORST = 5
_UNITS = {
    Task.DETECT: "boxes",
    Task.CLASSIFY: "pictures",
    Task.SEGMENT: "pixels",
    Task.INSTANCES: "objects",
    Task.EMBED: "vectors",
    Task.IMAGE: "numbers",
}


@click.command()
@click.argument("recipe", type=FILE)
@click.option(
    "--with",
    "library",
    type=click.Choice(get_args(LibraryName)),
    help="the library to ask, where it is installed",
)
@click.option(
    "--answers",
    type=FILE,
    help="an old pipeline's answers: COCO results, a COCO file with scores, or labels by file name",
)
@click.option("--pictures", type=click.IntRange(min=1), default=100, help="at most so many, the first by name")
@click.option("--least", type=click.FloatRange(0, 1), default=0.99, help="share of their answers that must be ours too")
@click.option("--threshold", type=click.FloatRange(0, 1), help="score that a box needs; without, the recipe's")
@options.work
@options.as_json
def compare(
    recipe: Path,
    library: LibraryName | None,
    answers: Path | None,
    pictures: int,
    least: float,
    threshold: float | None,
    work: Path,
    as_json: bool,
) -> None:
    """Compares the deploy graph's answers with those of the network's own library, or of an old pipeline."""
    if (library is None) == (answers is None):
        raise RecipeError("say either --with LIBRARY or --answers FILE")
    if answers is not None:
        answers_document(answers)  # refuses a file that can be none before the libraries are imported
    # imported here because torch takes seconds
    from saccade.export.qualification.compare import answers_from_file, answers_of_library, compared, pictures_of
    from saccade.export.recipe import load_recipe

    loaded = load_recipe(recipe)
    limit = loaded.recipe.task.score_threshold if threshold is None else threshold
    if answers is not None:
        theirs = answers_from_file(loaded, answers, pictures)
    else:
        assert library is not None
        theirs = answers_of_library(loaded, library, limit)
    found = list(compared(loaded, _deploy_graph(loaded, work), theirs, pictures_of(loaded, pictures), limit))
    if not found:
        raise RecipeError("there is no picture that both sides answered")
    share = agreement_share(found)
    if as_json:
        document = {"share": share, "least": least, "pictures": [asdict(each) for each in found]}
        print_json(document)
    else:
        units = "labels" if loaded.recipe.task.multi_label else _UNITS[loaded.recipe.task.task]
        print(*lines_of(found, units, share, loaded.recipe.task.max_detections or None), sep="\n")
    raise SystemExit(0 if share >= least else 1)


def _deploy_graph(loaded: LoadedRecipe, work: Path) -> Path:
    """Exports the deploy graph when it does not exist yet. Raises RecipeError when that fails."""
    from saccade.export.data.datasets import DataStore  # here, as above
    from saccade.export.pipeline import Listener, RunSettings, run_pipeline

    quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    results = run_pipeline(loaded, RunSettings(work, Path("repository"), until=_GRAPH_STEP), DataStore(), quiet)
    last = results[-1]
    if last.artifact is None:
        raise RecipeError(f"step {last.step} failed, so there is nothing to compare: {last.detail.get('error', '')}")
    return last.artifact.file(MODEL_FILE)


def lines_of(found: list[PictureDifference], units: str, share: float, most: int | None) -> list[str]:
    """Returns what people read: the share, what the recipe's limit of boxes leaves out of it, and the worst pictures.

    most: boxes that are answered per picture; None: no boxes.
    """
    theirs, same = sum(each.theirs for each in found), sum(each.same for each in found)
    surplus = sum(each.surplus for each in found)
    lines = [f"{len(found)} pictures: {same} of their {theirs} {units} are ours too ({share:.2%}), {surplus} surplus"]
    if units == "pictures":  # one class each, so nothing can be surplus
        lines = [f"top-1 equal on {same} of {theirs} pictures ({share:.2%})"]
    full = [each for each in found if most is not None and (each.ours or 0) >= most and each.theirs > most]
    if most is not None and full:
        behind = sum(each.theirs - most for each in full)
        lines.append(
            f"  {behind} of the {theirs - same} that we lack are more than {most} boxes in one picture, in "
            f"{len(full)} of the pictures; `task: {{max_detections: {most}}}` leaves them out: write more there, or "
            "compare from a higher --threshold"
        )
    worst = sorted(found, key=lambda each: (each.same - each.theirs - each.surplus, -each.worst_score))[:_WORST]
    return lines + [_worst_line(each, units) for each in worst if each.same < each.theirs or each.surplus]


def _worst_line(found: PictureDifference, units: str) -> str:
    if units == "pictures":
        return f"  {found.name}: another class, scores differ by {found.worst_score:.4f}"
    counted = f"  {found.name}: {found.same} of {found.theirs} {units}, {found.surplus} surplus"
    if found.psnr is not None:
        return f"{counted}, {found.psnr:.1f} dB, largest difference {found.worst_score:.4f}"
    if found.ours is None:
        return counted
    masks = "" if found.worst_mask_iou is None else f", worst overlap of masks {found.worst_mask_iou:.4f}"
    figures = f"worst overlap {found.worst_iou:.4f}, worst score difference {found.worst_score:.4f}"
    return f"{counted}, {figures}{masks}"
