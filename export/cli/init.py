"""Implements `saccade-export init`, which writes or updates a checkpoint's recipe and keeps lines that users wrote."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from saccade.export.cli.init_asked import asked_lines, gap_lines
from saccade.export.cli.init_measured import measured
from saccade.export.cli.init_onnx import NAMELESS, SEVERAL, SettledWords, existing_text, settled_words
from saccade.export.cli.recipe_text import first_labels, line, replaced_values, updated
from saccade.export.data.findings import Findings
from saccade.export.data.folder_data import split_sources
from saccade.export.data.found_files import folders_in, pictures_below
from saccade.export.data.label_tables import LABEL_TABLE, table_labels
from saccade.export.data.split_sources import split_folder_names
from saccade.export.data.unlabelled import parts_without_labels
from saccade.export.data.yolo_boxes import yolo_path
from saccade.export.errors import DataRefused, ExportError, RecipeError, SourceError
from saccade.export.recipe import FolderData, LoadedRecipe, Recipe, load_recipe
from saccade.export.sources import source_facts
from saccade.export.sources.catalogue import library_names
from saccade.export.sources.class_count import class_count
from saccade.export.sources.names import generic_labels, near_names
from saccade.export.sources.onnx_recognition import SettledWord
from saccade.export.sources.onnx_words import TOP_WORDS
from saccade.export.sources.pickles import refuse_pickle
from saccade.export.sources.specs import SourceSpec
from saccade.export.sources.weights import shapes_of
from saccade.models.contract.specs import Task
from saccade.service.errors import SaccadeError

_SOURCE: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)
_USERS_OWN = frozenset({*Recipe.model_fields, *TOP_WORDS} - {"source", "weights", "data"})
_SEVERAL_WHY = f"found in the data: {LABEL_TABLE}"
_SEVERAL_LABELS = line("task", {"multi_label": True}, _SEVERAL_WHY)
_GUESS = (
    "the answers are no better than guessing, so look at them first (`--show` draws them): the labels' order, or how "
    "pixels are made (`preprocess`, `value_range`), is wrong, or the data shows something else"
)
_GUESS_PICTURE = (
    "the answers are no better than guessing, so look at them first (`--show` draws them): how pixels are made "
    "(`preprocess`, `value_range`, `values` in `task`) is wrong, the pictures lack something else than what the "
    "network mends, such as other noise, or it mends nothing"
)
_MEND = "mend what stands beside `proposed`, then run this command again"
_WITH_CLASS_COUNT = ("timm", "torchvision")


@dataclass(frozen=True, slots=True)
class NewRecipe:
    """A recipe that was written, with every fact that its source filled in."""

    loaded: LoadedRecipe
    text: str
    findings: tuple[SettledWord, ...] = ()  # for ONNX files: each word that was settled, and where it comes from
    hint: str = ""  # what to do first, where `check` and `run` would only fail
    before: str = ""  # the recipe's text before it was updated
    kept: tuple[str, ...] = ()  # a sentence per value that the user changed in a line of `init`, and that stays

    @property
    def edits(self) -> tuple[str, ...]:
        """Says what became of values that the user may have changed in lines that `init` wrote earlier."""
        return (*self.kept, *replaced_values(self.before, self.text))


def write_recipe(
    checkpoint: Path | None, source: str | None, data: Path, out: Path, *, is_unlabelled: bool = False
) -> NewRecipe:
    """Writes source, weights and data to `out`, and labels when only the data names them; the source knows the rest.

    is_unlabelled: also writes that nobody judges the answers, since the pictures have no labels.

    An existing recipe is updated: source, weights, data and lines that `init` wrote are replaced, and the user's own
    lines stay. Raises RecipeError when `out` is no recipe or what it says contradicts the source, SourceError when no
    source takes the checkpoint, and DataRefused for data that cannot be read; `out` is unchanged then. Where a new
    recipe only lacks what nobody said, the error has a note: the lines with what to add.
    """
    if not data.is_dir():
        raise RecipeError(
            f"--data {data} is no directory; name the one with your pictures. In it are a folder per label for a "
            "classifier, annotations.json or data.yaml for a detector, masks for a segmenter (export/README.md)"
        )
    source = source or recognised(checkpoint)
    spec = _spec(source)
    earlier = before = existing_text(out)
    document = _document(checkpoint, source, spec, data, out.parent)
    if is_unlabelled:
        document["gate"] = {"mode": "parity"}
    said = {} if before is None else yaml.safe_load(before).get("data")
    if isinstance(said, dict) and isinstance(said.get("path"), str):  # limits and noise beside the path are the user's
        document["data"] = {**said, "path": document["data"]}
        if (out.parent / said["path"]).resolve() == data.resolve():
            del document["data"]  # the section stays as it is written
    lines = {key: line(key, value) for key, value in document.items()}
    findings: tuple[SettledWord, ...] = ()
    kept: tuple[str, ...] = ()
    if spec.kind == "onnx" and checkpoint is not None:
        settled = _settled(checkpoint, data, before, lines, out)
        lines, findings = lines | settled.lines, settled.findings
        before, kept = settled.before, settled.kept
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        new = _written(lines, before, out)
        table = _label_table(data)
        if (
            table is not None
            and new.loaded.recipe.task.task is Task.CLASSIFY
            and "task" not in yaml.safe_load(new.text)
        ):
            lines["task"] = _SEVERAL_LABELS
            new = _written(lines, before, out)
        labels = _data_labels(data, table, new.loaded.recipe)
        if labels is not None:
            new = _written(lines | {"labels": line("labels", labels)}, before, out)
        if is_unlabelled and new.loaded.recipe.gate.mode != "parity":
            raise RecipeError(f"{out} has a `gate` of its own: add `mode: parity` to it, or leave --unlabelled out")
        if new.loaded.recipe.task.multi_label:  # as the data says, so one label is not assumed
            findings = tuple(each for each in findings if each.word != SEVERAL or each.origin != "assumed")
        if new.loaded.recipe.labels != generic_labels(len(new.loaded.recipe.labels)):
            findings = tuple(each for each in findings if each.why != NAMELESS)
        hint = _without_labels(new.loaded, checkpoint, source, data, out)
        return replace(new, findings=findings, hint=hint, before=earlier or "", kept=kept)
    except BaseException as error:
        out.unlink(missing_ok=True) if earlier is None else out.write_text(earlier)
        gaps = gap_lines(str(error)) if before is None and isinstance(error, RecipeError) else ()
        if not gaps:
            raise
        missing = str(error).removeprefix(f"{out}: ")
        refusal = RecipeError(f"no recipe is written, because the source does not say everything: {missing}")
        refusal.add_note(_pasted(out, [*lines.values(), *gaps]))
        raise refusal from error


def with_proposal(new: NewRecipe, out: Path) -> tuple[NewRecipe, tuple[str, ...]]:
    """Adds limits, and readings of pixels, that the network's own answers suggest; returns a reason for each.

    Returns the recipe unchanged when nothing can be proposed. Side effects: runs the network on tuning pictures and
    adds lines to `out`.
    """
    if new.loaded.recipe.weights is None:
        return new, ()
    if new.hint:
        return new, ("nothing: that needs labels",)
    try:
        readings, found = measured(new.loaded, new.text, new.findings)
    except (ExportError, SaccadeError) as error:
        return replace(new, hint=_MEND), (f"nothing: {error}",)
    if found.is_guess:
        new = replace(new, hint=_GUESS_PICTURE if new.loaded.recipe.task.task is Task.IMAGE else _GUESS)
    known, text = yaml.safe_load(new.text), readings.text
    for name, section in found.lines.items():
        if name not in known:
            text += line(name, section)
        else:  # only a line that this program wrote about the data is made longer
            text = text.replace(_SEVERAL_LABELS, line(name, {"multi_label": True, **section}, _SEVERAL_WHY))
    new, sentences = replace(new, findings=readings.findings), (*readings.sentences, *found.sentences)
    if text == new.text:
        return new, sentences
    out.write_text(text)
    return replace(new, loaded=load_recipe(out), text=text), sentences


def write_page(new: NewRecipe, path: Path) -> Path:
    """Writes the first pictures with the network's answers as one HTML page. Raises ExportError when it cannot run."""
    # imported here because drawing and torch are needed only for the page
    from saccade.export.reports.first_answers import first_answers_page

    path.write_text(first_answers_page(new.loaded, summary(new.loaded), new.findings), "utf-8")
    return path


