"""The supervisor's table: one load at a time, crashes have a culprit, unloading waits for everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import InstanceState, Load
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.version_entry import InstanceSpec, version_state
from saccade.service.supervisor.versions import VersionTable
from tests.support.versions import manifest_for


def key(version: int) -> VersionKey:
    return VersionKey("digits", version)


class Story:
    """A table with the shorthand these tests read best in."""

    def __init__(self) -> None:
        self.table = VersionTable()

    def add(self, *versions: int) -> None:
        for version in versions:
            self.table.add(FoundVersion(key(version), Path(f"digits/{version}"), ()))
            manifest = manifest_for("digits", version)
            verified = VerifiedVersion(manifest, f"digest-{version}", Path())
            self.table.verified(key(version), verified, (1, 2))
            self.desire(version, "cpu")

    def desire(self, version: int, device: str) -> None:
        self.table.desire(key(version), InstanceSpec(device, "fp32", "onnxruntime"))
        self.table.place(key(version), [device], {}, [])

    def load(self) -> Load:
        message = self.table.next_load("cpu")
        assert message is not None
        return message

    def report(self, instance_id: int, state: VersionState, reason: str = "") -> bool:
        update = InstanceState(instance_id, state.value, reason, "CPUExecutionProvider", 0.1)
        return self.table.report(update) is not None

    def bring_up(self) -> Load:
        message = self.load()
        assert self.report(message.instance_id, VersionState.READY)
        return message

    def states(self) -> dict[int, str]:
        return {status.version: status.state for status in self.table.statuses()}


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
    assert not story.table.is_settled()


def test_refused_version_shows_its_reason(story: Story) -> None:
    story.table.add(FoundVersion(key(1), Path(), ()))
    story.table.refuse(key(1), "tampered")

    (status,) = story.table.statuses()
    assert (status.state, status.reason, status.instances) == ("failed", "tampered", ())
    assert story.table.is_settled()


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

    plan = story.table.plan([FoundVersion(key(2), Path(), ())], 2)

    assert [item.key for item in plan.load] == [key(2)]
    assert plan.unload == (key(1),)


# Several devices


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
    assert story.table.plan(found, 1).unload == ()

    story.report(load_on(story, "cuda:1").instance_id, VersionState.FAILED, "no memory")

    assert story.table.plan(found, 1).unload == (key(1),)


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

    plan = story.table.plan([FoundVersion(key(version), Path(), ()) for version in (1, 2, 3)], versions_per_model=2)

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
