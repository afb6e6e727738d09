"""The simulated device keeps CUDA's promises and no others: what a real one may do, some seed does."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest

from saccade.service.backends.cuda.driver import PinnedMemory
from saccade.service.errors import BackendError, DeviceLost, OutOfDeviceMemory, RuntimeMissing
from tests.support.simulated_cuda import FRESH, POISON, SimulatedCuda, Violation

LAZY = 0.0


def device(seed: int = 0, eagerness: float = LAZY) -> SimulatedCuda:
    made = SimulatedCuda(seed, eagerness=eagerness)
    made.set_device(0)
    return made


def filled(cuda: SimulatedCuda, value: int) -> PinnedMemory:
    memory = cuda.allocate_pinned(16)
    memory.view[:] = value
    return memory


def test_copy_shows_its_data_only_after_somebody_waited() -> None:
    cuda = device()
    stream, source, target, memory = cuda.create_stream(), filled(cuda, 7), filled(cuda, 0), cuda.allocate(16)

    cuda.copy_to_device(memory, source.address, 16, stream)
    cuda.copy_to_host(target.address, memory, 16, stream)
    assert set(target.view) == {POISON}
    cuda.synchronize_stream(stream)

    assert set(target.view) == {7}


def test_what_is_written_before_the_copy_ran_is_what_is_copied() -> None:
    cuda = device()
    stream, source, memory = cuda.create_stream(), filled(cuda, 7), cuda.allocate(16)

    cuda.copy_to_device(memory, source.address, 16, stream)
    source.view[:] = 9
    cuda.synchronize_stream(stream)

    assert set(cuda.memory_at(memory, 16)) == {9}


def _order_of_two_streams(seed: int, *, with_event: bool) -> list[str]:
    cuda, order = device(seed), []
    first, second, event = cuda.create_stream(), cuda.create_stream(), cuda.create_event()
    cuda.queue(first, lambda: order.append("first"))
    cuda.record(event, first)
    if with_event:
        cuda.wait(second, event)
    cuda.queue(second, lambda: order.append("second"))
    for stream in (first, second):
        cuda.synchronize_stream(stream)
    return order


def test_streams_run_in_any_order_unless_an_event_binds_them() -> None:
    free = {tuple(_order_of_two_streams(seed, with_event=False)) for seed in range(30)}
    bound = {tuple(_order_of_two_streams(seed, with_event=True)) for seed in range(30)}

    assert free == {("first", "second"), ("second", "first")}
    assert bound == {("first", "second")}


def test_work_of_one_stream_keeps_its_order() -> None:
    for seed in range(10):
        cuda, order = device(seed, 0.7), []
        stream = cuda.create_stream()
        for number in range(6):
            cuda.queue(stream, partial(order.append, number))
        cuda.synchronize_stream(stream)

        assert order == list(range(6))


def test_work_may_run_before_anybody_waits() -> None:
    ran = []
    for seed in range(10):
        cuda = device(seed, eagerness=1.0)
        stream = cuda.create_stream()
        cuda.queue(stream, lambda: ran.append(True))
        cuda.memory()

    assert ran


def test_event_waits_for_its_latest_record_only() -> None:
    cuda, order = device(), []
    first, second, event = cuda.create_stream(), cuda.create_stream(), cuda.create_event()

    cuda.wait(second, event)  # never recorded: nothing to wait for
    cuda.queue(second, lambda: order.append("second"))
    cuda.synchronize_stream(second)
    cuda.queue(first, lambda: order.append("first"))
    cuda.record(event, first)

    assert order == ["second"]
    assert not cuda.is_done(event)
    cuda.synchronize_event(event)
    assert cuda.is_done(event)


def test_time_passes_between_events_that_happened() -> None:
    cuda = device()
    stream, start, end = cuda.create_stream(), cuda.create_event(), cuda.create_event()
    cuda.record(start, stream)
    cuda.queue(stream, lambda: None)
    cuda.record(end, stream)
    cuda.synchronize_event(end)

    assert cuda.elapsed_s(start, end) > 0


def test_graph_runs_what_was_captured_each_time_it_is_launched() -> None:
    cuda, ran = device(), []
    stream = cuda.create_stream()
    cuda.begin_capture(stream)
    cuda.queue(stream, lambda: ran.append(True))
    graph = cuda.end_capture(stream)
    cuda.synchronize_stream(stream)
    assert ran == []

    cuda.launch(graph, stream)
    cuda.launch(graph, stream)
    cuda.synchronize_stream(stream)

    assert ran == [True, True]


def test_new_memory_holds_no_zeros() -> None:
    cuda = device()

    assert set(cuda.memory_at(cuda.allocate(8), 8)) == {FRESH}


# What it forbids


def test_use_after_free_is_a_violation() -> None:
    cuda = device()
    stream, source, memory = cuda.create_stream(), filled(cuda, 1), cuda.allocate(16)
    cuda.free(memory)

    with pytest.raises(Violation, match="not device memory, or not any more"):
        cuda.copy_to_device(memory, source.address, 16, stream)


def test_running_past_the_end_of_memory_is_a_violation() -> None:
    cuda = device()
    stream, source, memory = cuda.create_stream(), filled(cuda, 1), cuda.allocate(8)

    with pytest.raises(Violation, match="16 bytes at"):
        cuda.copy_to_device(memory, source.address, 16, stream)


def test_double_free_is_a_violation() -> None:
    cuda = device()
    memory = cuda.allocate(8)
    cuda.free(memory)

    with pytest.raises(Violation, match="freed before"):
        cuda.free(memory)


def test_freeing_while_work_is_queued_is_a_violation() -> None:
    cuda = device()
    stream, memory = cuda.create_stream(), cuda.allocate(8)
    cuda.queue(stream, lambda: None)

    with pytest.raises(Violation, match="freed while work is queued"):
        cuda.free(memory)
    with pytest.raises(Violation, match="destroyed while work is queued"):
        cuda.destroy_stream(stream)


@pytest.mark.parametrize("call", ["allocate", "synchronize_stream", "set_device of another thread"])
def test_forbidden_calls_are_violations(call: str) -> None:
    cuda = device()
    stream = cuda.create_stream()
    found: list[str] = []

    def use() -> None:
        try:
            cuda.memory()
        except Violation as violation:
            found.append(str(violation))

    if call == "set_device of another thread":
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert found == ["memory is called in a thread that has no current device"]
        return
    cuda.begin_capture(stream)
    with pytest.raises(Violation, match="while a stream is capturing"):
        cuda.allocate(8) if call == "allocate" else cuda.synchronize_stream(stream)


def test_waiting_for_what_can_never_happen_is_a_violation() -> None:
    cuda = device()
    first, second, event = cuda.create_stream(), cuda.create_stream(), cuda.create_event()
    cuda.begin_capture(first)
    graph = cuda.end_capture(first)
    cuda.queue(first, lambda: None)
    cuda.record(event, first)
    cuda._streams[first].queued.clear()  # as a driver that lost the work
    cuda.wait(second, event)

    with pytest.raises(Violation, match="can never run"):
        cuda.synchronize_stream(second)
    cuda.destroy_graph(graph)


@pytest.mark.parametrize("what", ["device memory", "pinned memory", "streams", "events", "graphs"])
def test_whatever_is_left_is_found(what: str) -> None:
    cuda = device()
    stream = cuda.create_stream()
    if what == "device memory":
        cuda.allocate(1)
    elif what == "pinned memory":
        cuda.allocate_pinned(1)
    elif what == "events":
        cuda.create_event()
    elif what == "graphs":
        cuda.begin_capture(stream)
        cuda.end_capture(stream)
    if what != "streams":
        cuda.destroy_stream(stream)

    with pytest.raises(AssertionError, match=what):
        cuda.assert_clean()


# Failures on demand


def test_memory_runs_out() -> None:
    cuda = SimulatedCuda(memory_bytes=100)
    cuda.set_device(0)
    cuda.allocate(60)

    with pytest.raises(OutOfDeviceMemory, match="cudaMalloc: cudaErrorMemoryAllocation"):
        cuda.allocate(60)
    assert cuda.memory().free_bytes == 40


def test_sticky_error_stays() -> None:
    cuda = device()
    cuda.lose_at_call(2)
    cuda.memory()

    for _ in range(2):
        with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
            cuda.memory()


def test_work_that_breaks_the_device_is_noticed_by_whoever_waits() -> None:
    cuda = device()
    stream = cuda.create_stream()
    cuda.poison_next_run()
    cuda.queue(stream, lambda: None)

    with pytest.raises(DeviceLost):
        cuda.synchronize_stream(stream)


def test_single_failure_passes() -> None:
    cuda = device()
    cuda.fail_once("memory")

    with pytest.raises(BackendError, match="cudaErrorUnknown"):
        cuda.memory()
    assert cuda.memory().free_bytes > 0


def test_absent_device_is_a_missing_runtime() -> None:
    with pytest.raises(RuntimeMissing, match="no usable GPU"):
        device().set_device(1)


def test_pinned_memory_is_an_array() -> None:
    memory = device().allocate_pinned(4)
    memory.view[:] = np.arange(4)

    assert memory.view.tolist() == [0, 1, 2, 3]
