"""Who has a place: reservations count, measurements replace estimates, levels give way, the least used leaves."""

from __future__ import annotations

from saccade.service.core import VersionKey
from saccade.service.ipc.messages import DeviceFacts
from tests.support.reconciling import MIB, A, B, Simulation


def on_demand(max_models: int = 0, pinned: str = "") -> Simulation:
    return Simulation(A, load_models="on_demand", max_loaded_models=max_models, pinned_models=pinned)


def asked(story: Simulation, model: str, *file_mib: int) -> VersionKey:
    """A version that a request asks for."""
    key = story.publish(model, 1, *(file_mib or (20,)))
    story.settle()
    story.observed.woken(key)
    story.settle()
    return key


def test_what_waits_to_be_loaded_already_holds_its_place() -> None:
    story = Simulation(A)
    story.publish("first", 1, 30)
    second = story.publish("second", 1, 30)
    for _ in range(3):
        story.step()

    reason = story.status(second).reason
    assert "needs 60.0 MiB (estimated from its files); cuda:0 has 40.0 of 100 MiB free" in reason
    assert "first/1 level-0 60.0 MiB (estimated" in reason


def test_measured_memory_replaces_the_estimate_and_is_remembered_for_the_same_bytes() -> None:
    story = Simulation(A)
    first = story.publish("first", 1, 45)
    for _ in range(3):
        story.step()
    story.finish(memory_mib=20)
    other = story.publish("other", 1, 39)
    story.settle()
    assert story.ready == {"first/1", "other/1"}  # 20 measured and 78 estimated
    assert story.observed.memory_bytes(A) == 20 * MIB

    story.remove(first)
    story.settle()
    story.publish("first", 1, 45)
    story.settle()

    assert story.ready == {"first/1", "other/1"}
    assert other in story.answering()


def test_refused_version_is_placed_when_room_was_made() -> None:
    story = Simulation(A)
    first = story.publish("first", 1, 30)
    second = story.publish("second", 1, 30)
    story.settle()
    assert story.status(second).state == "failed"

    story.remove(first)
    story.settle()

    assert (story.ready, story.status(second).reason) == ({"second/1"}, "")


def test_restarted_worker_keeps_who_had_a_place() -> None:
    story = Simulation(A)
    story.publish("first", 1, 30)
    story.settle()
    second = story.publish("second", 9, 30)  # newer, and so first in line if places were given anew
    story.settle()

    story.lose(A)
    story.settle()

    assert (story.ready, story.status(second).state) == ({"first/1"}, "failed")


def test_version_that_fits_one_device_of_two_is_served_there() -> None:
    story = Simulation(A, B)
    story.observed.device_lost(B)
    story.publish("early", 1, 30)
    for _ in range(3):
        story.step()
    story.finish()
    story.remove(VersionKey("early", 1))
    story.settle()
    story.observed.device_ready(B, DeviceFacts())
    wide = story.publish("wide", 1, 30)
    story.settle()

    assert story.states(wide) == [(A, "ready"), (B, "ready")]


def test_spread_places_each_version_once_and_evenly_with_its_ladder() -> None:
    story = Simulation(A, B, placement="spread")
    keys = [story.publish(name, 1, 18, 2) for name in ("first", "second", "third", "fourth")]
    story.settle()

    devices = [{device for device, _ in story.states(key)} for key in keys]
    assert all(len(found) == 1 for found in devices)
    assert sorted(device for found in devices for device in found) == [A, A, B, B]
    assert all(len(story.states(key)) == 2 for key in keys)


def test_spread_version_that_answers_by_a_cheaper_level_is_not_moved() -> None:
    story = Simulation(A, B, placement="spread")
    key = story.publish("digits", 1, 1, 1)
    story.settle()
    ((device, _), _) = story.states(key)
    story.lose(device)
    story.step()
    story.finish("failed", reason="no memory")
    story.settle()

    assert story.states(key) == [(device, "failed"), (device, "ready")]


def test_device_that_cannot_be_used_says_its_problem_until_it_can() -> None:
    story = Simulation(A)
    story.observed.device_ready(A, DeviceFacts(problem="the driver is for CUDA 11, 13 is needed"))
    key = story.publish("first", 1, 1)
    story.settle()
    assert story.status(key).reason == "the driver is for CUDA 11, 13 is needed"

    story.observed.device_ready(A, DeviceFacts())
    story.settle()

    assert story.ready == {"first/1"}


def test_gpu_is_bounded_by_what_its_worker_found_free_and_a_cpu_by_the_limit_alone() -> None:
    for device, is_there in ((A, False), ("cpu", True)):
        story = Simulation(device)
        story.observed.device_ready(device, DeviceFacts(memory_total_bytes=80 * MIB, memory_free_bytes=50 * MIB))
        story.publish("first", 1, 30)
        story.settle()

        assert (story.ready == {"first/1"}) is is_there


def test_every_version_has_its_place_before_any_has_a_second_level() -> None:
    story = Simulation(A)
    first, second = story.publish("first", 1, 20, 20), story.publish("second", 1, 30, 5)
    story.settle()

    assert story.ready == {"first/1", "second/1"}
    assert [state for key in (first, second) for _, state in story.states(key)] == ["ready", "failed"] * 2


