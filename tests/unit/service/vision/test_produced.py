"""Pictures that networks make, as files. Promises: greys, colours and depths come back as they were."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import Task, TaskSpec
from saccade.service.client.produced import pixels_from
from saccade.service.errors import BadParameter
from saccade.service.vision.produced import ImageFormat, produced, whole_answer

RGB, GREY, DEPTH = (TaskSpec(task=Task.IMAGE, picture=kind) for kind in ("rgb", "grey", "depth"))
NUMBERS = np.random.default_rng(0).random((6, 9, 3), np.float32) * 1.2 - 0.1


@pytest.mark.parametrize("form", ["png", "webp", "raw"])
@pytest.mark.parametrize("spec", [RGB, GREY], ids=["rgb", "grey"])
def test_colours_and_greys_survive_every_format(form: ImageFormat, spec: TaskSpec) -> None:
    picture = NUMBERS if spec is RGB else NUMBERS[..., 0]

    found = pixels_from(produced(picture, spec, form).json()["image"])

    wanted = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    if form == "webp" and spec is GREY:  # WebP has three channels
        found = found[..., 0]
    assert found.dtype == np.uint8
    assert (found == wanted).all()


@pytest.mark.parametrize("picture", [NUMBERS[..., 0] * 40 - 7, np.full((3, 4), 2.5, np.float32)], ids=["any", "flat"])
def test_depths_survive_within_half_a_step(picture: np.ndarray) -> None:
    made = produced(picture, DEPTH, "png")
    document = made.json()["depth"]

    found = pixels_from(document)

    assert Image.open(io.BytesIO(made.data)).mode == "I;16"
    assert np.abs(found - picture).max() <= 0.51 * max(document["scale"], 1e-6)
    assert (pixels_from(produced(picture, DEPTH, "raw").json()["depth"]) == picture).all()


def test_a_format_that_cannot_hold_it_is_named() -> None:
    with pytest.raises(BadParameter, match="too few for depth"):
        produced(NUMBERS[..., 0], DEPTH, "webp")
    with pytest.raises(BadParameter, match="WebP ends at 16383"):
        produced(np.zeros((1, 16_384), np.float32), GREY, "webp")


def test_bars_are_cut_and_the_rest_has_the_pictures_size() -> None:
    answer = np.zeros((8, 8), np.float32)
    answer[2:6] = 1.0

    found = whole_answer([answer], Geometry(20, 10, 0, 2, 8, 4), GREY)

    assert found.shape == (10, 20)
    assert (found == 1.0).all()
