"""Settles for `init` what an ONNX file that makes pictures leaves open: ranges and fit, by running it on pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in
from saccade.export.data.picture_pairs import has_targets, pair_pictures, target_of
from saccade.export.errors import DataRefused
from saccade.export.sources.onnx_colours import Pair, measured_range
from saccade.export.sources.onnx_pictures import picture_pixels
from saccade.export.sources.onnx_recognition import Recognition, SettledWord, range_normalisation
from saccade.export.sources.onnx_signs import FileSigns
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import TaskSpec
from saccade.service.errors import SaccadeError
from saccade.service.vision.image_decoder import USUAL_LIMITS, decode_image

_PICTURES = 8
_NOISE = 25.0  # levels, where the recipe does not say how noisy the pictures are that the network restores


def settled_picture(
    file: Path, signs: FileSigns, given: FileWords, found: Recognition, data: Path, document: dict[str, Any]
) -> Recognition:
    """given: the recipe's words. Raises SourceError where ranges that nobody says cannot be told apart."""
    if found.task.picture != "depth":
        found = _with_range(file, signs, given, found, data, document)
    preprocess, note = picture_pixels(file, signs, found.words, found.task, found.preprocess)
    text = f"{preprocess.width}x{preprocess.height} {preprocess.fit}, {preprocess.channel_order}"
    findings = tuple(
        replace(each, value=text, why=note or each.why) if each.word == "preprocess" else each
        for each in found.findings
    )
    if note and all(each.word != "preprocess" for each in findings):
        findings = (*findings, SettledWord("preprocess", text, "found", note))
    return replace(found, preprocess=preprocess, findings=findings)


def _with_range(
    file: Path, signs: FileSigns, given: FileWords, found: Recognition, data: Path, document: dict[str, Any]
) -> Recognition:
    said = _said_values(document.get("task"))
    values = said or found.task.values
    spec, findings = found.task.model_copy(update={"values": values}), found.findings
    why = "by the recipe" if said else "by the sign and size of some answers; write `values` in `task` if it is wrong"
    if given.value_range is None and signs.pixels.value_range is None:
        pairs, how = _pairs(data, spec, document)
        if pairs:
            measured = measured_range(file, signs, found.words, spec, pairs, said, how)
            low, high = measured.chosen
            spec = spec.model_copy(update={"values": said or measured.chosen})
            found = replace(
                found,
                words=found.words.model_copy(update={"value_range": measured.chosen}),
                normalisation=range_normalisation(low, high),
            )
            way = f"{'clearly the best' if measured.is_clear else 'not clearly the best'} by {measured.why}"
            findings = tuple(
                replace(each, value=str([low, high]), why=way) if each.word == "value_range" else each
                for each in findings
            )
            why = why if said else "as value_range; write `values` in `task` if its answers have another range"
    row = SettledWord("task.values", str(list(spec.values)), "said" if said else "assumed", why)
    return replace(found, task=spec, findings=(*findings, row))


def _said_values(task: object) -> tuple[float, float] | None:
    """What the recipe says of answers; faulty values are named when the recipe is loaded."""
    values = task.get("values") if isinstance(task, dict) else None
    if not isinstance(values, list) or len(values) != 2 or not all(isinstance(each, int | float) for each in values):
        return None
    return (float(values[0]), float(values[1])) if values[0] < values[1] else None


def _pairs(data: Path, spec: TaskSpec, document: dict[str, Any]) -> tuple[list[Pair], str]:
    """Returns the first readable pictures with their targets, and what the targets are.

    Pictures without targets are their own, and made worse as the recipe says.
    """
    roots = [root for root in (data, *folders_in(data, Findings())) if has_targets(root)]
    section = document.get("data")
    said = section.get("noise") if isinstance(section, dict) else None
    noise = float(said) if isinstance(said, int | float) else 0.0 if spec.scale > 1 else _NOISE
    worse = f"{spec.scale} times smaller" if spec.scale > 1 else f"with noise of {noise:g} levels"
    how = "their targets" if roots else f"the pictures themselves, which were sent {worse}"
    found: list[Pair] = []
    for root in roots or [data]:
        try:
            pictures = pair_pictures({"": root}, spec, 0.0 if roots else noise, Findings())[""]
        except DataRefused:  # `check` says what is wrong
            continue
        for path, truth in pictures:
            if len(found) == _PICTURES:
                return found, how
            try:
                encoded = path.read_bytes()
                picture = decode_image(encoded, USUAL_LIMITS)
                sample = truth.sample(path, encoded, (picture.shape[1], picture.shape[0]))
                found.append((decode_image(sample.encoded, USUAL_LIMITS), target_of(sample, spec, USUAL_LIMITS)))
            except (OSError, DataRefused, SaccadeError):  # `check` names it
                continue
    return found, how
