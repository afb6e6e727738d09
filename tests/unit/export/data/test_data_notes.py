"""What `check` notes beside complaints: what would deny every variant after minutes of work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saccade.export.data.data_notes import loose_notes
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
