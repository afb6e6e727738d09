"""Pictures of two versions. Promises: nearly equal numbers count, another kind of picture agrees in nothing."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import PictureKind, PreprocessSpec, Task, TaskSpec
from saccade.service.vision.comparison import Answer, compared
from tests.support.versions import manifest_for

WHOLE = Geometry(8, 8, 0, 0, 8, 8)
NUMBERS = np.random.default_rng(0).random((8, 8, 3), np.float32)


def answer(numbers: np.ndarray, picture: PictureKind = "rgb", scale: int = 1, fit: str = "stretch") -> Answer:
    tile = {"margin": 1} if fit == "tile" else {}
    preprocess = PreprocessSpec.model_validate({"width": 8, "height": 8, "fit": fit, **tile})
    spec = TaskSpec(task=Task.IMAGE, picture=picture, scale=scale)
    return Answer([numbers], WHOLE, manifest_for("m", 1, Task.IMAGE, spec=spec, preprocess=preprocess))


def test_agreement_is_the_share_of_nearly_equal_numbers() -> None:
    other = NUMBERS.copy()
    other[:2] += 0.5
    other[2:] += 1.9 / 255

    assert compared(answer(NUMBERS), answer(other)).agreement == pytest.approx(0.75)
    assert compared(answer(NUMBERS, fit="tile"), answer(NUMBERS, fit="tile")).agreement == 1.0


def test_depths_are_held_to_their_own_range() -> None:
    depth = NUMBERS[..., 0] * 100

    assert compared(answer(depth, "depth"), answer(depth + 0.5, "depth")).agreement == 1.0
    assert compared(answer(depth, "depth"), answer(depth + 2.0, "depth")).agreement == 0.0


def test_another_kind_or_scale_agrees_in_nothing() -> None:
    large = NUMBERS.repeat(2, 0).repeat(2, 1)

    assert compared(answer(NUMBERS), answer(large, scale=2)).agreement == 0.0
    assert compared(answer(NUMBERS), answer(NUMBERS[..., 0], "grey")).agreement == 0.0
