"""Ledgers over the version table: reservations count, measurements replace estimates, room that grew is used."""

from __future__ import annotations

from pathlib import Path

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import DeviceFacts, InstanceState
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.placement.device_placement import DevicePlacement, MemoryLimits
from saccade.service.supervisor.placement.place import Policy
from saccade.service.supervisor.version_entry import InstanceSpec
from saccade.service.supervisor.versions import VersionTable
from tests.support.versions import manifest_for

MIB = 1024 * 1024
A, B = "cuda:0", "cuda:1"


class Story:
    """Devices of 100 MiB over one table."""

    def __init__(self, *devices: str, policy: Policy = "replicate") -> None:
        self.table = VersionTable()
        self.placement = DevicePlacement(self.table, policy, MemoryLimits(0, 100))
        self._devices = devices
        for device in devices:
            self.placement.device_ready(device, DeviceFacts())

    def add(self, model: str, file_mib: int, version: int = 1, digest: str = "") -> VersionKey:
        """A verified version; an instance needs twice its file."""
        key = VersionKey(model, version)
        self.table.add(FoundVersion(key, Path(f"{model}/{version}"), ()))
        verified = VerifiedVersion(manifest_for(model, version), digest or f"digest-{model}", Path())
        self.table.verified(key, verified, (1,))
        for device in self._devices:
            self.table.desire(key, InstanceSpec(device, "fp32", "onnxruntime", file_bytes=file_mib * MIB))
        return key

    def load(self, device: str, memory_mib: int) -> int:
        """The next instance there becomes ready and holds this much."""
        message = self.table.next_load(device)
        assert message is not None
        update = InstanceState(message.instance_id, "ready", "", "CUDAExecutionProvider", 0.1, memory_mib * MIB)
        self.table.report(update)
        self.placement.reconcile()
        return message.instance_id

    def unload(self, key: VersionKey) -> None:
        self.table.begin_unload(key, 1)
        for _, instance_id in self.table.to_unload(1):
            self.table.unloaded(instance_id)
            self.placement.instance_gone()

    def states(self, model: str) -> list[tuple[str, str]]:
        return [
            (instance.device, instance.state)
            for status in self.table.statuses()
            if status.model == model
            for instance in status.instances
        ]

    def reason(self, model: str) -> str:
        return next(status.reason for status in self.table.statuses() if status.model == model)


def test_what_waits_to_be_loaded_already_holds_its_place() -> None:
    story = Story(A)
    story.add("first", 30)
    story.add("second", 30)

    (refused,) = story.placement.reconcile()

    assert refused.key.model == "second"
    assert story.states("first") == [(A, "loading")]
    assert story.states("second") == [(A, "failed")]
    assert "needs 60.0 MiB (estimated from its files); cuda:0 has 40.0 of 100 MiB free" in story.reason("second")
    assert "first/1 fp32 60.0 MiB (estimated" in story.reason("second")


def test_measured_memory_replaces_the_estimate() -> None:
    story = Story(A)
    story.add("first", 30)
    story.placement.reconcile()
    story.load(A, memory_mib=35)
    story.add("second", 30)

    assert story.placement.reconcile() == []
    assert story.placement.measured_bytes(A) == 35 * MIB
    assert story.placement.memory(A).held_bytes == (35 + 60) * MIB


def test_measurement_is_remembered_for_the_next_load_of_the_same_bytes() -> None:
    # given a version that needed 20 MiB where its files let expect 90
    story = Story(A)
    key = story.add("first", 45)
    story.placement.reconcile()
    story.load(A, memory_mib=20)
    story.unload(key)
    story.add("other", 39)
    story.placement.reconcile()

    # when it comes back while 22 MiB are free
    story.add("first", 45)

    assert story.placement.reconcile() == []
    assert story.states("first") == [(A, "loading")]


def test_refused_version_is_tried_again_when_room_was_made() -> None:
    story = Story(A)
    first = story.add("first", 30)
    story.placement.reconcile()
    story.load(A, memory_mib=60)
    story.add("second", 30)
    story.placement.reconcile()
    assert story.placement.reconcile() == [], "not again while nothing changed"

    story.unload(first)

    assert story.placement.reconcile() == []
    assert story.states("second") == [(A, "loading")]
    assert story.reason("second") == ""


def test_restarted_worker_keeps_who_had_a_place() -> None:
    story = Story(A)
    story.add("first", 30)
    story.placement.reconcile()
    story.load(A, memory_mib=60)
    story.add("second", 30, version=9)  # newer, and so first in line if places were given anew
    story.placement.reconcile()

    story.table.worker_lost(A)
    story.placement.device_lost(A)
    story.placement.device_ready(A, DeviceFacts())
    story.placement.reconcile()

    assert (story.states("first"), story.states("second")) == ([(A, "loading")], [(A, "failed")])


