"""The pictures that travel with a version, and each variant's answers to them: a server repeats them before it serves.

`replay.npz` holds arrays only, so that reading it runs no code: `images` (n, height, width, 3) uint8 as the network
takes them, and for each variant the tensors of its answer, as ONNX Runtime computed them at the export.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import Task

REPLAY_FILE = "replay.npz"
MOST_PICTURES = 4
_MOST_BYTES = 8 * 1024 * 1024  # of pictures and answers; a version has at least one picture
# The largest relative difference by precision. Other instruction sets and runtimes add in another order, which changes
# fp32 by some 1e-6 to 1e-4; half precision rounds at 1e-3 a layer; int8 is rounded to other steps, or saturates, where
# a processor multiplies otherwise. A wrong kernel, layout or file gives differences near 1.
_TOLERANCES = {"fp32": 1e-2, "fp16": 1e-1, "bf16": 1e-1, "int8": 0.25, "fp8": 0.25}
_CONFIDENT = 0.25  # rounding decides about rows below this score
_OTHER_CLASS = 1e6  # distance in pixels that makes a row of another class the last choice
_SCORES, _CLASS_IDS = 1, 2  # tensors of a detector's answer; boxes come before, counts after

Arrays = Sequence[NDArray[Any]]


class ReplayDamaged(Exception):
    """The file cannot be read."""


def picture_count(bytes_per_picture: int) -> int:
    """Returns how many pictures to record, given the size of one with all its answers."""
    return max(1, min(MOST_PICTURES, _MOST_BYTES // max(1, bytes_per_picture)))


def replay_bytes(images: NDArray[np.uint8], answers: Mapping[str, Arrays]) -> bytes:
    """Encodes pictures and the answers to them by variant."""
    arrays: dict[str, NDArray[Any]] = {"images": images}
    for variant, tensors in answers.items():
        arrays |= {f"{variant}/{index}": tensor for index, tensor in enumerate(tensors)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no dict of arrays
    return buffer.getvalue()


def read_replay(raw: bytes, variant: str) -> tuple[NDArray[np.uint8], list[NDArray[Any]]]:
    """Returns the pictures, and a variant's answers to them: empty where none were recorded. Raises ReplayDamaged."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            names = [name for name in file.files if name.startswith(f"{variant}/")]
            images, answers = file["images"], [file[f"{variant}/{index}"] for index in range(len(names))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ReplayDamaged(f"{REPLAY_FILE} is damaged ({error}); publish the version again") from error
    if not len(images) or any(len(tensor) != len(images) for tensor in answers):
        raise ReplayDamaged(f"{REPLAY_FILE} does not hold one answer per picture; publish the version again")
    return images, answers


def tolerance(precision: str) -> float:
    return _TOLERANCES[precision]


def largest_difference(found: Arrays, expected: Arrays, task: Task) -> float:
    """Returns how far two answers to the same pictures are apart: 0 for equal ones; infinite for what is not finite.

    It is the worst of relative L2 distances and shares of pixels or labels that differ.
    """
    if not all(np.isfinite(tensor).all() for tensor in found if tensor.dtype.kind == "f"):
        return float("inf")
    match task:
        case Task.SEGMENT:
            return max(float((left != right).mean()) for left, right in zip(found, expected, strict=True))
        case Task.CLASSIFY:
            return max(_label_distance(*each) for each in zip(*found[:2], *expected[:2], strict=True))
        case Task.DETECT | Task.INSTANCES:
            rows = [_row_distance([t[i] for t in found], [t[i] for t in expected]) for i in range(len(expected[0]))]
            whole = [_distance(left, right) for left, right in zip(found[5:], expected[5:], strict=True)]
            return max([_distance(found[_SCORES], expected[_SCORES]), *rows, *whole])
        case Task.EMBED | Task.IMAGE:
            return max(_distance(*pair) for pair in zip(found[0], expected[0], strict=True))


def _label_distance(
    scores: NDArray[Any], class_ids: NDArray[Any], expected_scores: NDArray[Any], expected_ids: NDArray[Any]
) -> float:
    """Compares the scores of one picture class by class, so that the order of equal ones does not count."""
    by_class = dict(zip(class_ids.tolist(), scores.tolist(), strict=True))
    same = np.array([by_class.get(class_id, 0.0) for class_id in expected_ids.tolist()])
    is_sure = expected_scores >= _CONFIDENT
    sure = _distance(same[is_sure], expected_scores[is_sure]) if is_sure.any() else 0.0
    return max(sure, _distance(scores, expected_scores))


def _row_distance(found: Arrays, expected: Arrays) -> float:
    """Compares the sure rows of one picture, each with the nearest row that was found."""
    rows = np.flatnonzero(expected[_SCORES] >= _CONFIDENT)
    if not len(rows):
        return 0.0
    gaps = np.abs(found[0][None] - expected[0][rows][:, None]).sum(-1)
    gaps = gaps + _OTHER_CLASS * (found[_CLASS_IDS][None] != expected[_CLASS_IDS][rows][:, None])
    nearest = gaps.argmin(1)
    wrong = float((found[_CLASS_IDS][nearest] != expected[_CLASS_IDS][rows]).mean())
    return max(wrong, _distance(found[0][nearest], expected[0][rows]))


def _distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    gap = float(np.linalg.norm((found.astype(np.float64) - expected).ravel()))
    return gap / max(float(np.linalg.norm(expected.astype(np.float64).ravel())), 1e-6)
