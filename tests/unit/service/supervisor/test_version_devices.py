"""The supervisor's table with several devices, and versions that are loaded on their first request."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.core import VersionState
from saccade.service.ipc.messages import Load
from saccade.service.repository.open import FoundVersion
from saccade.service.supervisor.version_entry import InstanceSpec, version_state
from tests.support.version_stories import Story, key


@pytest.fixture
def story() -> Story:
    return Story()


def two_devices(story: Story, version: int = 1) -> None:
    story.add(version)
    story.desire(version, "cuda:1")


def load_on(story: Story, device: str) -> Load:
    message = story.table.next_load(device)
    assert message is not None
    return message


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["ready", "failed"], "ready"),
        (["loading", "ready"], "ready"),
        (["loading", "warming"], "warming"),
        (["building", "failed"], "building"),
        (["building", "loading"], "loading"),
        (["failed", "loading"], "loading"),
        (["failed", "failed"], "failed"),
        (["failed", "unloading"], "failed"),
        (["unloading", "ready"], "ready"),
        (["unloading", "unloading"], "unloading"),
    ],
)
def test_state_of_a_version_is_that_of_the_instance_furthest_on_its_way(states: list[str], expected: str) -> None:
    assert version_state([VersionState(state) for state in states]) == expected


def test_every_worker_loads_one_instance_at_a_time_beside_the_others(story: Story) -> None:
    two_devices(story)
    two_devices(story, 2)

    assert (load_on(story, "cpu").version, load_on(story, "cuda:1").version) == (2, 2)
    assert (story.table.next_load("cpu"), story.table.next_load("cuda:1")) == (None, None)


def test_lost_worker_takes_only_its_own_instances_away(story: Story) -> None:
    two_devices(story)
    for device in ("cpu", "cuda:1"):
        story.report(load_on(story, device).instance_id, VersionState.READY)

    story.table.worker_lost("cuda:1")

    (status,) = story.table.statuses()
    assert (status.state, [item.state for item in status.instances]) == ("ready", ["ready", "loading"])
    assert load_on(story, "cuda:1").instance_id == 3


def test_version_is_given_up_only_on_the_device_whose_worker_it_kills(story: Story) -> None:
    two_devices(story)
    story.report(load_on(story, "cpu").instance_id, VersionState.READY)
    for _ in range(2):
        load_on(story, "cuda:1")
        story.table.worker_lost("cuda:1")

    (status,) = story.table.statuses()
    assert (status.state, status.reason) == ("ready", "")
    assert "died 2 times" in status.instances[1].reason


def test_reasons_of_a_failed_version_name_the_device_where_they_differ(story: Story) -> None:
    two_devices(story)
    story.report(load_on(story, "cpu").instance_id, VersionState.FAILED, "no runtime")
    story.report(load_on(story, "cuda:1").instance_id, VersionState.FAILED, "no memory")
    assert story.table.statuses()[0].reason == "cpu: no runtime; cuda:1: no memory"

    # the same reason twice is said once, and what leaves has none
    story.add(2)
    story.table.cannot(key(2), "cuda:1", "no runtime")
    story.report(load_on(story, "cpu").instance_id, VersionState.FAILED, "no runtime")
    assert story.table.statuses()[1].reason == "no runtime"


def test_device_that_can_load_nothing_of_a_version_leaves_it_to_the_others(story: Story) -> None:
    story.add(1)
    story.table.cannot(key(1), "cuda:1", "no variant")
    story.bring_up()

    (status,) = story.table.statuses()
    assert (status.state, status.variant) == ("ready", "fp32")
    assert story.table.next_load("cuda:1") is None


def test_unload_of_a_version_covers_all_its_instances(story: Story) -> None:
    two_devices(story)
    story.desire(1, "cuda:2")  # never loaded
    for device in ("cpu", "cuda:1"):
        story.report(load_on(story, device).instance_id, VersionState.READY)
    story.table.begin_unload(key(1), generation=5)

    assert story.table.to_unload(5) == [("cpu", 1), ("cuda:1", 2)]
    story.table.unloaded(1)
    assert story.states() == {1: "unloading"}
    story.table.unloaded(2)
    assert story.states() == {}


def test_version_is_not_unloaded_while_one_of_its_devices_loads_it(story: Story) -> None:
    two_devices(story)
    story.report(load_on(story, "cpu").instance_id, VersionState.READY)
    load_on(story, "cuda:1")
    story.table.begin_unload(key(1), generation=2)

    assert story.states() == {1: "ready"}
    assert story.table.to_unload(2) == []


def test_one_instance_replaces_another_on_the_same_device(story: Story) -> None:
    # given a ready instance, and a second one that becomes ready beside it
    story.add(1)
    first = story.bring_up().instance_id
    story.desire(1, "cpu")
    second = story.bring_up().instance_id
    assert [item.instance_id for item in story.table.statuses()[0].instances] == [first, second]

    # when the first begins to leave
    old, _ = story.table.instances(key(1), "cpu")
    story.table.release(key(1), old, generation=9)

    # then the version stays ready, and the first goes once all have acknowledged
    assert story.states() == {1: "ready"}
    assert story.table.to_unload(8) == []
    assert story.table.to_unload(9) == [("cpu", first)]
    story.table.unloaded(first)
    assert [item.instance_id for item in story.table.statuses()[0].instances] == [second]


def test_older_version_stays_until_the_new_one_has_settled_on_every_device(story: Story) -> None:
    two_devices(story, 1)
    for device in ("cpu", "cuda:1"):
        story.report(load_on(story, device).instance_id, VersionState.READY)
    two_devices(story, 2)
    found = [FoundVersion(key(version), Path(f"digits/{version}"), ()) for version in (1, 2)]
    story.report(load_on(story, "cpu").instance_id, VersionState.READY)
    assert story.table.plan(found, 1, {}, ()).unload == ()

    story.report(load_on(story, "cuda:1").instance_id, VersionState.FAILED, "no memory")

    assert story.table.plan(found, 1, {}, ()).unload == (key(1),)


def test_instance_without_a_place_is_not_loaded(story: Story) -> None:
    story.add(1)
    story.table.desire(key(1), InstanceSpec("cuda:1", "fp32", "onnxruntime"))

    assert story.table.next_load("cuda:1") is None
    story.table.place(key(1), [], {"cuda:1": "no room"}, [])
    assert story.table.statuses()[0].instances[1].reason == "no room"
    story.table.retry_refused()
    story.table.place(key(1), ["cuda:1"], {}, [])
    assert load_on(story, "cuda:1").version == 1


def test_versions_that_rest_count_for_those_they_replace(story: Story) -> None:
    for version in (1, 2, 3):
        story.table.add(FoundVersion(key(version), Path(), ()))
        story.table.unload(key(version), 1)

    plan = story.table.plan([FoundVersion(key(version), Path(), ()) for version in (1, 2, 3)], 2, {}, ())

    assert plan.unload == (key(1),)
    story.table.begin_unload(key(1), 1)
    assert story.states() == {2: "loading", 3: "loading"}


def test_a_version_that_rests_is_remembered_and_loaded_again(story: Story) -> None:
    story.add(1)
    story.bring_up()
    assert story.table.unload(key(1), generation=5)
    assert story.states() == {1: "unloading"}
    assert story.table.to_unload(5) == [("cpu", 1)]
    story.table.unloaded(1)
    (resting,) = story.table.statuses()
    assert (resting.state, resting.reason, resting.instances) == ("loading", "loads on first request", ())
    assert resting.load_seconds == 0.1, "known from the last time"

    story.table.load(key(1))
    story.desire(1, "cpu")

    assert story.bring_up().instance_id == 2


def test_a_version_does_not_leave_while_it_loads(story: Story) -> None:
    story.add(1)
    story.load()

    assert not story.table.unload(key(1), generation=5)
    assert story.states() == {1: "loading"}