def recognised(checkpoint: Path | None) -> str:
    """Returns the source that takes a checkpoint.

    Raises SourceError naming candidates when the checkpoint does not say.
    """
    if checkpoint is None:
        raise SourceError("name a checkpoint, or a network with --source, such as --source timm/resnet50")
    if not checkpoint.exists():
        raise SourceError(f"cannot read {checkpoint}: there is no such file or directory")
    refuse_pickle(checkpoint)
    if checkpoint.suffix in (".onnx", ".pt2"):
        return checkpoint.suffix.removeprefix(".")
    if (checkpoint / "config.json").is_file():
        return _library_of(checkpoint / "config.json")
    shapes_of(checkpoint)  # refuses a pickle, or a file that is no checkpoint, with its reason
    near = [
        f"{library}/{name}"
        for library in _WITH_CLASS_COUNT
        for name in near_names(checkpoint.stem.partition("-")[0], library_names(library), 3)
    ]
    hint = f" Names like this file's: {', '.join(near)}." if near else ""
    raise SourceError(
        f"{checkpoint.name} holds tensors but not the name of their network; say it with --source.{hint} "
        "`saccade-export sources PATTERN` lists all"
    )


def summary(loaded: LoadedRecipe) -> dict[str, str]:
    """Returns by name what was understood of the recipe, as people read it."""
    recipe = loaded.recipe
    labels, task = recipe.labels, recipe.task
    pixels = recipe.preprocess.model_dump(exclude_defaults=True, exclude={"width", "height"})
    return {
        "model": recipe.model,
        "task": recipe.task.task,
        "input": f"{recipe.preprocess.width}x{recipe.preprocess.height}",
        "resize": _inline(pixels),
        "normalisation": f"mean {recipe.normalisation.mean}, std {recipe.normalisation.std}",
        **(
            {"answer": f"{task.picture}{f', {task.scale} times as large' if task.scale > 1 else ''}"}
            if task.task is Task.IMAGE
            else {"labels": f"{len(labels)} ({first_labels(labels)})"}
        ),
        "weights": recipe.weights or "random: the gate refuses them unless it says allow_random_weights",
    }