def test_version_that_fits_one_device_of_two_is_served_there() -> None:
    story = Story(A, B)
    story.table.add(FoundVersion(VersionKey("pinned", 1), Path(), ()))
    story.table.verified(VersionKey("pinned", 1), VerifiedVersion(manifest_for("pinned", 1), "d", Path()), (1,))
    story.table.desire(VersionKey("pinned", 1), InstanceSpec(A, "fp32", "onnxruntime", file_bytes=30 * MIB))
    story.placement.reconcile()
    story.add("wide", 30)
    story.placement.reconcile()
    story.load(B, memory_mib=60)

    assert story.states("wide") == [(A, "failed"), (B, "ready")]
    (status,) = [item for item in story.table.statuses() if item.model == "wide"]
    assert (status.state, status.reason) == ("ready", "")


def test_spread_places_each_version_once_and_evenly() -> None:
    story = Story(A, B, policy="spread")
    for name in ("first", "second", "third", "fourth"):
        story.add(name, 20)
    story.placement.reconcile()

    devices = [story.states(name) for name in ("first", "second", "third", "fourth")]
    assert [len(found) for found in devices] == [1] * 4
    assert sorted(found[0][0] for found in devices) == [A, A, B, B]


def test_device_that_cannot_be_used_fails_its_instances_with_the_problem() -> None:
    story = Story(A)
    story.placement.device_ready(A, DeviceFacts(problem="the driver is for CUDA 11, 13 is needed"))
    story.add("first", 1)
    story.placement.reconcile()
    assert story.reason("first") == "the driver is for CUDA 11, 13 is needed"

    story.placement.device_ready(A, DeviceFacts())
    story.placement.reconcile()

    assert story.states("first") == [(A, VersionState.LOADING.value)]


def test_cpu_is_bounded_by_the_limit_alone() -> None:
    story = Story("cpu")
    story.placement.device_ready("cpu", DeviceFacts(memory_total_bytes=20 * MIB, memory_free_bytes=10 * MIB))

    assert story.placement.memory("cpu").capacity_bytes == 100 * MIB


def test_gpu_is_bounded_by_what_its_worker_found_free() -> None:
    story = Story(A)
    story.placement.device_ready(A, DeviceFacts(memory_total_bytes=80 * MIB, memory_free_bytes=70 * MIB))

    assert story.placement.memory(A).capacity_bytes == 70 * MIB


def add_rungs(story: Story, model: str, *file_mib: int) -> None:
    """A version whose first level has the first size, and so on."""
    key = story.add(model, file_mib[0])
    for level, size in enumerate(file_mib[1:], start=1):
        spec = InstanceSpec(A, f"level-{level}", "onnxruntime", file_bytes=size * MIB, ladder_level=level)
        story.table.desire(key, spec)


def test_every_version_has_its_place_before_any_has_a_second_rung() -> None:
    story = Story(A)
    add_rungs(story, "first", 20, 20)
    add_rungs(story, "second", 30, 5)

    refused = story.placement.reconcile()

    assert [(item.key.model, item.ladder_level) for item in refused] == [("first", 1), ("second", 1)], (
        "100 MiB hold two of them"
    )
    placed = [
        (key.model, instance.spec.ladder_level)
        for key, entry in story.table.entries()
        for instance in entry.instances
        if instance.is_placed
    ]
    assert placed == [("first", 0), ("second", 0)]


def test_a_rung_without_room_leaves_its_version_ready() -> None:
    story = Story(A)
    add_rungs(story, "model", 30, 30, 5)

    refused = story.placement.reconcile()
    while (load := story.table.next_load(A)) is not None:
        story.table.report(InstanceState(load.instance_id, "ready", "", "fake", 0.1))

    assert [(item.variant, item.ladder_level) for item in refused] == [("level-1", 1)]
    (found,) = story.table.statuses()
    assert (found.state, found.variant) == ("ready", "fp32")
    assert [(item.ladder_level, item.state) for item in found.instances] == [(0, "ready"), (1, "failed"), (2, "ready")]


def test_best_rungs_are_loaded_first() -> None:
    story = Story(A)
    add_rungs(story, "first", 5, 5)
    add_rungs(story, "second", 5, 5)
    story.placement.reconcile()
    loaded = []
    while (load := story.table.next_load(A)) is not None:
        loaded.append(load.variant)
        story.table.report(InstanceState(load.instance_id, "ready", "", "fake", 0.1))

    assert loaded == ["fp32", "fp32", "level-1", "level-1"]


def test_a_version_comes_before_a_rung_that_waits_again() -> None:
    story = Story(A)
    gone = story.add("gone", 10)
    story.add("old", 20, version=2)
    story.table.desire(
        VersionKey("old", 2), InstanceSpec(A, "level-1", "onnxruntime", file_bytes=30 * MIB, ladder_level=1)
    )
    assert [item.ladder_level for item in story.placement.reconcile()] == [1], "40 of 100 MiB are free, it needs 60"

    story.table.begin_unload(gone, 1)
    story.placement.instance_gone()
    story.add("new", 30)

    assert [(item.key.model, item.ladder_level) for item in story.placement.reconcile()] == [("old", 1)]
