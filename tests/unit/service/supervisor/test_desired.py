"""From what was observed to commands: one load at a time, crashes have a culprit, unloading waits for everybody."""

from __future__ import annotations

import pytest

from saccade.service.core import VersionKey
from saccade.service.ipc.messages import Load
from saccade.service.repository.open import FoundVersion
from saccade.service.supervisor.engines.plan_decision import MissingPlan, PlanDecision, Serving
from saccade.service.supervisor.policy import pinned
from saccade.service.supervisor.state import (
    Building,
    Failed,
    InstanceState,
    Leaving,
    Loading,
    Placed,
    Quarantine,
    Ready,
    Version,
    version_state,
)
from tests.support.plan_records import key as plan_key
from tests.support.reconciling import A, B, Simulation

READY, LOADING, WARMING = Ready(1), Loading(1), Loading(1, is_warming=True)
FAILED, LEAVING = Failed(""), Leaving(1, 0, 1)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "loading"),
        ([READY, FAILED], "ready"),
        ([LOADING, READY], "ready"),
        ([LOADING, WARMING], "warming"),
        ([Building(), FAILED], "building"),
        ([Building(), Placed()], "loading"),
        ([FAILED, LOADING], "loading"),
        ([FAILED, FAILED], "failed"),
        ([FAILED, LEAVING], "failed"),
        ([LEAVING, READY], "ready"),
        ([LEAVING, LEAVING], "unloading"),
    ],
)
def test_state_of_a_version_is_that_of_the_instance_furthest_on_its_way(
    states: list[InstanceState], expected: str
) -> None:
    version = Version(FoundVersion(VersionKey("digits", 1), None, ()))  # type: ignore[arg-type]  # its path is not read

    assert version_state(version, states) == expected


def test_load_carries_what_the_worker_needs() -> None:
    story = Simulation(A)
    story.publish("digits", 3)
    story.step()
    story.step()
    story.step()

    assert story.orders == [Load(1, "digits", 3, "level-0", "digits/3", "digest-digits-3", (1,), "onnxruntime")]


def test_newest_version_is_loaded_first_and_alone_on_each_worker() -> None:
    story = Simulation(A, B)
    for version in (1, 2, 3):
        story.publish("digits", version)
    for _ in range(4):
        story.step()
    assert [order.version for order in story.orders] == [3, 3]

    story.finish("failed", reason="no memory")
    story.finish()

    assert [order.version for order in story.orders] == [2]  # it is tried on one device, while 3 answers on the other
    story.finish()
    assert [order.version for order in story.orders] == [2]


def test_reasons_name_the_device_where_they_differ() -> None:
    story = Simulation(A, B)
    key = story.publish("digits")
    for _ in range(3):
        story.step()
    story.finish("failed", reason="no runtime")
    story.finish("failed", reason="no memory")

    assert story.status(key).reason == "cuda:0: no runtime; cuda:1: no memory"
    assert story.status(key).state == "failed"


def test_refused_version_shows_its_reason_and_the_one_before_is_loaded() -> None:
    story = Simulation(A, versions_per_model=1)
    story.publish("digits", 1)
    bad = story.publish("digits", 2, refusal="tampered")
    story.settle()

    assert (story.status(bad).state, story.status(bad).reason) == ("failed", "tampered")
    assert story.ready == {"digits/1"}

    story.publish("digits", 2, stamp=5)  # its files were replaced by good ones
    story.settle()
    assert story.ready == {"digits/2"}


def test_lost_worker_loads_its_own_instances_again_under_new_numbers() -> None:
    story = Simulation(A, B)
    key = story.publish("digits")
    story.settle()

    story.lose(B)
    assert story.states(key) == [(A, "ready"), (B, "loading")]
    story.settle()

    assert [item.instance_id for item in story.status(key).instances] == [1, 3]


