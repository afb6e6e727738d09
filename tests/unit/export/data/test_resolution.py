"""What counts resolve. Promises: the words' figures are those of a normal interval with the named spread."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.export.data.resolution import half_interval, images_needed, resolution_sentence
from saccade.models.contract.specs import Task


def test_so_many_images_resolve_what_so_narrow_an_interval_needs() -> None:
    assert half_interval(Task.DETECT, 400) == pytest.approx(0.012, abs=5e-4)
    assert images_needed(Task.DETECT, half_interval(Task.DETECT, 400)) == pytest.approx(400, abs=1)


def test_interval_of_an_accuracy_of_four_fifths_holds_19_of_20_draws() -> None:
    draws = np.random.default_rng(0).binomial(500, 0.8, 20_000) / 500

    inside = np.abs(draws - 0.8) <= half_interval(Task.CLASSIFY, 500)

    assert inside.mean() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (0.003, "400 test images resolve ± 0.012 mAP (95 % interval); a limit of 0.003 needs about 6,100, or a paired"),
        (0.02, "400 test images resolve ± 0.012 mAP (95 % interval), so a drop beyond the gate's limit of 0.02 shows"),
        (0.0, "a limit of 0 asks for equal answers"),
    ],
)
def test_words_name_interval_limit_and_need(limit: float, words: str) -> None:
    assert words in resolution_sentence(Task.DETECT, 400, limit)
