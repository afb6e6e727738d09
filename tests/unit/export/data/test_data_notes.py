"""What `check` notes beside complaints: what would deny every variant after minutes of work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saccade.export.data.data_notes import loose_notes, size_notes, trust_notes
from saccade.export.data.data_report import SplitFacts
from saccade.export.data.image_split import Split
from saccade.export.variants import VariantKind
from saccade.models.contract.specs import Task
from tests.support.data_folders import recipe_of


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"min_test_images": 5}, "min_test_images 5 (at least 20)"),
        ({"min_test_images": 5, "allow_loose_thresholds": True}, ""),
        ({"min_test_images": 20}, ""),
    ],
)
def test_limits_that_the_gate_always_denies_are_noted(tmp_path: Path, gate: dict[str, Any], told: str) -> None:
    notes = " ".join(loose_notes(recipe_of(tmp_path, Task.CLASSIFY, gate=gate)))
    assert told in notes
    assert bool(notes) is bool(told)


def facts(name: Split, images: int, repeated: int = 0) -> SplitFacts:
    return SplitFacts(
        name=name,
        source="a folder",
        images=images,
        used=images,
        repeated=repeated,
        sizes=(),
        size_count=0,
        objects=(),
        images_with=(),
    )


@pytest.mark.parametrize(
    ("calibration", "tuning", "variant", "told"),
    [
        ((32, 0), 20, "fp32", ""),
        ((33, 2), 20, "fp32", "32 different calibration pictures, and the data has 31"),
        ((32, 0), 19, "int8-cpu", "20 different tuning pictures, and the data has 19"),
        ((8, 0), 8, "int8-trt", ""),  # which would have no score anyway
    ],
)
def test_too_few_pictures_for_a_score_of_trust_are_noted(
    tmp_path: Path, calibration: tuple[int, int], tuning: int, variant: VariantKind, told: str
) -> None:
    given = recipe_of(tmp_path, Task.CLASSIFY)
    loaded = given.model_copy(update={"recipe": given.recipe.model_copy(update={"variants": (variant,)})})
    notes = " ".join(trust_notes(loaded, [facts("calibration", *calibration), facts("tuning", tuning)]))
    assert told in notes
    assert bool(notes) is bool(told)


def test_inputs_and_answers_that_no_usual_slot_holds_are_noted(tmp_path: Path) -> None:
    assert not list(size_notes(recipe_of(tmp_path, Task.IMAGE, side=1024)))
    (note,) = size_notes(recipe_of(tmp_path, Task.IMAGE, side=2048))
    assert "SACCADE_MAX_SLOT_BYTES=62914560" in note  # 2048 x 2048 x 3 bytes in, as many floats out
