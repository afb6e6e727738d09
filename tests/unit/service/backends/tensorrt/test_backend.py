"""The TensorRT backend on a simulated device: right answers in every order of events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.service.backends.base import UInt8Array
from saccade.service.errors import BackendError
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import SIZES
from tests.support.simulated_tensorrt import Design, SimulatedTensorRt, Tensor
from tests.unit.service.backends.tensorrt.machines import (
    Machine,
    answers,
    batch,
    design,
    rtx,
    same,
)

# Answers


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("contexts", [1, 2])
def test_answers_are_right_in_every_order_the_device_may_choose(tmp_path: Path, seed: int, contexts: int) -> None:
    # given a device that runs work as late as it may, at random, or as early as it may
    cuda = SimulatedCuda(seed, eagerness=(0.0, 0.5, 0.9)[seed % 3])
    tensorrt = rtx(cuda) if seed % 2 else SimulatedTensorRt(cuda)
    depth = 2 + seed % 3
    backend = Machine(tmp_path, cuda, tensorrt).open(batches_in_flight=depth, execution_contexts=contexts)
    in_flight: list[tuple[int, UInt8Array]] = []

    def finish_oldest() -> None:
        started, images = in_flight.pop(0)
        found, seconds = backend.finish(started)
        assert same(found, images)
        assert seconds > 0

    for number, size in enumerate((1, 4, 2, 5, 5, 3, 1, 2, 4)):
        images = batch(size, number)
        backend.staging(size)[...] = images
        in_flight.append((backend.start(), images))
        if len(in_flight) == depth:
            finish_oldest()
    while in_flight:
        finish_oldest()

    backend.close()
    cuda.assert_clean()


def test_batches_may_be_finished_in_another_order(machine: Machine) -> None:
    backend = machine.open()
    pairs = []
    for number in range(2):
        images = batch(3, number)
        backend.staging(3)[...] = images
        pairs.append((backend.start(), images))

    for started, images in reversed(pairs):
        assert same(backend.finish(started)[0], images)


def test_answers_are_the_callers_to_keep(machine: Machine) -> None:
    backend = machine.open(batches_in_flight=1)
    kept = backend.infer(batch(2))
    backend.infer(batch(2, seed=1))

    assert same(kept, batch(2))


def test_version_is_loaded_in_one_thread_and_run_in_another(machine: Machine) -> None:
    backend = machine.open()
    found: list[Any] = []

    thread = threading.Thread(target=lambda: found.extend(backend.infer(batch(2))))
    thread.start()
    thread.join()
    backend.close()

    assert same(found, batch(2))
    machine.cuda.assert_clean()


def test_provider_names_the_runtime_and_its_version(machine: Machine) -> None:
    assert machine.open().provider == "tensorrt 10.16.1"


@pytest.mark.parametrize("seed", range(8))
def test_outputs_that_nobody_asked_for_get_memory_of_their_own(tmp_path: Path, seed: int) -> None:
    # given outputs that only other clients of the file read, and two batches that run at the same time
    extra = (Tensor("features", "HALF", (-1, 7)), Tensor("more", "INT64", (-1,)))

    def more(images: np.ndarray) -> list[np.ndarray]:
        return [*answers(images), np.ones((len(images), 7)), np.ones(len(images))]

    cuda = SimulatedCuda(seed, eagerness=0.2)
    machine = Machine(tmp_path, cuda, SimulatedTensorRt(cuda))
    backend = machine.open(design(tensors=(*design().tensors, *extra), function=more), execution_contexts=2)
    started = []
    for number in range(2):
        backend.staging(5)[...] = batch(5, number)
        started.append(backend.start())

    for number, each in enumerate(started):
        assert same(backend.finish(each)[0], batch(5, number))
    backend.close()
    cuda.assert_clean()


# CUDA graphs


def test_every_size_is_captured_when_it_first_runs_and_launched_from_then_on(machine: Machine) -> None:
    backend = machine.open()
    assert backend.graphs == {}
    for _ in range(2):  # each of two lanes
        for size in SIZES:
            backend.infer(batch(size))
    machine.cuda.calls.clear()

    assert same(backend.infer(batch(3, seed=9)), batch(3, seed=9))
    assert backend.graphs == dict.fromkeys(SIZES, "captured")
    assert machine.cuda.calls.count("launch") == 1
    assert "launch_kernel" not in machine.cuda.calls


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"made": design(is_capturable=False)}, "TensorRT says that this engine cannot be captured"),
        ({"cuda_graphs": False}, "SACCADE_CUDA_GRAPHS is false"),
        ({"made": design(loses_capture=True)}, "capture failed: TensorRT failed to run batch size 2: operation not"),
    ],
    ids=["not capturable", "not wanted", "fails"],
)
def test_what_is_not_captured_runs_all_the_same_and_says_why(
    machine: Machine, changes: dict[str, Any], reason: str
) -> None:
    backend = machine.open(**changes)

    for seed in range(3):
        assert same(backend.infer(batch(2, seed)), batch(2, seed))
    assert backend.graphs[2].startswith(reason)
    backend.close()
    machine.cuda.assert_clean()


def test_capture_that_cuda_ends_with_an_error_is_given_up(machine: Machine) -> None:
    backend = machine.open()
    machine.cuda.fail_once("end_capture", "cudaErrorStreamCaptureInvalidated")

    assert same(backend.infer(batch(2)), batch(2))
    assert backend.graphs[2].startswith("capture failed: end_capture: cudaErrorStreamCaptureInvalidated")


# Outputs whose shape the data decides


def _sized(width_of: Callable[[int], int] = lambda _size: 3) -> Design:
    tensors = (*design().tensors[:2], Tensor("pixels", "FLOAT", (-1, -1)))

    def function(images: np.ndarray) -> list[np.ndarray]:
        sums, pixels = answers(images)
        return [sums, np.pad(pixels, ((0, 0), (0, width_of(len(images)) - 3)))]

    return design(tensors=tensors, function=function)


def test_output_that_the_data_sizes_is_read_from_where_tensorrt_put_it(machine: Machine) -> None:
    backend = machine.open(_sized())

    for seed in range(3):
        assert same(backend.infer(batch(4, seed)), batch(4, seed))
    assert backend.graphs[4] == "the data decides the shape of pixels"
    backend.close()
    machine.cuda.assert_clean()


def test_output_that_outgrows_its_memory_and_its_manifest_is_refused_and_freed(machine: Machine) -> None:
    backend = machine.open(_sized(lambda size: 9 if size == 5 else 3))

    with pytest.raises(BackendError, match=r"'pixels' came out as \(5, 9\), the manifest declares \(5, 3\)"):
        backend.infer(batch(5))
    assert same(backend.infer(batch(4)), batch(4))
    backend.close()
    machine.cuda.assert_clean()
