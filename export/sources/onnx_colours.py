"""Measures what black and white are for a file that makes pictures, where neither it nor the recipe says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_signs import FileSigns, answers_to
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import TaskSpec

Range = tuple[float, float]
Pair = tuple[NDArray[np.uint8], NDArray[np.float32]]  # a picture (h, w, 3), and its target from 0 to 1
USUAL_RANGES: tuple[Range, ...] = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
_CLEAR = 1.1  # times the smallest error: what others must exceed


@dataclass(frozen=True, slots=True)
class MeasuredRange:
    """The range that was taken, of pixels and answers alike unless the recipe says `values`, and why."""

    chosen: Range
    is_clear: bool  # False: another range is about as good
    why: str


def distance(answers: NDArray[Any], read_as: Range, targets: NDArray[np.float32]) -> float:
    """The mean distance of answers from targets from 0 to 1, if black and white are the ends of a range."""
    low, high = read_as
    return float(np.abs(np.clip((answers - low) / (high - low), 0.0, 1.0) - targets).mean())


def measured_range(
    path: Path,
    signs: FileSigns,
    words: FileWords,
    spec: TaskSpec,
    pairs: Sequence[Pair],
    values: Range | None,
    how: str,
) -> MeasuredRange:
    """Compares answers with targets for each usual range. values: what the recipe says of the answers.

    how: what the targets are, such as "their targets".

    A range is clearly the best where all others are worse by a tenth. Where [0, 1] is no worse than that it stays
    assumed, as for every ONNX file; else SourceError is raised.
    """
    pictures, targets = _cut(pairs, signs.probed, spec.scale)
    name = (words.outputs.names or ("",))[0]
    index = next(number for number, each in enumerate(signs.outputs) if each.tensor.name == name)
    errors: dict[Range, float] = {}
    for each in USUAL_RANGES:
        raw = answers_to(path, signs, words.model_copy(update={"value_range": each}), pictures)[index]
        errors[each] = distance(_planes(raw), values or each, targets)
    best = min(errors, key=lambda each: errors[each])
    figures = ", ".join(f"{_shown(each)} {error:.4f}" for each, error in errors.items())
    why = f"mean distance of {len(pictures)} answers from {how}: {figures}"
    near = [each for each in USUAL_RANGES if errors[each] <= _CLEAR * errors[best]]
    if near == [best]:
        return MeasuredRange(best, True, why)
    if USUAL_RANGES[0] in near:
        return MeasuredRange(USUAL_RANGES[0], False, why)
    raise SourceError(
        f"{signs.file} does not say what black and white are, and no usual range is clearly the best ({why}): write "
        "`value_range: [low, high]` for the pixels that it takes, such as [0, 255], and `values: [low, high]` in "
        "`task` if its answers have another range"
    )


def _cut(pairs: Sequence[Pair], size: tuple[int, int], scale: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cuts or pads pictures to the file's size, and targets to `scale` times that, with one plane per channel."""
    width, height = size
    pictures = np.stack([_at_size(picture, width, height) for picture, _ in pairs])
    targets = np.stack([_at_size(_channels(target), width * scale, height * scale) for _, target in pairs])
    return pictures, targets


def _at_size(pixels: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    missing = [(0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0)]
    return np.pad(pixels, missing, mode="edge")[:height, :width]


def _channels(target: NDArray[np.float32]) -> NDArray[np.float32]:
    return target if target.ndim == 3 else target[..., np.newaxis]


def _planes(raw: NDArray[Any]) -> NDArray[Any]:
    """(n, h, w, channels)"""
    if raw.ndim == 3:
        return raw[..., np.newaxis]
    return raw if raw.shape[3] in (1, 3) else raw.transpose(0, 2, 3, 1)


def _shown(ends: Range) -> str:
    return f"[{ends[0]:g}, {ends[1]:g}]"
