"""The supervisor's table: one load at a time, crashes have a culprit, unloading waits for everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.core import VersionState
from saccade.service.ipc.messages import Load
from saccade.service.repository.open import FoundVersion
from tests.support.version_stories import Story, key


@pytest.fixture
def story() -> Story:
    return Story()


def test_load_carries_what_the_worker_needs(story: Story) -> None:
    story.add(3)

    assert story.load() == Load(1, "digits", 3, "fp32", "digits/3", "digest-3", (1, 2), "onnxruntime")


def test_newest_version_is_loaded_first_and_alone(story: Story) -> None:
    story.add(1, 2)

    assert story.load().version == 2
    assert story.table.next_load("cpu") is None


def test_next_version_is_loaded_when_the_first_is_settled(story: Story) -> None:
    story.add(1, 2)
    first = story.load()
    story.report(first.instance_id, VersionState.WARMING)
    assert story.table.next_load("cpu") is None

    story.report(first.instance_id, VersionState.FAILED, "no memory")

    assert story.load().version == 1
    assert {status.version: status.reason for status in story.table.statuses()} == {1: "", 2: "no memory"}


def test_unverified_version_is_not_loaded(story: Story) -> None:
    story.table.add(FoundVersion(key(1), Path(), ()))

    assert story.table.next_load("cpu") is None
    assert not story.table.has_no_load_pending()


def test_refused_version_shows_its_reason(story: Story) -> None:
    story.table.add(FoundVersion(key(1), Path(), ()))
    story.table.refuse(key(1), "tampered")

    (status,) = story.table.statuses()
    assert (status.state, status.reason, status.instances) == ("failed", "tampered", ())
    assert story.table.has_no_load_pending()


def test_status_of_a_ready_version_names_instance_and_device(story: Story) -> None:
    story.add(1)
    story.bring_up()

    (status,) = story.table.statuses()
    (instance,) = status.instances
    assert (status.state, instance.state, instance.instance_id, instance.device) == ("ready", "ready", 1, "cpu")
    assert (instance.backend, instance.provider) == ("onnxruntime", "CPUExecutionProvider")
    assert (status.manifest_sha256, status.variant) == ("digest-1", "fp32")


def test_lost_worker_means_everything_is_loaded_again(story: Story) -> None:
    story.add(1, 2)
    story.bring_up()
    story.bring_up()

    story.table.worker_lost("cpu")

    assert story.states() == {1: "loading", 2: "loading"}
    assert story.bring_up().instance_id == 3  # numbers are never used twice


def test_version_that_kills_the_worker_twice_while_loading_is_given_up(story: Story) -> None:
    story.add(1, 2)
    for _ in range(2):
        assert story.load().version == 2
        story.table.worker_lost("cpu")

    assert story.states() == {1: "loading", 2: "failed"}
    assert "the worker died 2 times while loading it" in story.table.statuses()[1].reason
    assert story.load().version == 1


def test_crash_while_serving_does_not_count_against_a_version(story: Story) -> None:
    story.add(1)
    for _ in range(3):
        story.bring_up()
        story.table.worker_lost("cpu")

    assert story.states() == {1: "loading"}


def test_successful_load_forgives_an_earlier_crash(story: Story) -> None:
    story.add(1)
    story.load()
    story.table.worker_lost("cpu")
    story.bring_up()
    story.table.worker_lost("cpu")
    story.load()
    story.table.worker_lost("cpu")

    assert story.states() == {1: "loading"}


def test_unload_waits_for_every_acknowledgement_and_is_sent_once(story: Story) -> None:
    story.add(1)
    instance_id = story.bring_up().instance_id
    story.table.begin_unload(key(1), generation=7)
    assert story.states() == {1: "unloading"}

    assert story.table.to_unload(acknowledged_generation=6) == []
    assert story.table.to_unload(acknowledged_generation=7) == [("cpu", instance_id)]
    assert story.table.to_unload(acknowledged_generation=8) == []

    story.table.unloaded(instance_id)
    assert story.states() == {}


def test_version_being_loaded_is_not_unloaded_under_the_worker(story: Story) -> None:
    story.add(1)
    instance_id = story.load().instance_id
    story.table.begin_unload(key(1), generation=2)
    assert story.states() == {1: "loading"}

    story.report(instance_id, VersionState.READY)
    story.table.begin_unload(key(1), generation=3)

    assert story.table.to_unload(3) == [("cpu", instance_id)]


def test_version_that_never_reached_the_worker_just_goes(story: Story) -> None:
    story.add(1)
    story.table.begin_unload(key(1), generation=2)

    assert story.states() == {}


def test_report_of_an_unknown_or_unloading_instance_is_ignored(story: Story) -> None:
    story.add(1)
    instance_id = story.bring_up().instance_id
    assert not story.report(99, VersionState.READY)

    story.table.begin_unload(key(1), generation=2)

    assert not story.report(instance_id, VersionState.READY)
    assert story.states() == {1: "unloading"}


def test_lost_worker_finishes_what_was_unloading(story: Story) -> None:
    story.add(1)
    story.bring_up()
    story.table.begin_unload(key(1), generation=2)

    story.table.worker_lost("cpu")

    assert story.states() == {}


def test_plan_sees_states_and_fingerprints_of_the_table(story: Story) -> None:
    story.add(1)
    story.bring_up()

    plan = story.table.plan([FoundVersion(key(2), Path(), ())], 2, {}, ())

    assert [item.key for item in plan.load] == [key(2)]
    assert plan.unload == (key(1),)
