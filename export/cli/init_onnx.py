"""Decides which lines `init` writes about an ONNX file and marks those that were found or assumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import orjson
import yaml
from PIL import Image
from pydantic import ValidationError

from saccade.export.cli.init_argmax import argmax_classes
from saccade.export.cli.init_classes import class_names, mask_classes
from saccade.export.cli.init_optimum import CONFIG, optimum_folder, pixel_sections
from saccade.export.cli.init_pictures import settled_picture
from saccade.export.cli.recipe_text import OWN_MARKS, confirmed, first_labels, line, own_values
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import pictures_below
from saccade.export.errors import RecipeError, SourceError
from saccade.export.recipe import what_is_wrong
from saccade.export.sources.names import generic_labels
from saccade.export.sources.onnx_recognition import Recognition, SettledWord, recognised
from saccade.export.sources.onnx_signs import FileSigns, Picture, signs_of
from saccade.export.sources.onnx_words import TOP_WORDS, FileWords, OutputWords, SuppressionWords
from saccade.models.contract.specs import Normalisation, PictureKind, Task

_ASSUMED_ALONE = ("value_range", "preprocess")  # keys whose whole value is assumed
SEVERAL = "task.multi_label"
_ONE_LABEL = "one label per picture; for several write `outputs: {threshold: 0.5}`"
NAMELESS = "neither the file nor the data names its classes: write `labels`"
_FEWEST_FEATURES = 10
_PICTURES = 8  # number of the user's pictures that the file is run on


@dataclass(frozen=True, slots=True)
class SettledWords:
    """Lines of the recipe by key, and the settled words that people read as a table."""

    lines: dict[str, str]
    findings: tuple[SettledWord, ...]
    before: str | None = None  # the recipe so far; lines whose assumed value the user changed are the user's in it
    kept: tuple[str, ...] = ()  # a sentence per value that the user changed and that stays
    has_labels: bool = True


def existing_text(path: Path) -> str | None:
    """Returns a recipe's text, or None without a file.

    Raises RecipeError when the file is no recipe, so it is not overwritten.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path} exists and cannot be read as a recipe: {error}; name another file with --out"
        ) from error
    if not isinstance(_document(text), dict) or "source" not in _document(text):
        raise RecipeError(f"{path} exists already and is no recipe; name another file with --out, or remove it")
    return text


