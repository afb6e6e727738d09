"""Corruptions. Promises: a variant that fails where the float network does not is caught, and pictures repeat."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.data.check import check_data
from saccade.export.data.datasets import DataStore
from saccade.export.errors import DataRefused, RecipeError
from saccade.export.gate.limits import CorruptionLimits, GateThresholds
from saccade.export.qualification import corrupted_pictures
from saccade.export.qualification.corrupted_pictures import STRENGTHS, corrupted_sets
from saccade.export.qualification.corruption_step import CLEAN, Condition, corruption_report
from saccade.export.qualification.qualify_report import CorruptionReport
from saccade.export.step_table import STEPS
from saccade.export.steps import StepContext
from saccade.models.contract.specs import Task
from tests.support.data_folders import recipe_of
from tests.support.gated import changed, decided, failed_checks

KINDS = ("fog", "snow", "contrast")
RNG = np.random.default_rng(3)
JUDGED = GateThresholds(corruptions=CorruptionLimits())


def measured(clean: float, **by_kind: float) -> dict[Condition, NDArray[np.float64]]:
    """The metric with 50 draws of its pictures around it."""
    values = {CLEAN: clean, **{(kind, each): by_kind.get(kind, 0.7) for kind in KINDS for each in STRENGTHS}}
    return {
        condition: np.concatenate([[value], value + RNG.normal(0, 0.005, 50)]) for condition, value in values.items()
    }


def test_drops_are_shares_of_the_clean_metric_and_the_worst_kind_comes_first() -> None:
    found = corruption_report(measured(0.8, snow=0.4), measured(0.8), 200)

    assert (found.clean, found.eager_clean, found.strengths) == (0.8, 0.8, STRENGTHS)
    assert found.kinds[0].kind == "snow"
    assert found.kinds[0].eager_drop.value == pytest.approx(0.3 / 0.8)
    assert found.kinds[0].clean_drop == pytest.approx(0.5)
    assert found.eager_drop.value == pytest.approx(0.1 / 0.8)
    assert found.clean_drop.value == pytest.approx(1.0 - (0.7 + 0.7 + 0.4) / 3 / 0.8)
    assert found.eager_drop.ci_low < found.eager_drop.value < found.eager_drop.ci_high


@pytest.mark.parametrize(
    ("found", "limits", "failed"),
    [
        (corruption_report(measured(0.8), measured(0.8), 200), CorruptionLimits(), []),
        (
            corruption_report(measured(0.8, snow=0.4), measured(0.8), 200),
            CorruptionLimits(),
            ["corruption_drop", "corruption_worst"],
        ),
        (
            corruption_report(measured(0.8, snow=0.65), measured(0.8), 200),
            CorruptionLimits(max_worst_drop=0.05),
            ["corruption_worst"],
        ),
        (
            corruption_report(measured(0.8), measured(0.8), 200),
            CorruptionLimits(max_clean_drop=0.1),
            ["corruption_clean"],
        ),
        (None, CorruptionLimits(), ["corruption_drop"]),
    ],
)
def test_each_limit_denies(found: CorruptionReport | None, limits: CorruptionLimits, failed: list[str]) -> None:
    decision = decided(changed(corruptions=found), GateThresholds(corruptions=limits))

    assert failed_checks(decision) == failed


def test_a_gate_without_the_section_asks_for_nothing() -> None:
    found = corruption_report(measured(0.8, snow=0.0), measured(0.8), 200)

    assert "corruption_drop" not in {check.name for check in decided(changed(corruptions=found)).checks}


def test_a_variant_that_is_right_about_nothing_is_denied_all_the_same() -> None:
    found = corruption_report(measured(0.0, fog=0.0, snow=0.0, contrast=0.0), measured(0.8), 200)

    assert failed_checks(decided(changed(corruptions=found), JUDGED)) == ["corruption_drop", "corruption_worst"]


def test_the_missing_library_is_told_by_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(corrupted_pictures, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    loaded = recipe_of(tmp_path, Task.CLASSIFY, gate={"corruptions": {}}, side=32)

    assert "pip install 'saccade-serving[corruptions]'" in check_data(loaded, lambda read, total: None).complaints[-1]
    with pytest.raises(RecipeError, match="needs the extra `corruptions`"):
        next(corrupted_sets(np.zeros((1, 32, 32, 3), np.uint8)))


def test_the_missing_library_refuses_a_run_in_its_first_step_also_where_data_were_read_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (step,) = (each for each in STEPS if each.name == "data")
    asked, unasked = (recipe_of(tmp_path, Task.CLASSIFY, gate=gate, side=32) for gate in ({"corruptions": {}}, {}))
    monkeypatch.setattr(corrupted_pictures, "find_spec", lambda name: name)
    there, without = step.config(asked), step.config(unasked)
    monkeypatch.setattr(corrupted_pictures, "find_spec", lambda name: None)

    assert step.config(asked) != there  # so that nothing is taken from an earlier run
    assert step.config(unasked) == without == there
    context = StepContext(asked, None, "dense", tmp_path, {}, DataStore(), tmp_path, lambda text: None)
    with pytest.raises(DataRefused, match="needs the extra `corruptions`"):
        step.run(context)


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        ({"corruptions": {}}, "inputs of 32 pixels a side and more"),
        ({"corruptions": {}, "mode": "parity"}, "mode parity measures no metric"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_recipe(
    gate: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipe_of(tmp_path, Task.CLASSIFY, gate=gate)


def test_fifteen_kinds_at_three_strengths_are_the_same_every_time() -> None:
    pytest.importorskip("imagecorruptions", reason="the extra `corruptions` is not installed")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 41, 3)).astype(np.uint8)
    state = np.random.get_state()[1].copy()  # type: ignore[index]  # a tuple unless asked otherwise

    first, again = ([(kind, each, found) for kind, each, found in corrupted_sets(images)] for _ in range(2))

    assert len(first) == 15 * len(STRENGTHS)
    for (kind, strength, found), (_, _, repeated) in zip(first, again, strict=True):
        assert found.shape == images.shape, kind
        assert (found != images).any(), (kind, strength)
        np.testing.assert_array_equal(found, repeated, err_msg=kind)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