def _written(lines: Mapping[str, str], before: str | None, out: Path) -> NewRecipe:
    text = "".join(lines.values()) if before is None else updated(before, lines, _USERS_OWN)
    out.write_text(text)
    return NewRecipe(load_recipe(out), text)


def _label_table(data: Path) -> Path | None:
    """Returns the first table that gives each picture several labels."""
    return next(iter(sorted(data.glob(LABEL_TABLE)) or sorted(data.glob(f"*/{LABEL_TABLE}"))), None)


def _data_labels(data: Path, table: Path | None, recipe: Recipe) -> list[str] | None:
    """Returns the table's labels or the sorted class folders when the classes have no names of their own."""
    found = Findings()  # unused: `check` reports what is wrong with the data
    splits = split_folder_names([folder.name for folder in folders_in(data, found)], (), str(data)).values()
    roots = [data / name for name in splits] or [data]
    names = sorted({folder.name for root in roots for folder in folders_in(root, found)})
    names = names if table is None else table_labels(table)
    is_nameless = recipe.labels == generic_labels(len(recipe.labels))
    is_fitting = recipe.task.task is Task.CLASSIFY and len(names) == len(recipe.labels)
    return names if is_nameless and is_fitting else None


def _settled(checkpoint: Path, data: Path, before: str | None, lines: Mapping[str, str], out: Path) -> SettledWords:
    """Settles the words of an ONNX file. A refusal that asks for words comes with a note: a recipe that has them."""
    try:
        return settled_words(checkpoint, data, before)
    except SourceError as error:
        asked = asked_lines(checkpoint, data, "".join(lines.values()), str(error)) if before is None else ()
        if asked:
            error.add_note(_pasted(out, [*lines.values(), *asked]))
        raise


