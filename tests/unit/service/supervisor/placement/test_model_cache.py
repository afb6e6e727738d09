"""Who is in memory: loads once, waits for room, evicts by last use, and levels give way to versions."""

from __future__ import annotations

from pathlib import Path

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import DeviceFacts, InstanceState, Usage
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.placement.device_placement import DevicePlacement, MemoryLimits
from saccade.service.supervisor.placement.model_cache import ModelCache, ModelCacheEvents, ModelCacheRule
from saccade.service.supervisor.version_entry import Instance, InstanceSpec
from saccade.service.supervisor.versions import VersionTable
from tests.support.versions import manifest_for

MIB = 1024 * 1024
DEVICE = "cuda:0"


class Story:
    """A device of 100 MiB; every version takes 40 and 10 more for a second level."""

    def __init__(self, *, on_demand: bool = True, pinned: frozenset[str] = frozenset(), max_models: int = 0) -> None:
        self.now_s = 0.0
        self.evicted: list[str] = []
        self.table = VersionTable()
        self.placement = DevicePlacement(self.table, "replicate", MemoryLimits(0, 100))
        rule = ModelCacheRule(on_demand, pinned, max_models)
        events = ModelCacheEvents(self._unload, self._release)
        self.model_cache = ModelCache(self.table, rule, self.placement.held_bytes, events, lambda: self.now_s)
        self.placement.device_ready(DEVICE, DeviceFacts())

    def _unload(self, key: VersionKey) -> None:
        self.evicted.append(key.model)
        self.table.unload(key, 1)

    def _release(self, key: VersionKey, instance: Instance) -> None:
        self.evicted.append(f"{key.model}'s {instance.spec.variant}")
        self.table.release(key, instance, 1)

    def publish(self, model: str, version: int = 1) -> VersionKey:
        key = VersionKey(model, version)
        self.table.add(FoundVersion(key, Path(), ()))
        self.table.verified(key, VerifiedVersion(manifest_for(model, version), model, Path()), (1,))
        if self.model_cache.starts_unloaded(key):
            self.table.unload(key, 1)
        return key

    def desire(self, key: VersionKey, levels: int = 1) -> None:
        """What the supervisor does with a wish."""
        self.model_cache.desire(key)
        for each in self.model_cache.take_requested():
            self.table.load(each)
            self.bring_up(each, levels)

    def bring_up(self, key: VersionKey, levels: int = 1) -> None:
        for level, name in enumerate(("fp32", "int8-cpu")[:levels]):
            spec = InstanceSpec(DEVICE, name, "onnxruntime", file_bytes=(5 if level else 20) * MIB, ladder_level=level)
            self.table.desire(key, spec)
        self.turn()

    def turn(self) -> None:
        """Places and loads what can be; what was told to leave has left."""
        self.model_cache.is_waiting = False
        self.placement.reconcile(self.model_cache.room)
        while (load := self.table.next_load(DEVICE)) is not None:
            self.table.report(InstanceState(load.instance_id, "ready", "", "fake", 1.0))
            self.model_cache.ready(VersionKey(load.model, load.version))
        gone = self.table.to_unload(1)
        for _, instance_id in gone:
            self.table.unloaded(instance_id)
            self.placement.instance_gone()
        for key in self.model_cache.take_requested():
            self.table.load(key)
            self.bring_up(key)
        if gone:
            self.turn()

    def use(self, key: VersionKey, in_flight: int = 0) -> None:
        self.model_cache.used("api-0", [Usage(key.model, key.version, in_flight, self.now_s)])

    def load(self, model: str) -> VersionKey:
        key = self.publish(model)
        self.desire(key)
        return key

    @property
    def ready(self) -> set[str]:
        return {key.model for key, entry in self.table.entries() if entry.state is VersionState.READY}


def test_versions_rest_until_they_are_wanted() -> None:
    story = Story()
    key = story.publish("a")
    assert (story.ready, story.table.entry(key).reason) == (set(), "loads on first request")  # type: ignore[union-attr]  # it is there

    story.desire(key)

    assert story.ready == {"a"}


def test_wanted_twice_is_loaded_once() -> None:
    story = Story()
    key = story.load("a")
    story.desire(key)

    assert len(story.table.instances(key, DEVICE)) == 1


def test_least_recently_used_leaves_for_whoever_is_wanted() -> None:
    story = Story()
    a, b = story.load("a"), story.load("b")
    story.now_s = 10.0
    story.use(a)
    story.now_s = 20.0
    story.load("c")

    assert story.evicted == ["b"]
    assert story.ready == {"a", "c"}
    story.desire(b)
    assert story.evicted == ["b", "a"], "not c, which just came"
    assert story.ready == {"b", "c"}