def settled_words(file: Path, data: Path, before: str | None) -> SettledWords:
    """Runs the file on the first pictures of `data`. Raises SourceError with the words that the recipe needs."""
    own = {} if before is None else _users_own(before)
    given = _given_words(own)
    beside = pixel_sections(file) if given.value_range is None else {}
    beside = {key: section for key, section in beside.items() if key not in own}
    document = {**beside, **own}
    names = class_names(data)
    said = document.get("labels")
    count = len(said) if isinstance(said, list) else None
    given_task = document.get("task")
    said_of_task = given_task if isinstance(given_task, dict) else {}
    task = Task(said_of_task["task"]) if said_of_task.get("task") in list(Task) else None
    kind = said_of_task.get("picture") if said_of_task.get("picture") in get_args(PictureKind) else None
    probed = _with_range(given, document)
    signs = signs_of(file, probed, _pictures(data), _size(document))
    found = recognised(signs, probed, task, count, hint=len(names) or None, kind=kind)
    is_picture = found.task.task is Task.IMAGE
    if is_picture:
        found = settled_picture(file, signs, probed, found, data, document)
    # its folders are `images` and `masks`, or `input` and `target`
    names = [] if is_picture or found.task.task is Task.SEGMENT else names
    written = {} if before is None else own_values(before)
    found, kept = _with_edits(found, given, written)
    lines = {key: text for key, text in _lines(found, given).items() if key not in document}
    lines |= {key: line(key, section, f"found in {CONFIG} beside the file") for key, section in beside.items()}
    for key in _ASSUMED_ALONE:
        if before is not None and key in lines.keys() & written.keys() and _value(lines[key], key) != written[key]:
            again = settled_words(file, data, confirmed(before, key))
            return replace(again, kept=(f"your `{key}: {written[key]}` is kept", *again.kept))
    labels, findings = found.labels or (), _with_recipes_own(found.findings, document, beside)
    if task is None and _may_show_several(found, signs):
        findings = (*findings, SettledWord(SEVERAL, "False", "assumed", _ONE_LABEL))
    if "outputs" in lines:
        findings = (*findings, *_rows_of_line(lines["outputs"], findings))
    is_nameless = "labels" not in document and labels == generic_labels(len(labels))
    named = _labels_beside(file, len(labels)) if is_nameless else None
    if named is not None:
        lines["labels"] = line("labels", named, "found in config.json beside the file")
    elif is_nameless and names:
        if len(names) == len(labels):
            lines |= {} if found.task.task is Task.CLASSIFY else {"labels": line("labels", names, "found in the data")}
        else:
            _ensure_not_features(signs, found, names)
            why = f"the file has {len(labels)} classes, the data {len(names)} ({first_labels(names)}): write `labels`"
            findings = (*findings, SettledWord("labels", first_labels(labels), "assumed", why))
    elif is_nameless and labels:
        findings = (*findings, SettledWord("labels", first_labels(labels), "assumed", NAMELESS))
    if found.labels is None and "labels" not in document:
        if found.task.task is Task.SEGMENT:
            numbered, why = _numbered(file, data, found, signs)
            # without the mark of a line of `init`, because the user writes names into it
            lines |= {"labels": line("labels", list(numbered), why)} if numbered else {}
            row = SettledWord("labels", first_labels(numbered), "assumed", NAMELESS)
            findings = (*findings, row) if numbered else findings
        elif names:
            _ensure_ids_fit(signs, probed, task, names)
            lines["labels"] = line("labels", names, "found in the data")
    has_labels = is_picture or found.labels is not None or "labels" in {**document, **lines}
    return SettledWords(lines, findings, before, kept, has_labels)


def _numbered(file: Path, data: Path, found: Recognition, signs: FileSigns) -> tuple[tuple[str, ...], str]:
    """Returns labels for a file that answers class ids, by its graph or by the masks; none where neither does."""
    name = (found.words.outputs.names or ("",))[0]
    classes = argmax_classes(file, name)
    if classes:
        return generic_labels(classes), "numbered, as the graph chooses among so many: write names"
    answered = next((each.values for each in signs.outputs if each.tensor.name == name), None)
    shown = -1 if answered is None else int(answered.max(initial=-1))
    classes = mask_classes(data)
    return generic_labels(max(classes, shown + 1) if classes else 0), "numbered, as the masks hold so many: write names"


def _ensure_ids_fit(signs: FileSigns, given: FileWords, task: Task | None, names: list[str]) -> None:
    """Raises SourceError where a file answers class ids that the names of the data do not reach."""
    try:
        recognised(signs, given, task, len(names))
    except SourceError as error:
        if f"answers class {len(names)}," not in str(error):
            raise
        labels = line("labels", ["unused", *names]).strip()
        raise SourceError(f"{error}; if its class numbers begin with 1, write `{labels}`") from error


def _ensure_not_features(signs: FileSigns, found: Recognition, names: list[str]) -> None:
    """Raises SourceError for raw numbers that are only taken for classes, and are others in number than the data's."""
    is_taken = any(each.word == "task" and each.origin == "assumed" for each in found.findings)
    count = len(found.labels or ())
    if found.task.task is not Task.CLASSIFY or not is_taken or count < _FEWEST_FEATURES:
        return
    if found.words.outputs.scores == "logits" and len(names) > 1:
        raise SourceError(
            f"{signs.file} gives {count} raw numbers, and the data has {len(names)} classes ({first_labels(names)}), "
            "so they may be an embedding, which is not served; write `task: {task: classify}` and `labels` only if its "
            "numbers are scores of classes"
        )


