"""A candidate is asked after the answer, behind everybody, where there is room; and how far both agree is noted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from saccade.service.api.catalog import ServingTarget
from saccade.service.api.priority import RANK_OFFSET_S, Priority
from saccade.service.ipc import messages
from saccade.service.repository.disagreements import Disagreement, disagreements
from tests.unit.service.api.predictor_story import Story, image, running_story


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Story]:
    with running_story(slots=32, repository=tmp_path) as made:
        yield made


def say(story: Story, target: ServingTarget, request_id: int, class_id: int, score: float = 0.9) -> None:
    """Writes an answer into the slot of a request, as its worker would."""
    permit = story.worker.permits[request_id]
    scores, class_ids = permit.arena.views(permit.slot, target.layout).outputs
    scores[:] = np.linspace(score, 0.0, len(scores))
    class_ids[:] = np.roll(np.arange(len(class_ids)), -class_id)


async def answered(story: Story, candidate: ServingTarget, class_id: int = 7) -> int:
    """Has stable answer one image; returns the number of the request that its shadow makes."""
    answering = story.start(image(), shadow=candidate)
    request_id = await story.worker.submitted.get()
    say(story, candidate, request_id, class_id)
    await story.worker.answer(request_id)
    await answering
    return await story.worker.submitted.get()


def counted(story: Story, outcome: str) -> float:
    return story.metrics.shadows_total.labels("digits", "1", "2", outcome)._value.get()


async def idle(story: Story) -> None:
    """Waits for every shadow to end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)
    assert story.slots.in_use == 0


def picture_of(kept: Disagreement) -> bytes:
    return Path(kept.picture).read_bytes()


async def test_candidate_gets_the_same_pixels_behind_every_request(roomy: Story) -> None:
    candidate = roomy.candidate()
    number = await answered(roomy, candidate)
    views = [permit.arena.views(permit.slot, candidate.layout).input for permit in roomy.worker.permits]

    assert roomy.worker.asked[number] == (8, RANK_OFFSET_S[Priority.SHADOW])
    assert np.array_equal(views[0], views[number])
    assert roomy.slots.in_use == 1  # the slot of the answer is free again
    say(roomy, candidate, number, 7)
    await roomy.worker.answer(number)
    await idle(roomy)
    assert counted(roomy, "compared") == 1
    tally = candidate.tally.told("digits", 2, 1)
    assert tally is not None
    assert (tally.answered, tally.compared, tally.agreement) == (0, 1, 1.0)


async def test_version_with_another_input_gets_the_picture_again(roomy: Story) -> None:
    candidate = roomy.candidate(side=16)
    number = await answered(roomy, roomy.candidate(side=16))
    await roomy.worker.answer(number)
    await idle(roomy)

    assert roomy.worker.permits[number].arena.views(0, candidate.layout).input.shape == (16, 16, 3)
    assert counted(roomy, "compared") == 1


async def test_disagreement_is_kept_with_what_both_said(roomy: Story, tmp_path: Path) -> None:
    candidate = roomy.candidate()
    number = await answered(roomy, candidate, class_id=7)
    say(roomy, candidate, number, 1, score=0.5)
    await roomy.worker.answer(number)
    await idle(roomy)

    (kept,) = disagreements(tmp_path, "digits")
    assert (kept.stable_said, kept.candidate_said, kept.agreement) == ("7 0.900", "1 0.500", 0.0)
    assert (kept.request_id, picture_of(kept)) == ("request 1", image())


async def test_failed_candidate_agrees_with_nothing(roomy: Story) -> None:
    candidate = roomy.candidate()
    number = await answered(roomy, candidate)
    await roomy.worker.answer(number, messages.DONE_FAILED)
    await idle(roomy)

    assert counted(roomy, "failed") == 1
    tally = candidate.tally.told("digits", 2, 1)
    assert tally is not None
    assert (tally.compared, tally.agreement) == (1, 0.0)


async def test_shadow_is_dropped_where_slots_are_short(story: Story) -> None:
    story.candidate()
    answering = story.start(image(), shadow=story.candidate())
    await story.worker.answer(await story.worker.submitted.get())
    await answering
    await idle(story)

    assert counted(story, "dropped") == 1
    assert story.worker.submitted.empty()


async def test_few_shadows_run_at_once_and_the_rest_is_dropped(roomy: Story) -> None:
    candidate = roomy.candidate()
    numbers = [await answered(roomy, candidate) for _ in range(4)]
    answering = roomy.start(image(), shadow=candidate)
    await roomy.worker.answer(await roomy.worker.submitted.get())
    await answering

    assert counted(roomy, "dropped") == 1
    assert roomy.slots.in_use == 4
    for number in numbers:
        await roomy.worker.answer(number, messages.DONE_EXPIRED)
    await idle(roomy)
    assert counted(roomy, "dropped") == 5


async def test_shadows_do_not_take_more_than_their_part_of_the_device(roomy: Story) -> None:
    candidate = roomy.candidate()
    number = await answered(roomy, candidate)
    await roomy.worker.answer(number)  # its run took half a second, two seconds' worth
    await idle(roomy)
    answering = roomy.start(image(), shadow=candidate)
    await roomy.worker.answer(await roomy.worker.submitted.get())
    await answering
    await idle(roomy)

    assert (counted(roomy, "compared"), counted(roomy, "dropped")) == (1, 1)
