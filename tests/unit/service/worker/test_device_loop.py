"""The device thread: one outcome per request, a bad image fails alone, removal and stop leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import SlotArena
from saccade.service.worker.instances import Finished, LoadedInstance, Work
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.queue import Backlog
from tests.unit.service.worker.looping import FAR_S, LAYOUT, LoopingWorker
from tests.unit.service.worker.scripted_backend import POISON, TIMEOUT_S, ScriptedBackend

Worker = LoopingWorker[ScriptedBackend]


@pytest.fixture
def worker() -> Iterator[Worker]:
    arena = SlotArena.create(100, 4096)
    made = LoopingWorker(arena, ScriptedBackend())
    yield made
    if made._thread.is_alive():
        made.stop()
    arena.close()


@pytest.fixture
def running(worker: Worker) -> Worker:
    worker.start()
    return worker


def answer_of(finished: Finished) -> int:
    assert finished.outputs is not None
    return int(finished.outputs[0][0])


def test_answer_belongs_to_its_request(running: Worker) -> None:
    # given a device that is busy while four requests gather
    first = running.hold_with(1)
    ids = [running.submit(value) for value in (10, 20, 30, 40)]
    running.backend.gate.set()

    outcomes = running.outcomes(5)

    assert answer_of(outcomes[first]) == 2
    assert [answer_of(outcomes[request_id]) for request_id in ids] == [20, 40, 60, 80]
    assert [outcomes[request_id].batch_size for request_id in ids] == [4] * 4
    assert running.backend.batches == [[1], [10, 20, 30, 40]]


def test_times_and_batches_are_observed(running: Worker) -> None:
    request_id = running.submit(1)

    finished = running.outcomes(1)[request_id]
    running.stop()

    assert finished.queue_s >= 0
    assert finished.infer_s >= 0
    assert finished.layout is LAYOUT
    assert running.observed == [(1, 1)]
    assert running.latency.batch_s(1) == finished.infer_s


@pytest.fixture
def padding(worker: Worker) -> Worker:
    """Three requests are padded to four rows."""
    for size, seconds in ((1, 1.0), (2, 2.0), (4, 1.0)) * 3:
        worker.latency.observe(size, seconds)
    return worker


def test_padded_batch_answers_its_requests_and_nobody_else(padding: Worker) -> None:
    ids = [padding.submit(value) for value in (10, 20, 30)]

    padding.start()
    outcomes = padding.outcomes(3)
    padding.stop()

    assert [answer_of(outcomes[request_id]) for request_id in ids] == [20, 40, 60]
    assert [outcomes[request_id].batch_size for request_id in ids] == [3] * 3
    assert padding.observed == [(1, 3)], "batch sizes count requests"
    assert padding.backend.batches == [[10, 20, 30, 0]]
    assert padding.latency.run_count == 10


def test_image_that_failed_is_not_left_in_the_padding(padding: Worker) -> None:
    # given four images of which the last makes runs fail, so that it lies in the buffer's fourth row
    for value in (10, 20, 30, POISON):
        padding.submit(value)
    padding.start()
    padding.outcomes(4)
    while padding.backend.started.acquire(blocking=False):
        pass  # what has run so far
    padding.hold_with(40)
    ids = [padding.submit(value) for value in (50, 60, 70)]

    padding.backend.gate.set()

    assert [answer_of(padding.outcomes(8)[request_id]) for request_id in ids] == [100, 120, 140]
    assert padding.backend.batches[-1] == [50, 60, 70, 0]


def test_poison_image_fails_alone(running: Worker) -> None:
    running.hold_with(1)
    ids = [running.submit(value) for value in (10, POISON, 30, 40)]
    running.backend.gate.set()

    outcomes = running.outcomes(5)

    statuses = [outcomes[request_id].status for request_id in ids]
    assert statuses == [messages.DONE_OK, messages.DONE_FAILED, messages.DONE_OK, messages.DONE_OK]
    assert answer_of(outcomes[ids[3]]) == 80
    assert running.backend.batches[1:] == [[10, POISON, 30, 40], [10, POISON], [10], [POISON], [30, 40]]


def test_half_of_a_size_that_is_not_allowed_is_run_one_by_one(worker: Worker) -> None:
    limits = BatchLimits((1, 3), 0.0)
    worker.loop.add(1, LoadedInstance(worker.backend, LAYOUT, limits, worker.latency))
    ids = [worker.submit(value) for value in (10, POISON, 30)]

    worker.start()

    assert [worker.statuses(3)[request_id] for request_id in ids] == [
        messages.DONE_OK,
        messages.DONE_FAILED,
        messages.DONE_OK,
    ]
    assert worker.backend.batches == [[10, POISON, 30], [10], [POISON], [30]]


@pytest.mark.parametrize("bad", [{0}, {3}, {0, 3}, {0, 1, 2, 3}])
def test_good_neighbours_of_any_bad_images_run_twice_more_at_most(worker: Worker, bad: set[int]) -> None:
    ids = [worker.submit(POISON if place in bad else 20 + place) for place in range(4)]

    worker.start()

    statuses = worker.statuses(4)
    assert {place for place, request_id in enumerate(ids) if statuses[request_id] == messages.DONE_FAILED} == bad
    for place in set(range(4)) - bad:
        assert sum(20 + place in batch for batch in worker.backend.batches) <= 3


def test_loop_goes_on_after_a_failed_batch(running: Worker) -> None:
    bad = running.submit(POISON)
    running.outcomes(1)
    good = running.submit(5)

    assert running.statuses(2) == {bad: messages.DONE_FAILED, good: messages.DONE_OK}


def test_cancelled_request_is_not_run(running: Worker) -> None:
    held = running.hold_with(1)
    gone, kept = running.submit(2), running.submit(3)

    running.loop.cancel("api", gone)
    running.backend.gate.set()

    assert running.statuses(3) == {
        held: messages.DONE_OK,
        gone: messages.DONE_CANCELLED,
        kept: messages.DONE_OK,
    }
    assert running.backend.batches == [[1], [3]]


def test_lost_connection_cancels_only_its_own_requests(running: Worker) -> None:
    held = running.hold_with(1)
    gone = [running.submit(2, connection="lost"), running.submit(3, connection="lost")]
    kept = running.submit(4)

    running.loop.cancel("lost", None)
    running.backend.gate.set()

    expected = {held: messages.DONE_OK, kept: messages.DONE_OK, **dict.fromkeys(gone, messages.DONE_CANCELLED)}
    assert running.statuses(4) == expected


def test_request_that_is_already_running_cannot_be_cancelled(running: Worker) -> None:
    held = running.hold_with(1)

    running.loop.cancel("api", held)
    running.backend.gate.set()

    assert running.statuses(1) == {held: messages.DONE_OK}


def test_request_that_cannot_make_its_deadline_expires_without_compute(running: Worker) -> None:
    running.latency.observe(1, 10.0)

    late = running.submit(1, allowed_s=1.0)

    assert running.statuses(1) == {late: messages.DONE_EXPIRED}
    assert running.backend.batches == []


def test_request_for_an_unknown_instance_is_answered_at_once(worker: Worker) -> None:
    request_id = worker.submit(1, instance_id=9)

    assert worker.statuses(1) == {request_id: messages.DONE_UNKNOWN_INSTANCE}


def test_removed_instance_answers_what_waits_and_is_closed(worker: Worker) -> None:
    waiting = worker.submit(1)

    worker.loop.remove(1)
    after = worker.submit(2)

    assert worker.statuses(2) == dict.fromkeys((waiting, after), messages.DONE_UNKNOWN_INSTANCE)
    assert worker.backend.is_closed
    worker.loop.remove(1)  # twice does no harm


def test_instance_is_closed_only_after_its_running_batch(running: Worker) -> None:
    held = running.hold_with(1)
    remover = threading.Thread(target=running.loop.remove, args=(1,))
    remover.start()
    assert not running.backend.is_closed

    running.backend.gate.set()
    remover.join(TIMEOUT_S)

    assert running.statuses(1) == {held: messages.DONE_OK}
    assert running.backend.is_closed


def test_batch_taken_just_before_its_instance_is_removed_is_answered_and_not_run(worker: Worker) -> None:
    # given a probe, which the loop answers between taking a batch and running it
    request_id = worker.submit(1)
    worker.loop.probe(lambda: worker.loop.remove(1))

    worker.start()

    assert worker.statuses(1) == {request_id: messages.DONE_UNKNOWN_INSTANCE}
    assert worker.backend.batches == []


def test_probe_is_answered_by_an_idle_loop(running: Worker) -> None:
    answered = threading.Event()

    running.loop.probe(answered.set)

    assert answered.wait(TIMEOUT_S)


def test_probe_is_not_answered_while_the_device_hangs(running: Worker) -> None:
    running.hold_with(1)
    answered = threading.Event()
    running.loop.probe(answered.set)
    assert not answered.is_set()

    running.backend.gate.set()

    assert answered.wait(TIMEOUT_S)


def test_stop_finishes_what_is_queued_first(running: Worker) -> None:
    ids = [running.hold_with(1), *(running.submit(value) for value in (2, 3, 4))]

    running.stop()

    assert running.statuses(4) == dict.fromkeys(ids, messages.DONE_OK)


def test_exclusive_keeps_batches_from_the_device(running: Worker) -> None:
    with running.loop.exclusive(1):
        request_id = running.submit(1)
        probed = threading.Event()
        running.loop.probe(probed.set)
        assert running.backend.batches == []

    assert running.statuses(1) == {request_id: messages.DONE_OK}


def test_backlogs_say_how_much_waits_and_for_how_long(worker: Worker) -> None:
    for size, seconds in ((1, 0.1), (4, 0.2)):
        worker.latency.observe(size, seconds)
    for value in range(5):
        worker.submit(value)

    assert worker.loop.backlogs() == {1: Backlog(5, pytest.approx(0.3), 0.05)}


def test_backlog_counts_what_runs(running: Worker) -> None:
    running.latency.observe(1, 600.0)
    running.hold_with(1)

    assert 500.0 < running.loop.backlogs()[1].wait_s <= 600.0


def test_request_that_would_be_late_behind_others_is_refused_while_the_device_is_busy(running: Worker) -> None:
    # given runs of one second, one of them under way and four requests behind it
    running.latency.observe(1, 1.0)
    held = running.hold_with(1)
    ahead = [running.submit(value) for value in (2, 3, 4, 5)]

    late = running.submit(6, allowed_s=1.5)

    assert running.statuses(1) == {late: messages.DONE_EXPIRED}
    running.backend.gate.set()
    assert running.statuses(6) == dict.fromkeys((held, *ahead), messages.DONE_OK) | {late: messages.DONE_EXPIRED}


def test_higher_priority_goes_first_among_requests_that_are_due_together(running: Worker) -> None:
    running.hold_with(1)
    running.submit(20, rank_offset_s=1.0)
    running.submit(30)
    running.submit(40, rank_offset_s=-1.0)
    running.backend.gate.set()

    running.outcomes(4)

    assert running.backend.batches[1][:2] == [40, 30]


def test_single_image_is_run_where_it_lies(worker: Worker) -> None:
    request_id = worker.submit(6)
    instance = LoadedInstance(worker.backend, LAYOUT, BatchLimits((1, 2), 0.0), worker.latency)
    works = [Work("api", worker._arena, request_id, request_id, 1, FAR_S, 0.0)] * 2

    slot = worker._arena.tensor(request_id, LAYOUT.input)
    assert np.shares_memory(instance.gather(works[:1], 1)[0], slot)
    assert not np.shares_memory(instance.gather(works, 2)[0], slot)
    assert instance.gather(works, 2)[0][:, 0].tolist() == [6, 6]


@pytest.mark.parametrize("wake", [lambda worker: worker.loop.stop(), lambda worker: worker.submit(1)])
def test_waiting_loop_wakes_for_news(running: Worker, wake: Callable[[Worker], object]) -> None:
    wake(running)

    running.stop()
