"""Compares every raw output of the ONNX file with the program it came from, at batch 1, 3 and 8.

An error counts against the length of the answer, or against a tenth of the answer's usual length over all pictures
where that is longer: the map of a text detector is empty where there is no text, and its rounding says nothing.

The same runs of the eager program show whether an image's answer depends on its neighbours in the batch. Where an
output differs, pictures whose answer changes with float64, or in which the network selects among near ties, are left
out first: they tell nothing (`own_rounding.py`). Where nearly all have such ties, as many rows are left out of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from saccade.export.convert.detection_heads import SCORE_FLOOR
from saccade.export.errors import GraphError
from saccade.export.graph.large_files import plain_session
from saccade.export.qualification.parity import relative_l2
from saccade.export.recipe import Recipe
from saccade.models.contract.specs import output_tensors

PROOF_FILE = "proof.json"
BATCH_SIZES = (1, 3, 8)
MAX_ERROR = 1e-4  # relative L2 per output; conversion may reorder sums and change nothing else
_FLOOR = 0.1  # of the usual length; with MAX_ERROR it allows an absolute error of 1e-5 of the output's scale
_DETERMINED = MAX_ERROR / 3  # the network's own rounding up to which a picture can prove a file, whose is as large
_FEWEST_DETERMINED = 4  # pictures of the eight
_ROWS_PER_LOOSE_ONE = 200  # of this many rows of a picture one may have no partner; of fewer one as well
_MAX_MATCHED_ROWS = 2048  # most rows that enter suppression; more rows are dense anchors in fixed order

Arrays = Sequence[NDArray[Any]]
Loose = NDArray[np.int64]  # (n,) rows of each picture's answer that rounding may choose otherwise
Scales = Sequence[float]  # root mean square of each output over all pictures of the proof
Eager = Callable[[NDArray[np.uint8]], Arrays]


class Rounding(Protocol):
    """What is known of the eager program's own rounding; both raise what they like where float64 cannot run."""

    def answers(self, images: NDArray[np.uint8]) -> Arrays:
        """What the program answers in float64."""

    def turned(self, images: NDArray[np.uint8]) -> int:
        """How many of the choices inside, such as the best of its proposals, rounding can turn for one image."""


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """The outputs to compare, in graph order, and which of them are detection scores (empty: none)."""

    names: tuple[str, ...]
    scores: str = ""
    have_rows: bool = False  # a detector's outputs (n, rows, ...), whose order near ties decide

    def floored(self, arrays: Arrays) -> Arrays:
        """Makes negligible scores equal: ONNX Runtime's sigmoid ends near 1e-7, torch's does not."""
        return [
            np.maximum(array, SCORE_FLOOR) if name == self.scores else array
            for name, array in zip(self.names, arrays, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class ProofFigure:
    """The difference between the file's output and the eager program's at one batch size."""

    output: str
    batch_size: int
    relative_l2: float  # of the answer's length, or of a tenth of the usual one; integers: share of differing elements
    is_matched: bool  # rows were paired first: equal candidates may change places where scores nearly tie


@dataclass(frozen=True, slots=True)
class BatchCoupling:
    """The difference between an image's outputs in a batch and alone, worst over rows, outputs and batch sizes."""

    relative_l2: float
    output: str
    batch_size: int
    row: int

    def reason(self, limit: float) -> str:
        """Returns why the version must not batch; empty when it may."""
        if self.relative_l2 <= limit:
            return ""
        return (
            f"an image's answer depends on its batch: {self.output} of row {self.row} differs by "
            f"{self.relative_l2:.1e} (relative L2) in a batch of {self.batch_size}, allowed is {limit:.0e}"
        )


@dataclass(frozen=True, slots=True)
class ConversionProof:
    figures: tuple[ProofFigure, ...]
    coupling: BatchCoupling | None  # None: the program takes one image only
    left_out: int = 0  # pictures whose answer hangs on rounding
    loose_rows: int = 0  # rows of the other pictures that were not compared, because rounding may choose others

    @property
    def worst(self) -> ProofFigure:
        return max(self.figures, key=lambda figure: figure.relative_l2)


def prove_conversion(
    eager: Eager,
    file: Path,
    outputs: RawOutputs,
    images: NDArray[np.uint8],
    is_batchable: bool = True,
    rounding: Rounding | None = None,
) -> ConversionProof:
    """Compares outputs on `images` (8, height, width, 3); `eager` and `rounding` give them in the same order.

    Raises GraphError naming the output and the batch size that differ, or that float32 does not determine the answers.
    """
    proof = _proof(eager, file, outputs, images, is_batchable)
    if proof.worst.relative_l2 <= MAX_ERROR:
        return proof
    rows, loose = proving_rows(eager, rounding, outputs, images)
    if len(rows) < len(images) or loose.any():
        again = np.resize(rows, len(images))
        proof = _proof(eager, file, outputs, images[again], is_batchable, loose[again])
        proof = replace(proof, left_out=len(images) - len(rows), loose_rows=int(loose[rows].sum()))
    worst = proof.worst
    if not worst.relative_l2 <= MAX_ERROR:
        if loose.any():
            raise GraphError(hanging(rows, loose))
        raise GraphError(
            f"the ONNX file's {worst.output} differs from the eager network's by {worst.relative_l2:.1e} (relative L2) "
            f"at batch {worst.batch_size}, allowed is {MAX_ERROR:.0e}: an operator was converted to something else. "
            "Export parts of the network to find it"
        )
    return proof


def proving_rows(
    eager: Eager, rounding: Rounding | None, outputs: RawOutputs, images: NDArray[np.uint8]
) -> tuple[NDArray[np.intp], Loose]:
    """Returns the rows of `images` that can prove a file, and of all images how many rows of an answer cannot.

    Where too few pictures are free of near ties, those count whose answer is the same but for that many rows. Raises
    GraphError where too few pictures are determined at all.
    """
    every, none = np.arange(len(images)), np.zeros(len(images), np.int64)
    if rounding is None:
        return every, none
    try:
        loose = np.array([rounding.turned(images[row : row + 1]) for row in every], np.int64)
        rows = determined_rows(eager, rounding, outputs, images, loose)
    except Exception:  # operators without float64 raise what they like; then every picture counts
        return every, none
    decided = rows[loose[rows] == 0]
    if len(decided) >= _FEWEST_DETERMINED:
        return decided, none
    if len(rows) < _FEWEST_DETERMINED:
        raise GraphError(hanging(rows, loose))
    return rows, loose


def hanging(rows: NDArray[np.intp], loose: Loose) -> str:
    """Returns why nothing can be proven: which pictures hang on rounding, and how many near ties the others have."""
    return (
        f"the network's own answers hang on rounding: {len(loose) - len(rows)} of {len(loose)} pictures are "
        f"answered differently in float64 (relative L2 above {_DETERMINED:.0e}), and it selects among "
        f"{int(loose[rows].sum())} near ties in the others, so no file can be proven equal. "
        "Weights that were never trained are the usual reason"
    )


def _proof(
    eager: Eager,
    file: Path,
    outputs: RawOutputs,
    images: NDArray[np.uint8],
    is_batchable: bool,
    loose: Loose | None = None,
) -> ConversionProof:
    sizes = BATCH_SIZES if is_batchable else BATCH_SIZES[:1]
    expected = {size: eager(images[:size]) for size in sizes}
    # A network of one image is asked for two more pictures, for the scale only.
    whole = [expected[sizes[-1]]] if is_batchable else [expected[1], *(eager(images[row : row + 1]) for row in (1, 2))]
    scales = output_scales(whole)
    session = plain_session(file)
    figures: list[ProofFigure] = []
    for size in sizes:
        found = session.run(list(outputs.names), {"images": images[:size]})
        figures.extend(compared(outputs, size, found, expected[size], scales, loose=loose))
    return ConversionProof(
        tuple(figures), _coupling(eager, images, outputs, expected, scales, loose) if is_batchable else None
    )


def determined_rows(
    eager: Eager, rounding: Rounding, outputs: RawOutputs, images: NDArray[np.uint8], loose: Loose
) -> NDArray[np.intp]:
    """Returns the rows of `images` that float32 and float64 answer alike, but for as many rows as are `loose`."""
    every = np.arange(len(images))
    alone = [eager(images[row : row + 1]) for row in every]
    scales = output_scales(alone)
    errors = [
        max(
            figure.relative_l2
            for figure in compared(
                outputs, 1, answer, rounding.answers(images[row : row + 1]), scales, _DETERMINED, loose[row : row + 1]
            )
        )
        for row, answer in zip(every, alone, strict=True)
    ]
    return every[np.array(errors) <= _DETERMINED]


def raw_outputs(names: Sequence[str], recipe: Recipe, scores: str) -> RawOutputs:
    """Returns the outputs behind the answer of a deploy graph: the recipe's extras and the network's own."""
    raw = tuple(names[len(output_tensors(recipe.task, recipe.preprocess)) :])
    return RawOutputs(raw, scores, have_rows=recipe.task.task.has_boxes)


def write_proof(proof: ConversionProof, directory: Path) -> None:
    coupling = None if proof.coupling is None else asdict(proof.coupling)
    document = {
        "figures": [asdict(figure) for figure in proof.figures],
        "batch_coupling": coupling,
        "left_out": proof.left_out,
        "loose_rows": proof.loose_rows,
    }
    (directory / PROOF_FILE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def read_proof(directory: Path) -> ConversionProof:
    document = orjson.loads((directory / PROOF_FILE).read_bytes())
    coupling = document["batch_coupling"]
    return ConversionProof(
        tuple(ProofFigure(**figure) for figure in document["figures"]),
        None if coupling is None else BatchCoupling(**coupling),
        document["left_out"],
        document["loose_rows"],
    )


def output_scales(answers: Sequence[Arrays]) -> Scales:
    """Returns the root mean square of each output over all answers; 0 for integers."""
    squares = [[float(np.square(array, dtype=np.float64).mean()) for array in arrays] for arrays in answers]
    floats = [array.dtype.kind == "f" for array in answers[0]]
    return [
        float(np.sqrt(np.mean(each))) if is_float else 0.0 for is_float, *each in zip(floats, *squares, strict=True)
    ]


def compared(
    outputs: RawOutputs,
    size: int,
    found: Arrays,
    expected: Arrays,
    scales: Scales | None = None,
    limit: float = MAX_ERROR,
    loose: Loose | None = None,
) -> list[ProofFigure]:
    """Returns one figure per output; a detector's rows are paired first where their order makes the difference.

    Of each picture the `loose` rows that differ most are not compared then.
    """
    scales = [0.0] * len(expected) if scales is None else scales
    found, expected = outputs.floored(found), outputs.floored(expected)
    errors = [_error(*each) for each in zip(found, expected, scales, strict=True)]
    matched: set[int] = set()
    for group in _row_groups(expected) if outputs.have_rows else ():
        if max(errors[index] for index in group) > limit:
            paired = _matched([found[index] for index in group], [expected[index] for index in group], loose)
            matched.update(group)
            for index, array in zip(group, paired, strict=True):
                errors[index] = _error(array, expected[index], scales[index])
    return [
        ProofFigure(name, size, error, index in matched)
        for index, (name, error) in enumerate(zip(outputs.names, errors, strict=True))
    ]


def _coupling(
    eager: Eager,
    images: NDArray[np.uint8],
    outputs: RawOutputs,
    expected: dict[int, Arrays],
    scales: Scales,
    loose: Loose | None,
) -> BatchCoupling:
    """Compares the rows of the smaller batch, and the last one of the larger, with the same images run alone."""
    alone = {0: expected[1]}
    figures: list[BatchCoupling] = []
    for size in BATCH_SIZES[1:]:
        for row in (*range(BATCH_SIZES[1]), size - 1):
            if row not in alone:
                alone[row] = eager(images[row : row + 1])
            together = [array[row : row + 1] for array in expected[size]]
            figures.extend(
                BatchCoupling(figure.relative_l2, figure.output, size, row)
                for figure in compared(outputs, size, together, alone[row], scales, loose=_of(loose, row))
            )
    return max(figures, key=lambda figure: figure.relative_l2)


def _error(found: NDArray[Any], expected: NDArray[Any], scale: float) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind == "f":
        return relative_l2(found, expected, _FLOOR * scale * expected.size**0.5)
    return float((found != expected).mean()) if expected.size else 0.0


def _row_groups(arrays: Arrays) -> list[list[int]]:
    """Returns positions of outputs that describe the same few rows: boxes, scores and classes, or proposals."""
    groups: dict[int, list[int]] = {}
    for index, array in enumerate(arrays):
        if array.ndim in (2, 3) and array.shape[1] <= _MAX_MATCHED_ROWS:
            groups.setdefault(array.shape[1], []).append(index)
    return [group for group in groups.values() if any(arrays[index].ndim == 3 for index in group)]


def _matched(found: Arrays, expected: Arrays, loose: Loose | None) -> list[NDArray[Any]]:
    """Returns the rows of `found`, each image's in the order of the nearest rows in `expected`.

    The `loose` rows of an image that have no near one are taken from `expected`, within a small share.
    """
    left, right = (np.concatenate([_features(array) for array in arrays], 2) for arrays in (found, expected))
    distances = [np.abs(a[None] - b[:, None]).sum(2) for a, b in zip(left, right, strict=True)]
    paired = [
        np.stack([rows[distance.argmin(1)] for rows, distance in zip(array, distances, strict=True)]) for array in found
    ]
    most = max(1, left.shape[1] // _ROWS_PER_LOOSE_ONE)
    for image, distance in enumerate(distances):
        count = 0 if loose is None else min(int(loose[image]), most)
        lone = np.argsort(distance.min(1))[len(distance) - count :]
        for array, wanted in zip(paired, expected, strict=True):
            array[image, lone] = wanted[image, lone]
    return paired


def _of(loose: Loose | None, row: int) -> Loose | None:
    return None if loose is None else loose[row : row + 1]


def _features(array: NDArray[Any]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = array.reshape(*array.shape[:2], -1).astype(np.float32)
    return flat
