"""What a decision makes of the document, and that of two servers one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.repository.serving_document import Canary, Rollout, ServingDocument, Shadow, Step
from saccade.service.repository.serving_history import ServingConflict, write_document
from saccade.service.supervisor.rollout.controller import after
from saccade.service.supervisor.rollout.decide import Decision

STEPS = (Step(share=0.1), Step(share=0.5))
DOCUMENT = ServingDocument(
    generation=4,
    policy="hold",
    labels={"stable": 1, "trial": 3},
    canary=Canary(version=2, share=0.1),
    shadow=Shadow(version=2, sample=0.2),
    rollout=Rollout(steps=STEPS),
)


def test_next_step_has_its_share_and_the_reason() -> None:
    found = after(DOCUMENT, Decision("next", "600 requests"))

    assert found.canary == Canary(version=2, share=0.5)
    assert found.rollout == Rollout(steps=STEPS, step=1)
    assert (found.generation, found.reason, found.labels) == (5, "600 requests", DOCUMENT.labels)
    assert found.changed_by.startswith("saccade at ")


def test_after_the_last_step_the_canary_is_stable_and_nothing_is_tried_any_more() -> None:
    last = after(DOCUMENT, Decision("next", "600 requests"))

    found = after(last, Decision("next", "as good"))

    assert found.labels == {"stable": 2, "trial": 3}
    assert (found.canary, found.shadow, found.rollout, found.policy) == (None, None, None, "hold")


def test_going_back_leaves_stable_and_the_shadow_of_another_version_alone() -> None:
    other = DOCUMENT.model_copy(update={"shadow": Shadow(version=3, sample=0.1)})

    assert after(DOCUMENT, Decision("back", "errors")).shadow is None
    found = after(other, Decision("back", "errors"))
    assert (found.labels, found.canary, found.rollout) == (DOCUMENT.labels, None, None)
    assert found.shadow == other.shadow


def test_of_two_servers_that_decide_the_first_wins(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    write_document(tmp_path, "digits", DOCUMENT, 0)
    write_document(tmp_path, "digits", after(DOCUMENT, Decision("back", "errors")), 4)

    with pytest.raises(ServingConflict):
        write_document(tmp_path, "digits", after(DOCUMENT, Decision("next", "600 requests")), 4)
