"""Tells outputs that have the shape of a served kind and hold something else, such as depth, keypoints or an embedding.

Only files whose task is told by shapes alone are looked at: a recipe that says `task` is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import sum_to_one
from saccade.export.sources.onnx_masks import has_proportions, is_channels_last
from saccade.export.sources.onnx_pairs import words_of
from saccade.export.sources.onnx_signs import FileSigns, OutputSign
from saccade.models.contract.specs import Normalisation, PictureKind, PreprocessSpec, Task

_DEPTH, _KEYPOINTS, _EMBEDDING = "depth per pixel", "keypoints", "an embedding"
_AMOUNT, _ANGLES, _AGE = "an amount per pixel", "angles", "an age"
_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("depth", "depths", "disp", "disparity"), _DEPTH),
    **dict.fromkeys(
        ("keypoint", "keypoints", "kpt", "kpts", "landmark", "landmarks", "heatmap", "heatmaps"), _KEYPOINTS
    ),
    **dict.fromkeys(("simcc", "joints", "pose", "poses"), _KEYPOINTS),
    **dict.fromkeys(("embedding", "embeddings", "embed", "embeds", "descriptor", "descriptors"), _EMBEDDING),
    **dict.fromkeys(("feature", "features", "feat", "feats", "hidden", "pooler"), _EMBEDDING),
    **dict.fromkeys(("importance", "attention", "normals", "flow", "density"), _AMOUNT),
    **dict.fromkeys(("yaw", "pitch", "roll", "gaze", "angle", "angles"), _ANGLES),
    "age": _AGE,
}
_PICTURES: Mapping[str, PictureKind] = {"depth": "depth", "a picture": "rgb"}  # by what an output is taken for
_PROBABILITIES = frozenset(("Softmax", "Sigmoid", "HardSigmoid", "LogSoftmax"))
_CHOICES = frozenset(("Softmax", "LogSoftmax"))
_WIDTHS = frozenset((128, 192, 256, 320, 384, 512, 576, 640, 768, 960, 1024, 1280, 1536, 2048))  # of networks' features
_FEWEST = 10  # numbers of which none is negative by chance
_COARSEST, _FINEST = 16.5, 0.75  # pixels of the picture per cell of a mask: transformers patches, rounding
_ALIKE = 0.8  # correlation with the picture's own channels
_SLACK = 1e-2
_MOST = 0.9  # share of vectors, or of pixels
_PEAK, _FLOOR = 0.3, 0.05  # of a heat map, and of nearly all that lies around its peaks


class Unrecognised(SourceError):
    """The outputs do not tell the task; facts about the input are known all the same."""

    preprocess: PreprocessSpec | None = None
    normalisation: Normalisation | None = None


def ensure_no_other_kind(signs: FileSigns, outputs: tuple[OutputSign, ...], task: Task) -> None:
    """Raises Unrecognised for outputs that only have the shape of `task`'s."""
    instead = _other_kind(signs, outputs, task)
    if instead:
        is_map = task is Task.DETECT and instead.startswith(_AMOUNT)
        remedy = (
            "outputs.layout if its rows are boxes"
            if task is Task.DETECT
            else f"`task: {{task: {task}}}` and `labels` only if its numbers are scores of classes"
        )
        remedy += ", or export it as (batch, 1, h, w) if it is a mask of the foreground" if is_map else ""
        if task is Task.CLASSIFY and instead.startswith(_EMBEDDING):
            raise Unrecognised(
                f"{signs.file} has the shape of task: {task}, but gives {instead}; write `task: {{task: embed}}` for "
                f"its vectors, or {remedy}"
            )
        kind = next((kind for start, kind in _PICTURES.items() if start in instead), None)
        if kind is not None:
            raise Unrecognised(
                f"{signs.file} has the shape of task: {task}, but gives {instead}; write `task: "
                f"{{task: image, picture: {kind}}}` for that, or {remedy}"
            )
        raise Unrecognised(
            f"{signs.file} has the shape of task: {task}, but gives {instead}, which is not served; write {remedy}"
        )


def shows_classes(signs: FileSigns, output: OutputSign) -> bool:
    """Whether scores or class numbers are more than numbers of that shape: labels, whole numbers or one choice each."""
    values = output.values
    if signs.labels is not None or "int" in output.tensor.type or output.made_by == "LogSoftmax" or values is None:
        return values is not None
    axis = values.ndim - 1 if is_channels_last(signs, output) else 1
    return sum_to_one(values, axis)


