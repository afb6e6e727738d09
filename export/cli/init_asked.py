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
_LINE = re.compile(r"[Ww]rite `((?:outputs|task|value_range): [^`]*)`")
_LAYOUT = re.compile(r"[Ww]rite outputs\.layout")
_LABELS = "# labels: [first, second]  # the names of its classes in the file's order: the file does not say them\n"
_CHOICE = f"outputs: {{layout: ...}}  # one of {', '.join(get_args(Layout))}\n{_LABELS}"


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
    if "..." in match[1] or "[low, high]" in match[1]:
        return f"{match[1].replace('[low, high]', '[...]')}\n"
    try:
        document = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return None
    return "".join(line(key, value) for key, value in document.items()) if isinstance(document, dict) else None