def test_a_version_in_use_is_waited_for() -> None:
    story = Story(max_models=1)
    a = story.load("a")
    story.now_s = 10.0
    story.use(a, in_flight=1)
    story.load("b")
    assert (story.ready, story.model_cache.is_waiting) == ({"a"}, True)

    story.use(a, in_flight=0)
    story.turn()

    assert (story.ready, story.evicted) == ({"b"}, ["a"])


def test_requests_of_a_process_that_died_hold_nothing() -> None:
    story = Story(max_models=1)
    a = story.load("a")
    story.now_s = 10.0
    story.use(a, in_flight=1)
    story.load("b")
    story.model_cache.api_gone("api-0")
    story.turn()

    assert story.ready == {"b"}


def test_who_just_came_stays_for_four_times_its_load() -> None:
    story = Story(max_models=1)
    story.load("a")
    story.load("b")
    story.now_s = 3.9
    story.turn()
    assert story.ready == {"a"}

    story.now_s = 4.0
    story.turn()

    assert story.ready == {"b"}


def test_a_pinned_model_is_loaded_at_once_and_never_leaves() -> None:
    story = Story(pinned=frozenset({"a"}), max_models=1)
    story.bring_up(story.publish("a"))
    story.now_s = 100.0
    story.load("b")

    assert (story.ready, story.evicted) == ({"a"}, [])
    assert "all are pinned" in story.table.statuses()[1].reason


def test_a_version_wanted_while_it_leaves_is_loaded_again_afterwards() -> None:
    story = Story(max_models=1)
    a = story.load("a")
    story.now_s = 10.0
    b = story.publish("b")
    story.model_cache.desire(b)
    for key in story.model_cache.take_requested():
        story.table.load(key)
        story.table.desire(key, InstanceSpec(DEVICE, "fp32", "onnxruntime"))
    story.placement.reconcile(story.model_cache.room)
    story.model_cache.desire(a)
    assert story.model_cache.take_requested() == [], "it is still on its way out"

    story.turn()
    assert story.ready == {"b"}, "who asked first comes first"
    story.now_s = 20.0
    story.turn()

    assert story.ready == {"a"}


def test_a_second_rung_gives_way_to_a_version_without_a_place() -> None:
    story = Story(on_demand=False)
    a, b = story.publish("a"), story.publish("b")
    story.bring_up(a, levels=2)
    story.bring_up(b, levels=1)
    assert story.ready == {"a", "b"}

    story.bring_up(story.publish("c"), levels=1)
    assert story.evicted == [], "a level of 10 MiB does not make room for 40"

    small = story.publish("small")
    story.table.desire(small, InstanceSpec(DEVICE, "fp32", "onnxruntime", file_bytes=8 * MIB))
    story.turn()

    assert story.evicted == ["a's int8-cpu"]
    assert story.ready == {"a", "b", "small"}


def test_everything_is_loaded_unless_on_demand() -> None:
    story = Story(on_demand=False)

    assert not story.model_cache.starts_unloaded(VersionKey("a", 1))


def test_new_version_of_a_loaded_model_does_not_rest() -> None:
    story = Story()
    story.load("a")

    assert not story.model_cache.starts_unloaded(VersionKey("a", 2))
    assert story.model_cache.starts_unloaded(VersionKey("b", 1))


def test_one_that_is_leaving_already_is_enough() -> None:
    story = Story(max_models=2)
    story.load("a")
    story.load("b")
    story.now_s = 100.0
    c = story.publish("c")
    story.model_cache.desire(c)
    for key in story.model_cache.take_requested():
        story.table.load(key)
        story.table.desire(key, InstanceSpec(DEVICE, "fp32", "onnxruntime"))
    for _ in range(3):
        story.placement.reconcile(story.model_cache.room)

    assert story.evicted == ["a"]
    story.turn()
    assert story.ready == {"b", "c"}


def test_memory_that_is_leaving_already_is_enough() -> None:
    story = Story()
    story.load("a")
    story.load("b")
    story.now_s = 100.0
    c = story.publish("c")
    story.model_cache.desire(c)
    for key in story.model_cache.take_requested():
        story.table.load(key)
        story.table.desire(key, InstanceSpec(DEVICE, "fp32", "onnxruntime", file_bytes=20 * MIB))
    for _ in range(3):
        story.placement.reconcile(story.model_cache.room)

    assert story.evicted == ["a"]