def _other_kind(signs: FileSigns, outputs: tuple[OutputSign, ...], task: Task) -> str:
    """Returns what the outputs are instead, as "depth per pixel: its name ..."; empty where nothing tells it."""
    first = outputs[0]
    named = [_WORDS[word] for word in words_of(first.tensor.name) if word in _WORDS]
    if named and (task is not Task.DETECT or len(outputs) == 1):
        return f"{named[0]}, as the name of {first} says"
    if first.values is None or first.values.dtype.kind != "f" or not first.values.size:
        return ""
    match task:
        case Task.CLASSIFY:
            return _instead_of_scores(signs, first, first.values.reshape(len(first.values), -1))
        case Task.SEGMENT:
            return _instead_of_masks(signs, first) if first.values.ndim == 4 else ""
        case Task.DETECT if len(outputs) == 1 and first.values.ndim == 3:
            return _instead_of_rows(signs, first, first.values)
    return ""


def _instead_of_scores(signs: FileSigns, output: OutputSign, values: NDArray[Any]) -> str:
    """values: (pictures, columns)."""
    columns = values.shape[1]
    if output.made_by in _PROBABILITIES:
        return ""
    if output.tensor.shape[1:] == (None,) and signs.signature.size is None:
        return f"a sequence: {output} has as many numbers as the picture's size makes of it"
    if columns >= _FEWEST and np.all(np.abs(np.linalg.norm(values, axis=1) - 1.0) <= _SLACK) and values.min() < 0:
        return f"{_EMBEDDING}: the vectors of {output} have the length 1"
    if columns in _WIDTHS and not sum_to_one(values, 1):
        return f"{_EMBEDDING}, or {columns} classes: {output} is raw, and as wide as features are"
    if columns >= _FEWEST and values.min() >= 0 and not sum_to_one(values, 1):
        return f"positions or amounts, or classes: none of the numbers of {output} is negative, as raw scores would be"
    return ""


def _instead_of_masks(signs: FileSigns, output: OutputSign) -> str:
    assert output.values is not None
    values = output.values
    if is_channels_last(signs, output):
        values = values.transpose(0, 3, 1, 2)
    channels, height, width = values.shape[1:]
    across = signs.probed[0] / width
    if not has_proportions(signs, width, height):
        return f"no mask of the picture: {output} has other proportions than pictures of {_size(signs)}"
    if across < _FINEST:
        return f"a picture: {output} is larger than pictures of {_size(signs)}, as enlarged ones are"
    if across > _COARSEST:
        down = signs.probed[1] / height
        return f"features: a cell of {output} stands for {across:.0f}x{down:.0f} pixels"
    if channels == 1:
        return ""
    if output.made_by == "Tanh":
        return f"colours or directions: the graph of {output} ends in Tanh"
    if values.min() >= 0 and values.max() > 1.0 + _SLACK:
        return f"features or amounts: none of the numbers of {output} is negative, as raw scores would be"
    if np.mean(np.abs(np.linalg.norm(values, axis=1) - 1.0) <= _SLACK) >= _MOST and values.min() < 0:
        return f"directions or {_EMBEDDING} per pixel: the vectors of {output} have the length 1"
    if channels == 3 and _resembles(values, signs.pictures):
        return f"a picture: the three channels of {output} follow those of the input"
    most = values.max(1)
    if values.min() >= -0.5 and _PEAK <= most.max() <= 1.5 and np.mean(most < _FLOOR) >= _MOST:
        return f"{_KEYPOINTS}, or masks that do not compete: nearly everywhere all channels of {output} are 0"
    return ""


def _instead_of_rows(signs: FileSigns, output: OutputSign, values: NDArray[Any]) -> str:
    """values: (pictures, rows, columns)."""
    if output.made_by in _CHOICES or sum_to_one(values, 2) or sum_to_one(values, 1):
        return f"a sequence: every row of {output} is one choice, as a text recogniser's are"
    rows, columns = values.shape[1:]
    if has_proportions(signs, columns, rows) and _FINEST <= signs.probed[0] / columns <= _COARSEST:
        return f"{_AMOUNT}, such as depth: {output} has the proportions of the picture"
    if min(rows, columns) <= 4:
        return f"{_KEYPOINTS} or bare boxes: {output} has {min(rows, columns)} numbers each"
    return ""


def _resembles(values: NDArray[Any], pictures: NDArray[Any]) -> bool:
    """Whether each channel goes with one of the input's; values: (count, 3, h, w), pictures: (count, H, W, 3)."""
    height, width = values.shape[2:]
    rows = np.arange(height) * pictures.shape[1] // height
    columns = np.arange(width) * pictures.shape[2] // width
    small = pictures[:, rows][:, :, columns].transpose(3, 0, 1, 2).reshape(3, -1).astype(np.float64)
    found = values.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    if (small.std(1) == 0).any() or (found.std(1) == 0).any():
        return False
    likeness = np.corrcoef(small, found)[:3, 3:]
    straight, swapped = likeness.diagonal().min(), likeness[::-1].diagonal().min()  # swapped: blue comes first
    return bool(max(straight, swapped) >= _ALIKE)


def _size(signs: FileSigns) -> str:
    width, height = signs.probed
    return f"{width}x{height}"