def test_level_without_room_leaves_its_version_ready() -> None:
    story = Simulation(A)
    key = story.publish("model", 1, 30, 30, 5)
    story.settle()

    assert [(item.ladder_level, item.state) for item in story.status(key).instances] == [
        (0, "ready"),
        (1, "failed"),
        (2, "ready"),
    ]


def test_best_levels_are_loaded_first() -> None:
    story = Simulation(A)
    for model in ("first", "second"):
        story.publish(model, 1, 5, 5)
    for _ in range(3):
        story.step()
    loaded = []
    while story.orders:
        loaded.append(story.finish().variant)

    assert loaded == ["level-0", "level-0", "level-1", "level-1"]


def test_second_level_gives_way_to_a_version_without_a_place_where_that_is_enough() -> None:
    story = Simulation(A)
    story.publish("a", 1, 20, 5)
    story.publish("b", 1, 20)
    large = story.publish("large", 1, 20)
    story.settle()
    assert story.evicted == [], "a level of 10 MiB does not make room for 40"
    assert story.status(large).state == "failed"

    story.publish("small", 1, 8)
    story.settle()

    assert story.evicted == ["a's level-1"]
    assert story.ready == {"a/1", "b/1", "small/1"}


# Models on demand


def test_versions_sleep_until_they_are_asked_for() -> None:
    story = on_demand()
    key = story.publish("a", 1, 20)
    story.settle()
    assert (story.ready, story.status(key).reason) == (set(), "loads on first request")

    assert story.observed.woken(key)
    assert not story.observed.woken(key)
    story.settle()

    assert story.ready == {"a/1"}
    assert story.status(key).load_seconds == 1.0


def test_least_recently_used_leaves_for_whoever_is_asked_for() -> None:
    story = on_demand()
    a, b = asked(story, "a"), asked(story, "b")
    story.now_s = 10.0
    story.use(a)
    story.now_s = 20.0
    asked(story, "c")

    assert (story.evicted, story.ready) == (["b"], {"a/1", "c/1"})
    story.observed.woken(b)
    story.settle()
    assert story.evicted == ["b", "a"], "not c, which just came"
    assert story.status(a).load_seconds == 1.0, "known from the last time"


def test_version_in_use_is_waited_for_unless_its_users_are_gone() -> None:
    story = on_demand(max_models=1)
    a = asked(story, "a")
    story.now_s = 10.0
    story.use(a, in_flight=1)
    asked(story, "b")
    assert (story.ready, story.is_waiting) == ({"a/1"}, True)

    story.observed.api_gone("api-0", 1)
    story.settle()

    assert (story.ready, story.evicted) == ({"b/1"}, ["a"])


def test_who_just_came_stays_for_four_times_its_load() -> None:
    story = on_demand(max_models=1)
    asked(story, "a")
    asked(story, "b")
    story.now_s = 3.9
    story.settle()
    assert story.ready == {"a/1"}

    story.now_s = 4.0
    story.settle()

    assert story.ready == {"b/1"}


def test_pinned_model_is_loaded_at_once_and_never_leaves() -> None:
    story = on_demand(max_models=1, pinned="a")
    story.publish("a", 1, 20)
    story.settle()
    story.now_s = 100.0
    b = asked(story, "b")

    assert (story.ready, story.evicted) == ({"a/1"}, [])
    assert "all are pinned" in story.status(b).reason


def test_version_that_was_refused_takes_no_place_from_those_asked_for_later() -> None:
    story = on_demand(pinned="a")
    story.publish("a", 1, 20)
    large = asked(story, "large", 35)
    assert story.status(large).state == "failed"
    asked(story, "b", 20)
    story.now_s = 1000.0
    story.settle()
    assert (story.ready, story.evicted) == ({"a/1", "b/1"}, [])

    for model in ("a", "b"):  # it is loaded once there is room
        story.remove(VersionKey(model, 1))
    story.settle()
    assert story.ready == {"large/1"}


def test_version_asked_for_while_it_leaves_is_loaded_again_after_who_asked_first() -> None:
    story = on_demand(max_models=1)
    a = asked(story, "a")
    story.now_s = 10.0
    b = story.publish("b", 1, 20)
    story.settle()
    story.observed.woken(b)
    story.step()
    assert story.status(a).state == "unloading"
    story.observed.woken(a)
    story.settle()
    assert story.ready == {"b/1"}, "who asked first comes first"

    story.now_s = 20.0
    story.settle()

    assert story.ready == {"a/1"}


def test_new_version_of_a_loaded_model_is_loaded_without_being_asked_for() -> None:
    story = on_demand()
    asked(story, "a", 10)
    story.publish("a", 2, 10)
    story.settle()

    assert story.ready == {"a/1", "a/2"}


def test_what_is_leaving_already_is_enough() -> None:
    for story in (on_demand(max_models=2), on_demand()):
        asked(story, "a")
        asked(story, "b")
        story.now_s = 100.0
        c = story.publish("c", 1, 20)
        story.settle()
        story.observed.woken(c)
        for _ in range(3):
            story.step()
        assert story.evicted == ["a"]
        story.settle()
        assert story.ready == {"b/1", "c/1"}
