"""Step `library`: compares the converted float network with the program that the recipe's gate names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saccade.export.artifact import Artifact, Detail, file_sha256
from saccade.export.errors import RecipeError
from saccade.export.gate.limits import LibraryAgreement
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.qualification.compare import answers_from_file, answers_of_library, compared, pictures_of
from saccade.export.qualification.picture_answers import PictureDifference, agreement_share
from saccade.export.qualification.qualify_report import LibraryFigure
from saccade.export.recipe import LoadedRecipe
from saccade.export.steps import StepContext

STEP = "library"
_FIGURE_FILE = "library.json"
_MOST_NAMED = 3  # pictures


def run_library(context: StepContext) -> Detail:
    """Writes `library.json`. Raises RecipeError when the program cannot be asked, or answers no picture."""
    loaded, asked = context.loaded, _asked(context.loaded)
    threshold = loaded.recipe.task.score_threshold
    if asked.answers is not None:
        theirs = answers_from_file(loaded, loaded.beside(asked.answers), asked.pictures)
    else:
        assert asked.library is not None  # the recipe names one of both
        theirs = answers_of_library(loaded, asked.library, threshold)
    graph = context.inputs["onnx_from_torch"].file(MODEL_FILE)
    found = list(compared(loaded, graph, theirs, pictures_of(loaded, asked.pictures), threshold))
    if not found:
        raise RecipeError("gate.library_agreement: there is no picture that both sides answered")
    figure = _figure(asked.answers or str(asked.library), found)
    (context.out / _FIGURE_FILE).write_text(figure.model_dump_json(indent=2))
    return {"with": figure.program, "pictures": figure.pictures, "share": figure.share}


def answers_digest(loaded: LoadedRecipe) -> dict[str, object]:
    """Identifies the other side's answers. Raises RecipeError when their file cannot be read."""
    asked = _asked(loaded)
    rest = asked.model_dump(mode="json", exclude={"min_share"})
    if asked.answers is None:
        return rest
    try:
        return {**rest, "sha256": file_sha256(loaded.beside(asked.answers))}
    except OSError as error:
        raise RecipeError(f"gate.library_agreement: cannot read {asked.answers}: {error.strerror}") from error


def read_library_figure(inputs: Mapping[str, Artifact]) -> LibraryFigure | None:
    """Reads what the step found; None when the recipe names no other program."""
    made = inputs.get(STEP)
    return None if made is None else LibraryFigure.model_validate_json(made.file(_FIGURE_FILE).read_bytes())


def _asked(loaded: LoadedRecipe) -> LibraryAgreement:
    asked = loaded.recipe.gate.library_agreement
    assert asked is not None  # the step exists only where the recipe has this section
    return asked


def _figure(program: str, found: Sequence[PictureDifference]) -> LibraryFigure:
    differing = [each for each in found if each.same < each.theirs or each.surplus]
    worst = sorted(differing, key=lambda each: each.same - each.theirs - each.surplus)[:_MOST_NAMED]
    return LibraryFigure(
        program=program,
        pictures=len(found),
        theirs=sum(each.theirs for each in found),
        same=sum(each.same for each in found),
        surplus=sum(each.surplus for each in found),
        share=agreement_share(list(found)),
        worst=tuple(each.name for each in worst),
    )
