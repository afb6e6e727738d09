"""Batches that overlap: one outcome each, in order, never more in flight than the backend takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from saccade.service.errors import DeviceLost
from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import SlotArena
from saccade.service.worker.instances import LoadedInstance
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel
from tests.unit.service.worker.looping import LAYOUT, LoopingWorker
from tests.unit.service.worker.scripted_backend import POISON, TIMEOUT_S
from tests.unit.service.worker.scripted_pipeline import (
    LOST,
    LOST_AT_START,
    REFUSED,
    RUN_S,
    ScriptedPipeline,
)

Worker = LoopingWorker[ScriptedPipeline]


@pytest.fixture(params=[2, 3])
def depth(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def worker(depth: int) -> Iterator[Worker]:
    arena = SlotArena.create(100, 4096)
    made = LoopingWorker(arena, ScriptedPipeline(depth))
    yield made
    if made._thread.is_alive():
        made.stop()
    arena.close()


@pytest.fixture
def running(worker: Worker) -> Worker:
    worker.start()
    return worker


def answer_of(worker: Worker, count: int, request_id: int) -> int:
    outputs = worker.outcomes(count)[request_id].outputs
    assert outputs is not None
    return int(outputs[0][0])


def hold(worker: Worker, value: int) -> int:
    """Submits an image and returns once the loop waits for its batch."""
    worker.backend.gate.clear()
    request_id = worker.submit(value)
    assert worker.backend.finishing.acquire(timeout=TIMEOUT_S)
    return request_id


def test_padded_batch_answers_its_requests_and_nobody_else(worker: Worker) -> None:
    for size, seconds in ((1, 1.0), (2, 2.0), (4, 1.0)) * 3:
        worker.latency.observe(size, seconds)
    ids = [worker.submit(value) for value in (20, 21, 22)]

    worker.start()

    assert [answer_of(worker, 3, request_id) for request_id in ids] == [40, 42, 44]
    assert worker.outcomes(3)[ids[0]].batch_size == 3
    assert worker.backend.events[0] == ("start", [20, 21, 22, 0])


def test_full_batches_overlap_and_each_answer_belongs_to_its_request(worker: Worker, depth: int) -> None:
    # given three full batches that wait when the loop begins
    ids = {worker.submit(value): value for value in range(20, 32)}

    worker.start()

    outcomes = worker.outcomes(12)
    assert {request_id: answer_of(worker, 12, request_id) for request_id in ids} == {
        request_id: 2 * value for request_id, value in ids.items()
    }
    assert {finished.batch_size for finished in outcomes.values()} == {4}
    assert worker.backend.most_in_flight == depth


def test_batches_are_reported_in_the_order_of_their_start(worker: Worker) -> None:
    ids = [worker.submit(value) for value in range(20, 32)]

    worker.start()
    worker.outcomes(12)

    assert [finished.work.request_id for finished in worker._reports] == ids


def test_more_are_never_in_flight_than_the_backend_takes(worker: Worker, depth: int) -> None:
    for value in range(20, 90):
        worker.submit(value)

    worker.start()

    assert len(worker.outcomes(70)) == 70
    assert worker.backend.most_in_flight == depth


def test_time_of_a_run_is_the_devices_own(running: Worker) -> None:
    request_id = running.submit(20)

    finished = running.outcomes(1)[request_id]

    assert finished.infer_s == RUN_S
    assert finished.queue_s >= 0
    assert running.latency.batch_s(1) == RUN_S
    assert running.observed == [(1, 1)]


def test_single_request_waits_for_nobody(running: Worker) -> None:
    for number in range(5):
        running.submit(20 + number)
        running.outcomes(number + 1)

    assert [size for _, size in running.observed] == [1] * 5


@pytest.fixture
def patient(depth: int) -> Iterator[Worker]:
    """A worker whose runs are expected to take very long, so that the loop waits for company meanwhile."""
    latency = LatencyModel()
    for size in (1, 2, 4):
        latency.observe(size, 600.0)
    arena = SlotArena.create(100, 4096)
    made = LoopingWorker(arena, ScriptedPipeline(depth), latency)
    made.start()
    yield made
    if made._thread.is_alive():
        made.stop()
    arena.close()


def test_batch_that_is_not_full_waits_for_company_while_the_device_is_busy(patient: Worker) -> None:
    # given a batch of one that runs for long
    patient.submit(20)
    assert patient.backend.started.acquire(timeout=TIMEOUT_S)

    # when requests come one by one
    for value in (21, 22, 23, 24):
        patient.submit(value)

    # then the next batch is started as soon as it is full, and not before
    assert patient.backend.started.acquire(timeout=TIMEOUT_S)
    starts = [values for kind, values in patient.backend.events if kind == "start"]
    assert starts == [[20], [21, 22, 23, 24]]
    with patient.loop.exclusive(1):  # whoever needs the device ends the wait
        assert len(patient.outcomes(5)) == 5


def test_probe_is_answered_while_a_batch_runs(patient: Worker) -> None:
    patient.submit(20)
    assert patient.backend.started.acquire(timeout=TIMEOUT_S)
    answered = threading.Event()

    patient.loop.probe(answered.set)

    assert answered.wait(TIMEOUT_S)
    with patient.loop.exclusive(1):
        pass


def test_request_that_would_miss_its_deadline_behind_what_runs_expires_at_once(patient: Worker) -> None:
    patient.submit(20)
    assert patient.backend.started.acquire(timeout=TIMEOUT_S)

    late = patient.submit(21, allowed_s=900.0)  # 600 s ahead of it and 600 s of its own

    assert patient.statuses(1) == {late: messages.DONE_EXPIRED}
    with patient.loop.exclusive(1):
        pass


def test_probe_is_not_answered_while_the_device_hangs(running: Worker) -> None:
    hold(running, 20)
    answered = threading.Event()
    running.loop.probe(answered.set)
    assert not answered.is_set()

    running.backend.gate.set()

    assert answered.wait(TIMEOUT_S)


# Failures


@pytest.mark.parametrize("bad", [POISON, REFUSED])
def test_bad_image_fails_alone_after_the_batches_before_it(worker: Worker, bad: int) -> None:
    good = [worker.submit(value) for value in (20, 21, 22, 23)]
    mixed = [worker.submit(value) for value in (30, bad, 32, 33)]
    after = [worker.submit(value) for value in (40, 41, 42, 43)]

    worker.start()

    expected = dict.fromkeys((*good, *mixed, *after), messages.DONE_OK) | {mixed[1]: messages.DONE_FAILED}
    assert worker.statuses(12) == expected
    assert answer_of(worker, 12, mixed[2]) == 64


def test_lone_bad_image_fails_and_the_next_is_answered(running: Worker) -> None:
    bad = running.submit(POISON)
    assert running.statuses(1) == {bad: messages.DONE_FAILED}

    good = running.submit(20)

    assert running.statuses(2) == {bad: messages.DONE_FAILED, good: messages.DONE_OK}


@pytest.mark.parametrize("bad", [LOST, LOST_AT_START])
def test_lost_device_ends_the_loop_after_everything_in_flight_was_reported(worker: Worker, bad: int) -> None:
    before = [worker.submit(value) for value in (20, 21, 22, 23)]
    lost = [worker.submit(value) for value in (30, bad, 32, 33)]
    if bad == LOST_AT_START:
        before, lost = [], before + lost  # the first batch is in flight when the second one is started

    worker.start()
    worker.join()

    assert isinstance(worker.error, DeviceLost)
    statuses = worker.statuses(8)
    assert {statuses[request_id] for request_id in before} <= {messages.DONE_OK}
    assert {statuses[request_id] for request_id in lost} == {messages.DONE_DEVICE_LOST}


def test_device_lost_while_repeating_reports_the_rest_of_the_batch(worker: Worker) -> None:
    # given a batch that fails as a whole and loses the device when its third image is repeated
    ids = [worker.submit(value) for value in (20, POISON, LOST, 23)]

    worker.start()
    worker.join()

    assert isinstance(worker.error, DeviceLost)
    statuses = worker.statuses(4)
    assert [statuses[request_id] for request_id in ids] == [
        messages.DONE_OK,
        messages.DONE_FAILED,
        messages.DONE_DEVICE_LOST,
        messages.DONE_DEVICE_LOST,
    ]


# Others who need the device


def test_instance_is_closed_only_after_its_batches_in_flight(running: Worker) -> None:
    held = hold(running, 20)
    remover = threading.Thread(target=running.loop.remove, args=(1,))
    remover.start()
    assert not running.backend.is_closed

    running.backend.gate.set()
    remover.join(TIMEOUT_S)

    assert running.statuses(1) == {held: messages.DONE_OK}
    assert running.backend.is_closed


def test_loader_gets_the_device_although_requests_keep_coming(worker: Worker) -> None:
    # given more requests than could run before anybody else's turn
    ids = [worker.submit(value) for value in range(20, 80)]
    worker.backend.gate.clear()
    worker.start()
    assert worker.backend.finishing.acquire(timeout=TIMEOUT_S)
    seen: list[int] = []

    def load() -> None:
        with worker.loop.exclusive(1):
            seen.append(len([kind for kind, _ in worker.backend.events if kind == "finish"]))
            seen.append(len([kind for kind, _ in worker.backend.events if kind == "start"]))

    loader = threading.Thread(target=load)
    loader.start()
    while not worker.loop._device_lock.is_wanted:
        pass
    worker.backend.gate.set()
    loader.join(TIMEOUT_S)

    # then it came in between, when nothing was in flight
    assert seen[0] == seen[1] < 15
    assert worker.statuses(60) == dict.fromkeys(ids, messages.DONE_OK)


def test_batches_of_two_instances_are_in_flight_together(worker: Worker, depth: int) -> None:
    other = ScriptedPipeline(depth)
    worker.loop.add(2, LoadedInstance(other, LAYOUT, BatchLimits((1, 2, 4), 0.0), LatencyModel()))
    other.gate.clear()
    worker.backend.gate.clear()
    ids = [worker.submit(value) for value in (20, 21, 22, 23)]
    ids += [worker.submit(value, instance_id=2) for value in (30, 31, 32, 33)]

    worker.start()
    for backend in (worker.backend, other):
        assert backend.started.acquire(timeout=TIMEOUT_S)
    for backend in (worker.backend, other):
        backend.gate.set()

    assert worker.statuses(8) == dict.fromkeys(ids, messages.DONE_OK)


def test_stop_finishes_what_is_queued_and_in_flight_first(running: Worker) -> None:
    ids = [hold(running, 20), *(running.submit(value) for value in (21, 22, 23))]

    running.stop()

    assert running.statuses(4) == dict.fromkeys(ids, messages.DONE_OK)
