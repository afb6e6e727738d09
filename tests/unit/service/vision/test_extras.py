"""What answers have besides the task's own: read from the parameters, which are kept, not from the manifest anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry
from saccade.service.errors import NotFinite
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.parameters import DeadlineRule, Parameters, complete, parse_given
from tests.support.versions import EXPLANATION, UNFAMILIARITY, manifest_for, with_extras

MANIFEST = with_extras(manifest_for("digits", 1), EXPLANATION, UNFAMILIARITY)
PLACE = Geometry(32, 32, 0, 0, 32, 32)


def asking(**given: str) -> Parameters:
    return complete(parse_given(given, is_text=True), MANIFEST, DeadlineRule(1000.0, 1000.0))


def outputs(score: float) -> list[np.ndarray[Any, Any]]:
    top_k = MANIFEST.task.top_k
    return [np.full(top_k, 0.5, np.float32), np.zeros(top_k, np.int32), np.array(score, np.float32)]


def test_parameters_name_the_outputs_that_they_ask_for() -> None:
    assert asking().extras == ()
    assert asking(trust="true").extras == (UNFAMILIARITY,)
    assert asking(trust="true", explain="grid").extras == (EXPLANATION, UNFAMILIARITY)


def test_a_score_is_rendered_without_a_search_through_the_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = asking(trust="true")
    monkeypatch.delattr(Manifest, "extras")
    found = prediction_of(outputs(1.5), PLACE, MANIFEST, parameters)["trust"]
    assert found == {"score": 1.5, "threshold": 1.0, "familiar": False}


def test_a_score_that_is_no_number_is_no_answer() -> None:
    with pytest.raises(NotFinite, match="trust"):
        prediction_of(outputs(float("nan")), PLACE, MANIFEST, asking(trust="true"))