def _may_show_several(found: Recognition, signs: FileSigns) -> bool:
    """Tells whether a classifier gives each label a probability of its own, so that they need not compete."""
    if found.task.task is not Task.CLASSIFY or found.task.multi_label:
        return False
    names = found.words.outputs.names or ()
    own = found.words.outputs.scores == "sigmoid"
    return any(
        output.tensor.name in names
        and (own or output.made_by in ("Sigmoid", "HardSigmoid"))
        and (output.shape[0] or 0) > 1
        for output in signs.outputs
    )


def _with_edits(found: Recognition, given: FileWords, written: dict[str, Any]) -> tuple[Recognition, tuple[str, ...]]:
    """Keeps what the user changed in the line `outputs` that `init` wrote: assumed words, and how boxes are suppressed.

    Words that the file's answers show are not kept, because another file may lie at the same path now.
    """
    edited = written.get("outputs")
    if not isinstance(edited, dict) or given.outputs != OutputWords():
        return found, ()
    assumed = {each.word.removeprefix("outputs.") for each in found.findings if each.origin == "assumed"}
    fresh = _plain(found.words.outputs.model_dump(exclude_none=True))
    mine = {
        word: edited[word]
        for word, value in fresh.items()
        if word in edited and edited[word] != value and (word in assumed or _are_settings(value, edited[word]))
    }
    if not mine:
        return found, ()
    try:
        words = OutputWords.model_validate({**fresh, **mine})
    except ValidationError as error:
        raise RecipeError(
            f"outputs.{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
        ) from error
    findings = tuple(
        SettledWord(each.word, str(mine[each.word.removeprefix("outputs.")]), "said", "by the recipe")
        if each.word.removeprefix("outputs.") in mine
        else each
        for each in found.findings
    )
    kept = tuple(f"your `outputs.{word}: {value}` is kept" for word, value in mine.items())
    return replace(found, words=found.words.model_copy(update={"outputs": words}), findings=findings), kept


def _are_settings(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)


def _value(text: str, key: str) -> Any:
    return _document(text)[key]


def _labels_beside(file: Path, count: int) -> list[str] | None:
    """Returns the names in the config.json that optimum writes beside its files; None without as many names."""
    try:
        given = orjson.loads((optimum_folder(file) / "config.json").read_bytes())["id2label"]
        names = [str(given[str(index)]) for index in range(count)]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_named = len(given) == count and not all(name.startswith("LABEL_") for name in names)
    return names if is_named and count else None


def _lines(found: Recognition, given: FileWords) -> dict[str, str]:
    """Returns a line for everything that the file does not say by itself."""
    lines: dict[str, str] = {}
    outputs = [each for each in found.findings if each.word.startswith("outputs.") and each.origin != "said"]
    if outputs:
        needs_names = any(each.word == "outputs.names" for each in found.findings) or given.outputs.names is not None
        words = found.words.outputs.model_dump(exclude_none=True, exclude=None if needs_names else {"names"})
        if isinstance(found.words.outputs.suppression, SuppressionWords):
            words["suppression"] = found.words.outputs.suppression.model_dump()
        if found.words.outputs.layout is None or words.get("objectness") is False:
            words.pop("objectness", None) if found.words.outputs.layout != "yolov5" else None
        lines["outputs"] = line("outputs", _plain(words), _mark(outputs, words.keys()))
    inputs = {each.word: each for each in found.findings if each.origin == "assumed"}
    if "value_range" in inputs:
        mean, std = found.normalisation.mean[0], found.normalisation.std[0]
        ends = [round(-mean / std, 6) + 0.0, round((1.0 - mean) / std, 6)]
        comment = "what black and white become" if found.task.task is not Task.IMAGE else inputs["value_range"].why
        lines["value_range"] = line("value_range", ends, f"assumed: {comment}")
    if "preprocess" in inputs and found.preprocess is not None:
        facts = found.preprocess.model_dump(mode="json", exclude={"width", "height"}, exclude_defaults=True)
        facts = {"fit": found.preprocess.fit, "channel_order": found.preprocess.channel_order, **facts}
        is_far = found.task.task is Task.IMAGE and found.preprocess.fit == "stretch" and found.task.picture != "depth"
        comment = inputs["preprocess"].why if is_far else "the file does not say how pictures are resized"
        lines["preprocess"] = line("preprocess", facts, f"assumed: {comment}")
    return lines