def test_worker_that_ended_loads_first_what_was_ready_before() -> None:
    story = Simulation(A, versions_per_model=3)
    for version in (1, 2):
        story.publish("digits", version)
    story.settle()
    story.publish("digits", 3)
    for _ in range(3):
        story.step()
    assert [order.version for order in story.orders] == [3]

    story.lose(A)
    loaded = []
    for _ in range(3):
        story.step()
        loaded.append(story.finish().version)

    assert loaded == [2, 1, 3]


def test_load_in_progress_is_to_blame_for_the_end_of_its_worker_and_else_what_ran() -> None:
    story = Simulation(A, B)
    old = story.publish("digits", 1)
    story.settle()
    (running, _) = (item.instance_id for item in story.status(old).instances)
    assert story.observed.culprit(A, running) == (old, False)
    assert story.observed.culprit(A, 0) is None

    new = story.publish("digits", 2)
    for _ in range(3):
        story.step()

    assert story.observed.culprit(A, running) == (new, True)
    assert story.observed.culprit(B, 0) is None  # 2 is not tried there yet


def test_quarantined_version_is_unloaded_everywhere_and_stays_known_while_the_one_before_serves() -> None:
    story = Simulation(A, B, versions_per_model=1)
    old = story.publish("digits", 1)
    story.settle()
    bad = story.publish("digits", 2)
    story.settle()
    assert story.ready == {"digits/2"}

    story.observed.quarantined(bad, Quarantine("it killed its worker while it answered"))
    story.settle()

    assert story.ready == {"digits/1"}
    assert (story.status(bad).state, story.status(bad).instances) == ("quarantined", ())
    assert story.status(bad).reason.startswith("it killed its worker while it answered; it is loaded again when")
    assert story.status(old).state == "ready"

    story.publish("digits", 2, stamp=5)  # other files are another try
    story.settle()
    assert story.ready == {"digits/2"}


def test_unload_waits_for_every_acknowledgement_and_is_sent_once() -> None:
    story = Simulation(A, versions_per_model=1)
    old = story.publish("digits", 1)
    story.settle()
    story.publish("digits", 2)
    story.settle(acknowledge=False)
    assert story.status(old).state == "unloading"
    assert story.unloads == []

    story.acknowledged = story.generation
    story.step()
    story.step()
    assert story.unloads == [1]
    story.observed.unloaded(1)
    story.settle()

    assert story.ready == {"digits/2"}
    assert old not in story.observed.versions


def test_version_being_loaded_is_not_unloaded_under_the_worker() -> None:
    story = Simulation(A)
    key = story.publish("digits")
    other = story.publish("letters")
    for _ in range(3):
        story.step()
    assert [order.model for order in story.orders] == ["digits"]
    story.remove(key)
    story.step()
    assert story.states(key) == [(A, "loading")]

    story.finish()
    story.settle()

    assert key not in story.observed.versions
    assert story.answering() == {other}


def test_report_of_an_unknown_or_leaving_instance_is_ignored() -> None:
    story = Simulation(A)
    key = story.publish("digits")
    story.publish("letters")
    story.settle()
    story.remove(key)
    story.step()

    for number in (1, 99):
        report = story.observed.reported(type("Report", (), {"instance_id": number, "state": "ready"})(), 0.0)  # type: ignore[arg-type]
        assert report is None
    assert story.states(key) == [(A, "unloading")]
    story.lose(A)  # what was leaving has left with its worker
    story.settle()
    assert story.ready == {"letters/1"}


def test_older_version_stays_until_the_newer_one_has_settled_on_every_device() -> None:
    story = Simulation(A, B, versions_per_model=1)
    old = story.publish("digits", 1)
    story.settle()
    story.publish("digits", 2)
    for _ in range(3):
        story.step()
    story.finish()
    story.step()
    assert story.states(old) == [(A, "ready"), (B, "ready")]

    story.finish("failed", reason="no memory")
    story.settle()

    assert story.ready == {"digits/2"}


