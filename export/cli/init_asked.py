"""Turns a refusal that asks for words into lines of a recipe, and says all that is missing at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import yaml

from saccade.export.cli.init_onnx import settled_words
from saccade.export.cli.recipe_text import line
from saccade.export.errors import ExportError, SourceError
from saccade.export.sources.onnx_words import Layout
from saccade.service.errors import SaccadeError

_MOST = 3  # refusals in a row that are answered
_LINE = re.compile(r"[Ww]rite `((?:outputs|task|value_range|labels): [^`]*)`")
_LAYOUT = re.compile(r"[Ww]rite outputs\.layout")
_LABELS = "# labels: [first, second]  # the names of its classes in the file's order: the file does not say them\n"
_CHOICE = f"# only if its rows are boxes:\noutputs: {{layout: ...}}  # one of {', '.join(get_args(Layout))}\n{_LABELS}"
_AMOUNT = "an amount, such as an age, or an embedding is not served"
_DEPTH = "depth and other amounts per pixel are `task: {task: image, picture: depth}`"
_CONDITIONS = {  # by the beginning of what a refusal asks for: on what it depends
    "task: {task: image": "only if it makes a picture or a depth of each picture",
    "task: {task: classify": f"only if these numbers are scores of classes; {_AMOUNT}",
    "task: {task: segment": f"only if these numbers are scores of classes, or of a foreground; {_DEPTH}",
    "task: ": "only if its rows are boxes",
    "outputs: {scores: sigmoid": f"only if this number is a score of the second of two classes; {_AMOUNT}",
    "outputs: {scores": "only if each number is the probability of a class; amounts are not served",
    "outputs: {names: [...], layout": "only if it is a detector",
    "value_range: ": "only if pixels need another range than 0..1",
    "labels: ": "only if its class numbers begin with 1",
}
_GAPS = {  # what a recipe may lack, and a line for it
    "labels": "labels: [first, second]  # its classes, in the file's order; no such line for embed and image\n",
    "preprocess": "preprocess: {width: 640, height: 640, fit: stretch}  # what it was trained with; image: fit: tile\n",
    "task": "task: {task: classify}  # or detect, segment, segment-instances, embed; {task: image, picture: rgb}\n",
}


def gap_lines(refusal: str) -> tuple[str, ...]:
    """Returns a line for each key that a refused recipe lacks because its source does not say it."""
    missing = re.findall(r"(\w+): required; the source does not say", refusal)
    return tuple(_GAPS[key] for key in missing if key in _GAPS)


def asked_lines(file: Path, data: Path, recipe: str, refusal: str) -> Sequence[str]:
    """Returns the lines that a refusal asks for, and those that the next refusals would; empty where it asks for none.

    recipe: the lines without which no recipe is one. Side effect: runs the file again with the lines so far.
    """
    asked: list[str] = []
    for _ in range(_MOST):
        new = _asked_by(refusal)
        if new is None or new in asked:
            return asked
        asked.append(new)
        if "..." in new:
            return asked  # only the user can choose
        try:
            settled = settled_words(file, data, "".join([recipe, *asked]))
        except SourceError as error:
            refusal = str(error)
        except (ExportError, SaccadeError):  # said when the command is run again
            return asked
        else:
            return asked if settled.has_labels else [*asked, _LABELS]
    return asked


def _asked_by(refusal: str) -> str | None:
    if _LAYOUT.search(refusal):
        return _CHOICE
    match = _LINE.search(refusal)
    if match is None:
        return None
    condition = next((f"# {text}:\n" for start, text in _CONDITIONS.items() if match[1].startswith(start)), "")
    if "sigmoid" in match[1] and "per pixel" in refusal:
        condition = f"# only if each number is a score of the foreground; {_DEPTH}:\n"
    if "..." in match[1] or "[low, high]" in match[1]:
        return f"{condition}{match[1].replace('[low, high]', '[...]')}\n"
    try:
        document = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return None
    if not isinstance(document, dict):
        return None
    return condition + "".join(line(key, value) for key, value in document.items())