def _mark(findings: Iterable[SettledWord], written: Iterable[str]) -> str:
    """Says which words of the line are assumed and which were found; the rest is what the file says."""
    origins = {each.word.removeprefix("outputs."): each.origin for each in findings}
    assumed, found = ([word for word in origins if origins[word] == origin] for origin in ("assumed", "found"))
    if assumed:
        return f"assumed: {', '.join(assumed)}; the rest was found or said by the file"
    is_all = set(written) <= set(found)
    return "found by running it" if is_all else f"found by running it: {', '.join(found)}; said by the file: the rest"


def _rows_of_line(text: str, findings: Iterable[SettledWord]) -> tuple[SettledWord, ...]:
    """Returns rows for the words of the line `outputs` that follow from its layout, and that no row names yet."""
    words = _value(text, "outputs")
    named = {each.word for each in findings}
    why = f"by layout {words.get('layout')}"
    return tuple(
        SettledWord(f"outputs.{word}", str(value), "said", why)
        for word, value in words.items()
        if f"outputs.{word}" not in named
    )


def _plain(words: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in words.items()}


def _document(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _users_own(text: str) -> dict[str, Any]:
    """Returns the keys of a recipe without the lines that `init` wrote itself."""
    own = "".join(row for row in text.splitlines(keepends=True) if not any(mark in row for mark in OWN_MARKS))
    return _document(own) or {}


def _given_words(document: dict[str, Any]) -> FileWords:
    source = document.get("source")
    inside = {key: value for key, value in source.items() if key != "kind"} if isinstance(source, dict) else {}
    try:
        return FileWords.model_validate({**inside, **{key: document[key] for key in TOP_WORDS if key in document}})
    except ValidationError as error:
        first = error.errors()[0]
        place, first["loc"] = ".".join(map(str, first["loc"])), ("onnx", *first["loc"])
        raise RecipeError(f"{place}: {what_is_wrong(first)}") from error


def _with_range(given: FileWords, document: dict[str, Any]) -> FileWords:
    """Adds the range that the recipe's normalisation makes of black and white, averaged over the channels."""
    try:
        normalisation = Normalisation.model_validate(document["normalisation"])
    except (KeyError, ValidationError):  # a faulty section is named when the recipe is loaded
        return given
    mean, std = np.array(normalisation.mean), np.array(normalisation.std)
    low, high = float((-mean / std).mean()), float(((1.0 - mean) / std).mean())
    return given.model_copy(update={"value_range": (low, high)}) if low < high else given


def _with_recipes_own(
    findings: Iterable[SettledWord], document: dict[str, Any], beside: dict[str, dict[str, Any]]
) -> tuple[SettledWord, ...]:
    """Replaces what was assumed of pixels by what the recipe, or the configuration beside the file, says of them."""
    sections = {"preprocess": "preprocess", "value_range": "normalisation"}

    def chosen(each: SettledWord) -> SettledWord:
        section = sections.get(each.word, "")
        given = document.get(section)
        if not isinstance(given, dict):
            return each
        why = f"by {CONFIG} beside the file" if section in beside else "by the recipe"
        return SettledWord(section, ", ".join(f"{key} {value}" for key, value in given.items()), "said", why)

    return tuple(chosen(each) for each in findings)


def _size(document: dict[str, Any]) -> tuple[int, int] | None:
    given = document.get("preprocess")
    sides = (given.get("width"), given.get("height")) if isinstance(given, dict) else (None, None)
    return (sides[0], sides[1]) if isinstance(sides[0], int) and isinstance(sides[1], int) else None


def _pictures(data: Path) -> list[Picture]:
    """Returns the first few readable pictures; unreadable ones are reported when the data is loaded."""
    found: list[Picture] = []
    for path in pictures_below(data, Findings()):
        if len(found) == _PICTURES:
            break
        try:
            with Image.open(path) as image:
                found.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return found
