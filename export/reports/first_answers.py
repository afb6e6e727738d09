"""Makes the page of `init --show`: a few pictures with the network's answers drawn, before anything is exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import pictures_below
from saccade.export.qualification.answer_pictures import answer_jpeg, answer_text
from saccade.export.qualification.reference import eager_answer
from saccade.export.recipe import FolderData, LoadedRecipe
from saccade.export.reports.html_report import page
from saccade.export.reports.sections.blocks import Cell, Gallery, ReportPicture, Section, Table, Text, fact_table
from saccade.export.sources import load_network
from saccade.export.sources.onnx_recognition import SettledWord
from saccade.models.contract.preprocessing import preprocess_into
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.kept_answers import kept_picture
from saccade.service.errors import SaccadeError
from saccade.service.vision.image_decoder import USUAL_LIMITS, decode_image

PICTURES = 8
MOST_BOXES = 20  # more hide the picture
_ASSUMED = "Words marked as assumed are guesses: where the answers are wrong, correct these words in the recipe first."
_DRAWN = {
    Task.CLASSIFY: "The first classes and their scores stand below each picture.",
    Task.DETECT: "Boxes from the score threshold {threshold:g} on are drawn, of each picture the best {most}.",
    Task.INSTANCES: "Boxes and masks from the score threshold {threshold:g} on are drawn, at most {most} a picture.",
    Task.SEGMENT: "Each class has a colour; its share of the picture stands below.",
    Task.IMAGE: "What the network makes of the part of each picture that it sees; depths from the least to the most.",
    Task.EMBED: "The first numbers of each picture's vector stand below it.",
}


def first_answers_page(loaded: LoadedRecipe, understood: Mapping[str, str], findings: tuple[SettledWord, ...]) -> str:
    """Runs the network as it came on a few pictures of the recipe's folder.

    Raises SourceError when the network cannot be loaded.
    """
    recipe, drawn = loaded.recipe, list(_drawn(loaded))
    answers = Gallery(f"{len(drawn)} pictures", tuple(each for each, _ in drawn))
    facts = Section("What was understood", (fact_table(tuple(understood.items()), header=("word", "value")),))
    words = Table(("word", "value", "from", "why"), tuple(_row(each) for each in findings))
    drawn_text = _DRAWN[recipe.task.task].format(threshold=recipe.task.score_threshold, most=MOST_BOXES)
    is_guess = any(each.origin == "assumed" for each in findings)
    origins = Section("Where each word is from", (*((Text(_ASSUMED, "pending"),) if is_guess else ()), words))
    return page(
        f"{recipe.model}: first answers",
        f"{recipe.model}: first answers",
        "What the network answers before anything is exported, with the recipe's words and the server's preprocessing.",
        (Section("Answers", (Text(drawn_text), answers)), *((origins,) if findings else ()), facts),
        {each.file: jpeg for each, jpeg in drawn},
    )


def _drawn(loaded: LoadedRecipe) -> Iterator[tuple[ReportPicture, bytes]]:
    """Yields pictures that the server's decoder takes, each with its answer drawn as a JPEG."""
    recipe, network = loaded.recipe, load_network(loaded.network_request())
    assert isinstance(recipe.data, FolderData)  # `init` writes no other data
    count = 0
    for path in _spread(loaded.beside(recipe.data.path), recipe.task.task):
        if count == PICTURES:
            return
        images = np.empty((1, recipe.preprocess.height, recipe.preprocess.width, 3), np.uint8)
        try:
            pixels = decode_image(path.read_bytes(), USUAL_LIMITS.for_network(recipe.preprocess))
            place = preprocess_into(pixels, recipe.preprocess, images[0])
        except (OSError, SaccadeError):  # `check` says what is wrong with it
            continue
        size = (recipe.preprocess.width, recipe.preprocess.height)
        answer = kept_picture(eager_answer(network, recipe, images), recipe.task, size, place)
        count += 1
        text = answer_text(answer, 0, recipe.task, recipe.labels)
        answer, left_out = _best(answer, recipe.task)
        text += f" ({left_out} boxes are not drawn)" if left_out else ""
        picture = ReportPicture(f"{count}.jpg", f"{path.name}: {text}", (_name(path, loaded), text))
        yield picture, answer_jpeg(pixels, answer, place, recipe.task, recipe.labels)


def _best(answer: list[NDArray[Any]], task: TaskSpec) -> tuple[list[NDArray[Any]], int]:
    """Returns the answer (of one picture) with its best boxes alone, and how many above the threshold are left out."""
    if not task.task.has_boxes:
        return answer, 0
    scores = answer[1].copy()
    order = np.argsort(-scores[0, : int(answer[3][0])], kind="stable")
    left_out = order[MOST_BOXES:][scores[0, order[MOST_BOXES:]] >= task.score_threshold]
    scores[0, left_out] = -1.0  # below any threshold
    return [answer[0], scores, *answer[2:]], len(left_out)


def _spread(root: Path, task: Task) -> list[Path]:
    """Returns pictures from all over the folder, so that they show more than one label; masks are no pictures."""
    found = pictures_below(root, Findings())
    if task is Task.SEGMENT:
        found = [path for path in found if path.parent.name != "masks"]
    return found[:: max(1, len(found) // PICTURES)]


def _name(path: Path, loaded: LoadedRecipe) -> str:
    return path.relative_to(loaded.path.parent).as_posix() if path.is_relative_to(loaded.path.parent) else path.name


def _row(word: SettledWord) -> tuple[str | Cell, ...]:
    origin = Cell(word.origin, "pending" if word.origin == "assumed" else "")
    return word.word, word.value, origin, word.why
