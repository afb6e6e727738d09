"""Calibration error and temperature. Promises: known errors, a fit that finds what was planted, no other best class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import softmax

from saccade.export.convert.answer_heads import ClassifyHead, answer_head
from saccade.export.data.foreign import damaged, foreign_pictures
from saccade.export.network import Network
from saccade.export.qualification.confidence import best_temperature, calibration_error
from saccade.export.qualification.plain_answers import plain_answer
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (4000, 5))
TRUTH = np.array([RNG.choice(5, p=row) for row in softmax(LOGITS, axis=1)])  # so its scores are right as they are


def test_scores_that_are_the_shares_of_right_answers_have_no_calibration_error() -> None:
    assert calibration_error(LOGITS, TRUTH) < 0.02


def test_sure_answers_that_are_half_wrong_have_a_calibration_error_of_a_half() -> None:
    sure = np.tile([50.0, 0.0], (100, 1))
    assert calibration_error(sure, np.arange(100) % 2) == pytest.approx(0.5)


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_the_planted_temperature_is_found(planted: float) -> None:
    assert best_temperature(LOGITS * planted, TRUTH) == pytest.approx(planted, rel=0.05)


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_a_temperature_changes_scores_and_no_class(form: str) -> None:
    raw = torch.tensor(LOGITS[:50], dtype=torch.float32)
    raw = raw if form == "logits" else raw.softmax(1)
    activation = "softmax" if form == "logits" else "none"
    scores, class_ids = ClassifyHead(3, activation, 2.0)(raw)  # type: ignore[arg-type]  # one of its words
    plain_scores, plain_ids = ClassifyHead(3, activation)(raw)  # type: ignore[arg-type]  # as above

    assert torch.equal(class_ids, plain_ids)
    assert (scores[:, 0] < plain_scores[:, 0]).all()
    np.testing.assert_allclose(scores, np.sort(softmax(LOGITS[:50] / 2, 1))[:, :-4:-1], rtol=1e-3)


def test_the_reference_is_scaled_as_the_graph_is() -> None:
    raw = torch.tensor(LOGITS[:50], dtype=torch.float32)
    spec = TaskSpec(task=Task.CLASSIFY, top_k=3, temperature=0.5)
    network = Network(torch.nn.Identity(), "logits")
    size = PreprocessSpec(width=8, height=8, fit="stretch")
    scores, _ = plain_answer(network, spec, size, raw)

    assert torch.allclose(scores, answer_head(network, spec, 5, size, raw)(raw)[0])
    assert not torch.allclose(scores, ClassifyHead(3, "softmax")(raw)[0])


@pytest.mark.parametrize(
    "fields", [{"task": "segment"}, {"task": "classify", "top_k": 2, "multi_label": True}], ids=["segment", "labels"]
)
def test_a_temperature_is_refused_where_scores_do_not_add_up(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="temperature scales scores that add up to 1"):
        TaskSpec.model_validate({**fields, "temperature": 1.5})


def test_foreign_and_damaged_pictures_are_always_the_same() -> None:
    first, second = foreign_pictures(24, 32), foreign_pictures(24, 32)
    assert {name: pictures.shape for name, pictures in first.items()} == dict.fromkeys(first, (60, 24, 32, 3))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    some = first["photographs"][:3]
    assert all(np.array_equal(damaged(some)[name], pictures) for name, pictures in damaged(some).items())
    assert not any(np.array_equal(some, pictures) for pictures in damaged(some).values())
