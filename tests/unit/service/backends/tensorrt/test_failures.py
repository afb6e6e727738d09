"""Failures while the TensorRT backend serves: each is named, and a device that is not lost stays usable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saccade.service.backends.tensorrt_backend import TensorRtBackend
from saccade.service.errors import BackendError, DeviceLost
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import request_for_plan
from tests.support.simulated_tensorrt import SimulatedTensorRt
from tests.unit.service.backends.tensorrt.machines import (
    REQUEST,
    Machine,
    batch,
    design,
    same,
)

# Failures while it serves


def test_failed_run_leaves_the_backend_usable(machine: Machine) -> None:
    backend = machine.open(design(fails_on=lambda size: size == 4))

    for _ in range(5):
        with pytest.raises(BackendError, match="failed to run batch size 4: no kernel for batch 4"):
            backend.infer(batch(4))
    assert same(backend.infer(batch(5)), batch(5))
    backend.close()
    machine.cuda.assert_clean()


@pytest.mark.parametrize("call", ["copy_to_device", "record", "wait", "copy_to_host", "synchronize_event", "elapsed_s"])
def test_any_call_may_fail_once(machine: Machine, call: str) -> None:
    backend = machine.open()
    backend.infer(batch(2))
    backend.staging(3)[...] = batch(3)
    other = backend.start()  # a batch in flight beside it
    machine.cuda.fail_once(call)

    with pytest.raises(BackendError, match="cudaErrorUnknown"):
        backend.infer(batch(2))

    assert same(backend.finish(other)[0], batch(3))
    assert same(backend.infer(batch(2, seed=5)), batch(2, seed=5))
    backend.close()
    machine.cuda.assert_clean()


@pytest.mark.parametrize("number", [1, 4, 8, 12])
def test_sticky_error_is_a_lost_device_wherever_it_shows(machine: Machine, number: int) -> None:
    backend = machine.open()
    backend.infer(batch(2))
    machine.cuda.lose_at_call(number)

    def serve() -> None:
        for _ in range(3):
            backend.infer(batch(2))

    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        serve()


def test_kernel_that_breaks_the_device_is_noticed_at_finish(tmp_path: Path) -> None:
    cuda = SimulatedCuda(eagerness=0.0)
    backend = Machine(tmp_path, cuda, SimulatedTensorRt(cuda)).open()
    backend.infer(batch(2))
    cuda.poison_next_run()
    backend.staging(2)[...] = batch(2)
    started = backend.start()

    with pytest.raises(DeviceLost):
        backend.finish(started)


def test_run_that_tensorrt_refuses_on_a_lost_device_is_a_lost_device(tmp_path: Path) -> None:
    # given a device whose sticky error only waiting shows, while TensorRT says no more than "no"
    cuda = SimulatedCuda(eagerness=0.0)
    tensorrt = SimulatedTensorRt(cuda)
    made = design()
    backend = Machine(tmp_path, cuda, tensorrt).open(made, cuda_graphs=False)
    backend.infer(batch(2))
    backend.infer(batch(2))
    made.fails_on = lambda _size: True
    cuda.poison_next_run()
    backend.staging(2)[...] = batch(2)

    with pytest.raises(DeviceLost):
        backend.start()


def test_batch_size_that_was_not_loaded_is_refused(machine: Machine) -> None:
    backend = machine.open(allowed_batch_sizes=(1, 4))

    with pytest.raises(BackendError, match="batch size 2 is not among those loaded: 1, 4"):
        backend.staging(2)


def test_misuse_is_an_error_of_ours(machine: Machine) -> None:
    backend = machine.open()
    with pytest.raises(BackendError, match="nothing was staged"):
        backend.start()
    with pytest.raises(BackendError, match=r"images are \(3, 2, 3\), the model takes \(2, 2, 3\)"):
        backend.infer(np.zeros((1, 3, 2, 3), np.uint8))
    for _ in range(2):
        backend.staging(1)[...] = 0
        backend.start()
    with pytest.raises(BackendError, match="2 batches are in flight"):
        backend.staging(1)


def test_close_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    cuda = SimulatedCuda(eagerness=0.0)
    backend = Machine(tmp_path, cuda, SimulatedTensorRt(cuda)).open()
    for _ in range(2):
        backend.staging(5)[...] = batch(5)
        backend.start()

    backend.close()

    cuda.assert_clean()


def test_request_without_sizes_takes_those_of_the_plan(machine: Machine) -> None:
    backend = machine.open(allowed_batch_sizes=())

    assert same(backend.infer(batch(5)), batch(5))


def test_digest_of_the_file_is_not_asked_for_while_exporting(machine: Machine) -> None:
    place = machine.put(design())
    request = replace(request_for_plan(REQUEST, place), sha256=None)

    backend = TensorRtBackend(request, tensorrt=machine.tensorrt, cuda=machine.cuda)

    assert same(backend.infer(batch(1)), batch(1))