def test_rollback_within_the_grace_period_loads_nothing() -> None:
    story = Simulation(A, versions_per_model=1)
    for version in (1, 2):
        story.publish("digits", version)
    story.policies = {"digits": pinned(1)}
    story.settle()
    story.policies = {"digits": pinned(2)}
    story.kept = {VersionKey("digits", 1)}
    story.settle()
    assert story.ready == {"digits/1", "digits/2"}

    loads = story.observed.instances.keys()
    story.policies, story.kept = {"digits": pinned(1)}, {VersionKey("digits", 2)}
    story.settle()
    assert story.observed.instances.keys() == loads
    story.kept = set()
    story.settle()
    assert story.ready == {"digits/1"}


# Plans of TensorRT


PLAIN = Serving("fp16", "onnxruntime", file_bytes=1)
MISSING = MissingPlan("fp16", plan_key())


def plan(digest: str) -> Serving:
    return Serving("fp16", "tensorrt", f"plans/{digest}", digest, 1)


def with_plans(*devices: str, policy: str = "replicate") -> tuple[Simulation, VersionKey]:
    story = Simulation(*devices, backend="auto", placement=policy)
    return story, story.publish("digits")


def test_what_answers_stays_until_the_plan_is_ready_in_its_place() -> None:
    story, key = with_plans(A)
    story.settle()
    assert story.status(key).instances == ()  # nothing was decided yet

    story.plans[key, A] = PlanDecision(PLAIN, MISSING, "")
    story.settle()
    story.plans[key, A] = PlanDecision(plan("a"), None, "")
    story.step()
    story.step()
    assert [item.state for item in story.status(key).instances] == ["ready", "loading"]
    story.settle()

    assert [(item.backend, item.state) for item in story.status(key).instances] == [("tensorrt", "ready")]


def test_plan_that_cannot_be_opened_leaves_what_answers_and_is_replaced() -> None:
    story, key = with_plans(A)
    story.plans[key, A] = PlanDecision(PLAIN, MISSING, "")
    story.settle()
    story.plans[key, A] = PlanDecision(plan("bad"), None, "")
    for _ in range(3):
        story.step()
    story.finish("failed", reason="another driver")
    assert [item.state for item in story.status(key).instances] == ["ready", "failed"]

    story.plans[key, A] = PlanDecision(plan("good"), None, "")
    story.settle()

    assert [(item.backend, item.state) for item in story.status(key).instances] == [("tensorrt", "ready")]


def test_version_whose_only_plan_failed_recovers_with_the_next_decision() -> None:
    story, key = with_plans(A)
    story.plans[key, A] = PlanDecision(plan("bad"), None, "")
    for _ in range(3):
        story.step()
    story.finish("failed", reason="damaged")
    assert story.status(key).state == "failed"

    story.plans[key, A] = PlanDecision(None, MISSING, "")
    story.settle()
    assert story.status(key).state == "building"
    story.plans[key, A] = PlanDecision(plan("bad"), None, "")  # built anew
    story.settle()

    assert story.status(key).state == "ready"


def test_device_that_can_never_serve_says_why() -> None:
    story, key = with_plans(A)
    story.plans[key, A] = "TensorRT does not take this network"
    story.settle()

    assert (story.status(key).state, story.status(key).reason) == ("failed", "TensorRT does not take this network")


def test_spread_places_a_version_once_all_devices_have_decided() -> None:
    story, key = with_plans(A, B, policy="spread")
    story.plans[key, A] = PlanDecision(PLAIN, None, "")
    story.settle()
    assert story.ready == set()

    story.plans[key, B] = PlanDecision(PLAIN, None, "")
    story.settle()
    ((device, state),) = story.states(key)
    assert (device in (A, B), state) == (True, "ready")
    story.plans[key, device] = PlanDecision(plan("a"), None, "")
    story.settle()

    assert [(item.device, item.backend) for item in story.status(key).instances] == [(device, "tensorrt")]