def _pasted(out: Path, lines: Iterable[str]) -> str:
    return f"write this to {out}, then run the same command again:\n{''.join(lines).rstrip()}"


def _without_labels(loaded: LoadedRecipe, checkpoint: Path | None, source: str, data: Path, out: Path) -> str:
    """Returns what to do about pictures of which none has a label although the gate asks for them, else nothing."""
    recipe = loaded.recipe
    spec = recipe.data
    if (
        not recipe.gate.needs_labels
        or not isinstance(spec, FolderData)
        or (recipe.task.task.has_boxes and yolo_path(data))
    ):
        return ""
    task, several = recipe.task.task, recipe.task.multi_label
    if task is Task.IMAGE and recipe.task.picture != "depth" and (spec.noise or recipe.task.scale > 1):
        return ""  # pictures are made worse here, and are the targets themselves
    try:
        splits = split_sources(task, recipe.labels, data, Findings())
    except DataRefused:  # `check` says what is wrong
        return ""
    parts = {split.folder: data / split.folder for split in splits.values()}
    if not parts_without_labels(task, parts, recipe.labels, spec.order == "sorted", multi_label=several):
        return ""
    if not any(pictures_below(root, Findings()) for root in parts.values()):
        return ""
    if task is Task.CLASSIFY and not several:
        shown = sorted({folder.name for root in parts.values() for folder in folders_in(root, Findings())})
        if len(shown) not in (0, len(recipe.labels)):
            whose = "the network" if checkpoint is None else checkpoint.name
            return (
                f"{data} has {len(shown)} classes ({first_labels(shown)}), and {whose} {len(recipe.labels)} "
                f"({first_labels(recipe.labels)}): name them in `labels`, in the file's order, as the folders are named"
            )
    if task is Task.IMAGE:
        pairs = f"save pairs as {data}/input/NAME.png and {data}/target/NAME.png"
        noise = f"write `data: {{path: {spec.path}, noise: 25}}` in {out} for a denoiser, which adds noise of 25 levels"
        return f"{data} has no targets: {pairs}" + ("" if recipe.task.picture == "depth" else f", or {noise}")
    words = [str(checkpoint)] if checkpoint is not None else []
    words += [] if checkpoint is not None and checkpoint.suffix in (".onnx", ".pt2") else ["--source", source]
    again = shlex.join(["saccade-export", "init", *words, "--data", str(data), "--out", str(out), "--unlabelled"])
    return f"{data} has no labels in a layout that is read (export/README.md); add them, or take it as it is: {again}"


def _document(checkpoint: Path | None, source: str, spec: SourceSpec, data: Path, base: Path) -> dict[str, Any]:
    document: dict[str, Any] = {"source": source}
    if checkpoint is not None:
        document["weights"] = _relative(checkpoint, base)
        classes = _class_count(spec, checkpoint)
        if classes is not None:
            kind, _, name = source.partition("/")
            named = {"kind": kind, "name": name} if name else {"kind": kind}
            document["source"] = {**named, "arguments": {"num_classes": classes}}
    document["data"] = _relative(data, base)
    return document


def _spec(source: str) -> SourceSpec:
    try:
        return _SOURCE.validate_python(source)
    except ValidationError as error:
        raise RecipeError(f"--source {source}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def _class_count(spec: SourceSpec, checkpoint: Path) -> int | None:
    if spec.kind not in _WITH_CLASS_COUNT:
        return None
    return class_count(spec, checkpoint, source_facts(spec, checkpoint))


def _library_of(config: Path) -> str:
    try:
        document = json.loads(config.read_bytes())
    except ValueError as error:
        raise SourceError(f"{config} is not JSON: {error}") from error
    if isinstance(document, dict) and "architecture" in document:
        return f"timm/{document['architecture']}"
    if isinstance(document, dict) and {"architectures", "model_type"} & set(document):
        return "transformers"
    raise SourceError(
        f"{config} has neither `architecture` (timm) nor `architectures` (transformers); say the network with --source"
    )


def _relative(path: Path, base: Path) -> str:
    """Returns the path relative to `base`, the folder of the recipe."""
    return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
