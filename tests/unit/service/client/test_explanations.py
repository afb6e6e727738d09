"""Where a network looked, as one map over the picture, from both forms of the server's answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.client import Classification, Served
from saccade.models.contract.preprocessing import Geometry, geometry_of, preprocess
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.client.answers import Trust, prediction_from
from saccade.service.client.errors import UnexpectedAnswer
from saccade.service.vision.explanation import ExplainFormat, eight_bits, explanation_json

SERVED = Served("m", "1", "fp32", "r", {}, None)
SPECS = {
    "stretch": PreprocessSpec(width=64, height=64, fit="stretch"),
    "letterbox": PreprocessSpec(width=64, height=64, fit="letterbox"),
    "crop": PreprocessSpec(width=64, height=64, fit="crop", shortest_edge=80),
}
SOURCE = (160, 100)
SPOT = (slice(40, 60), slice(70, 100))  # rows and columns of the picture


def heat_of(spec: PreprocessSpec) -> tuple[NDArray[np.float32], Geometry]:
    """The map of a network that looks at the white spot: the mean of 4 x 4 input pixels per cell."""
    picture = np.zeros((SOURCE[1], SOURCE[0], 3), np.uint8)
    picture[SPOT] = 255
    seen = preprocess(picture, spec.model_copy(update={"pad_value": 0}))[..., 0].astype(np.float32)
    return seen.reshape(16, 4, 16, 4).mean((1, 3)), geometry_of(*SOURCE, spec)


def answered(spec: PreprocessSpec, wanted: ExplainFormat) -> Classification:
    heat, place = heat_of(spec)
    document: dict[str, Any] = {"width": SOURCE[0], "height": SOURCE[1], "classes": []}
    document |= explanation_json(heat, place, (spec.width, spec.height), "class activation", wanted)
    found = prediction_from(document, SERVED)
    assert isinstance(found, Classification)
    return found


@pytest.mark.parametrize("wanted", ["grid", "png"])
@pytest.mark.parametrize("fit", SPECS)
def test_the_heat_lies_where_the_network_looked_in_the_picture(fit: str, wanted: ExplainFormat) -> None:
    heat = answered(SPECS[fit], wanted).explanation

    assert heat is not None
    assert (heat.shape, heat.dtype) == ((100, 160), np.uint8)
    rows, columns = np.nonzero(heat > 127)
    middle = (rows.mean() - 49.5, columns.mean() - 84.5)  # of the spot
    assert max(abs(each) for each in middle) < 2.5
    assert len(rows) == pytest.approx(20 * 30, rel=0.3)


def test_what_a_crop_cut_away_has_no_heat() -> None:
    spec = SPECS["crop"]
    document = explanation_json(np.ones((4, 4), np.float32), geometry_of(*SOURCE, spec), (64, 64), "any", "grid")
    found = prediction_from({"width": 160, "height": 100, "classes": [], **document}, SERVED).explanation
    assert found is not None
    assert set(np.unique(found[:, :35])) == {0}  # the network saw columns 40 to 120, rows 10 to 90
    assert found[50, 80] == 255


def test_drawing_glows_there_and_leaves_the_rest() -> None:
    picture = Image.new("RGB", SOURCE, (10, 20, 30))
    drawn = np.array(answered(SPECS["stretch"], "grid").draw(picture))
    assert drawn[50, 85, 0] > 150
    assert drawn[5, 5].tolist() == [10, 20, 30]


def test_an_answer_without_one_has_none() -> None:
    assert prediction_from({"width": 4, "height": 4, "classes": []}, SERVED).explanation is None


def test_a_damaged_one_is_named() -> None:
    document = {"method": "m", "rows": 4, "columns": 4, "box": [0, 0, 4, 4], "grid": "AAAA"}
    found = prediction_from({"width": 4, "height": 4, "classes": [], "explanation": document}, SERVED)
    with pytest.raises(UnexpectedAnswer, match="damaged"):
        _ = found.explanation


def test_a_map_without_heat_stays_black() -> None:
    assert eight_bits(np.zeros((2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]
    assert eight_bits(np.array([[0.0, 5.0], [2.5, -1.0]], np.float32)).tolist() == [[0, 255], [128, 0]]


def test_trust_is_there_where_it_was_asked_for() -> None:
    document: dict[str, Any] = {"width": 1, "height": 1, "classes": []}
    assert prediction_from(document, SERVED).trust is None
    document["trust"] = {"score": 1.5, "threshold": 1.0, "familiar": False}
    assert prediction_from(document, SERVED).trust == Trust(1.5, 1.0, familiar=False)
