"""Selections that rounding decides. Promises: ties at a cut are found, clear and filled cuts are not taken for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.export.convert.conversion_proof import ConversionProof, RawOutputs, prove_conversion
from saccade.export.convert.onnx_from_torch import converted, eager_outputs
from saccade.export.convert.own_rounding import OwnRounding
from saccade.export.convert.suppression import keep_per_class
from saccade.export.errors import GraphError

PLACES = 110
TAKEN = 60
STEP = 2  # levels from one place to the next
TIE = 1e-6
CLEAR = 0.2
NAMES = ["answer", "network_0"]


class BestPlaces(nn.Module):
    """Two stages: the best of the places of a picture (n, 1, PLACES, 3), and what it makes of all these rows together.

    In pictures that grow darker to the right, the first place that is not taken scores `gap` less than the last one.
    """

    offset: Tensor

    def __init__(self, gap: float, scale: float = 1.0, fills: int = 0, coupling: float = 1.0) -> None:
        super().__init__()
        self.coupling = coupling
        self.weight = nn.Parameter(torch.tensor([0.3, 0.5, 0.2]))
        self.scale, self.fills = scale, fills
        offset = torch.zeros(PLACES)
        offset[TAKEN] = STEP - gap
        self.register_buffer("offset", offset)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = images[:, 0].to(torch.float32)
        scores = (rows * self.weight).sum(2) + self.offset
        if self.fills:  # no more than a few are real, as behind suppression
            scores = torch.where(torch.arange(PLACES) < self.fills, scores, -1.0)
        best = torch.topk(scores, TAKEN, dim=1).indices
        chosen = torch.gather(rows, 1, best.unsqueeze(2).expand(-1, -1, 3))
        # The answer is cut at a place of its own, which no raw output hangs on.
        return scores.topk(1, dim=1).values, chosen * self.scale + self.coupling * chosen.mean(dim=1, keepdim=True)


class Suppressed(nn.Module):
    """Boxes at the places of a picture that are kept, where the first two overlap by half and a little more."""

    boxes: Tensor

    def __init__(self, more: float) -> None:
        super().__init__()
        starts = torch.tensor([0.0, 10 / 3 - more, 40.0])
        self.register_buffer("boxes", torch.stack([starts, starts * 0, starts + 10, starts * 0 + 10], 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = images[:, 0, :3, 0].to(torch.float32) / 256
        rounded = torch.exp(torch.log(self.boxes + 1)) - 1  # as what a network computes
        boxes = rounded.unsqueeze(0).expand(images.shape[0], -1, -1)
        keep = keep_per_class(boxes, scores, torch.zeros(scores.shape, dtype=torch.int64), 1, 0.5, 0.0)
        return scores, torch.where(keep, scores, 0.0)


def pictures(have_all_ties: bool = False) -> NDArray[np.uint8]:
    """Eight that grow darker to the right, or every other one to the left, where nothing ties."""
    shades = (250 - STEP * np.arange(PLACES)).astype(np.uint8)
    rows = np.stack([np.stack([shades - place, shades - 2 * place, shades], 1) for place in range(8)])[:, None]
    if not have_all_ties:
        rows[1::2] = rows[1::2, :, ::-1]
    return rows.copy()


@cache
def traced(module: nn.Module) -> Any:
    images = torch.from_numpy(pictures())
    return torch.export.export(
        module.eval(), (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), strict=False
    )


def turned(module: nn.Module) -> list[int]:
    rounding = OwnRounding(traced(module), 1)
    return [rounding.turned(pictures()[row : row + 1]) for row in range(8)]


def proof(eager: nn.Module, other: nn.Module, file: Path, have_all_ties: bool = False) -> ConversionProof:
    """Holds the file of `other` to `eager`."""
    converted(traced(other), NAMES, 20, file)
    program = traced(eager)
    outputs = RawOutputs(("network_0",), have_rows=True)
    return prove_conversion(
        eager_outputs(program, 1), file, outputs, pictures(have_all_ties), rounding=OwnRounding(program, 1)
    )


def test_place_that_ties_at_the_cut_is_found_in_the_pictures_that_have_it() -> None:
    assert turned(BestPlaces(TIE)) == [1, 0] * 4
    assert turned(BestPlaces(CLEAR)) == [0] * 8


def test_rows_that_are_filled_with_one_value_are_no_tie() -> None:
    assert turned(BestPlaces(CLEAR, fills=TAKEN - 2)) == [0] * 8


def test_places_that_all_look_alike_are_a_tie() -> None:
    rounding = OwnRounding(traced(BestPlaces(CLEAR)), 1)

    assert rounding.turned(np.full((1, 1, PLACES, 3), 77, np.uint8)) == PLACES - TAKEN


def test_overlap_that_ties_with_its_limit_is_found() -> None:
    assert turned(Suppressed(TIE)) == turned(Suppressed(-TIE)) == [1] * 8
    assert turned(Suppressed(CLEAR)) == turned(Suppressed(-CLEAR)) == [0] * 8


def test_file_that_takes_the_other_one_of_two_that_tie_is_proven_by_the_other_pictures(tmp_path: Path) -> None:
    """RT-DETR was refused as wrongly converted: of two queries that tied, its file took the one and torch the other."""
    found = proof(BestPlaces(TIE), BestPlaces(-TIE), tmp_path / "model.onnx")

    assert found.left_out == 4
    assert found.worst.relative_l2 < 1e-6


@pytest.mark.parametrize("other", [BestPlaces(-CLEAR), BestPlaces(-TIE, scale=1.001)], ids=["takes", "computes"])
def test_file_of_another_network_is_refused_although_places_tie(other: nn.Module, tmp_path: Path) -> None:
    """Of the first, what it takes differs clearly; of the second, what it makes of the rows differs by a thousandth."""
    eager = BestPlaces(CLEAR if other.scale == 1.0 else TIE)

    with pytest.raises(GraphError, match="an operator was converted to something else"):
        proof(eager, other, tmp_path / "model.onnx")


def test_rows_that_stand_for_themselves_prove_a_file_though_one_of_each_picture_ties(tmp_path: Path) -> None:
    """Faster R-CNN's thousand proposals nearly always have such ones, and its other rows do not hang on them."""
    alone, other, wrong = (
        BestPlaces(gap, scale, coupling=0.0) for gap, scale in ((TIE, 1.0), (-TIE, 1.0), (-TIE, 1.001))
    )

    found = proof(alone, other, tmp_path / "model.onnx", have_all_ties=True)

    assert (found.left_out, found.loose_rows) == (0, 8)
    assert found.worst.relative_l2 < 1e-6
    with pytest.raises(GraphError, match="among 8 near ties"):
        proof(alone, wrong, tmp_path / "model.onnx", have_all_ties=True)
