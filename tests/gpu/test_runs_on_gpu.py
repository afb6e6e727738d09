"""How batches run on the device changes nothing about their answers: graphs, several in flight, several contexts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.service.backends.base import Backend, Outputs
from saccade.service.backends.registry import load_backend
from saccade.service.errors import BackendError
from tests.gpu.conftest import NETWORK, Plans, Toy, copied, toy_images
from tests.support.gpu_machine import ONNXRUNTIME_CUDA

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def answers(backend: Backend, size: int, seed: int = 1) -> list[np.ndarray]:
    return copied(backend.infer(toy_images(size, seed)))


def assert_equal(found: Outputs, expected: Outputs) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("variant", ["fp16", "int8-trt"])
def test_cuda_graphs_change_no_answer_at_any_batch_size(plans: Plans, variant: str) -> None:
    with_graphs, without = plans.load(variant, cuda_graphs=True), plans.load(variant, cuda_graphs=False)

    for size in NETWORK.batch_sizes:
        for seed in (1, 2):  # the second run replays what the first one captured
            assert_equal(answers(with_graphs, size, seed), answers(without, size, seed))

    captured: Any = with_graphs
    assert set(captured.graphs.values()) == {"captured"}, captured.graphs
    with_graphs.close()
    without.close()


@pytest.mark.needs(ONNXRUNTIME_CUDA)
def test_cuda_graphs_change_no_answer_of_onnxruntime(toy: Toy) -> None:
    from dataclasses import replace

    with_graphs = load_backend("onnxruntime", toy.request("fp32"))
    without = load_backend("onnxruntime", replace(toy.request("fp32"), cuda_graphs=False))

    for size in NETWORK.batch_sizes:
        for seed in (1, 2):
            for one, other in zip(answers(with_graphs, size, seed), answers(without, size, seed), strict=True):
                assert np.allclose(one, other, atol=1e-5)
    with_graphs.close()
    without.close()


@pytest.mark.parametrize("contexts", [1, 2])
def test_batches_in_flight_together_answer_as_alone(plans: Plans, contexts: int) -> None:
    backend: Any = plans.load("fp16", batches_in_flight=2, execution_contexts=contexts)
    sizes = [4, 1, 2, 4, 4, 2, 1, 4]
    alone = [answers(backend, size, seed) for seed, size in enumerate(sizes)]

    for one, other in zip(overlapping(backend, sizes), alone, strict=True):
        assert_equal(one, other)
    backend.close()


@pytest.mark.needs(ONNXRUNTIME_CUDA)
@pytest.mark.parametrize("variant", ["fp32", "fp16"])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_batches_of_onnxruntime_in_flight_together_answer_as_alone(toy: Toy, variant: str, cuda_graphs: bool) -> None:
    from dataclasses import replace

    backend: Any = load_backend("onnxruntime", replace(toy.request(variant), cuda_graphs=cuda_graphs))
    sizes = [4, 1, 2, 4, 4, 2, 1, 4] * 4
    alone = [answers(backend, size, seed) for seed, size in enumerate(sizes)]

    overlapping(backend, sizes[:8])  # captures what the second buffer has not run yet
    found = overlapping(backend, sizes)

    assert backend.batches_in_flight == 2
    for outputs, expected in zip(found, alone, strict=True):
        for one, other in zip(outputs, expected, strict=True):
            assert np.allclose(one, other, atol=1e-5 if variant == "fp32" else 1e-3)
    if cuda_graphs:
        assert set(backend.graphs.values()) == {"captured"}, backend.graphs
    backend.close()


def overlapping(backend: Any, sizes: list[int]) -> list[Outputs]:
    """Answers of batches of which as many are in flight as the backend takes."""
    started: list[int] = []
    found: list[Outputs] = []
    for seed, size in enumerate(sizes):
        if len(started) == backend.batches_in_flight:
            found.append(copied(backend.finish(started.pop(0))[0]))
        backend.staging(size)[...] = toy_images(size, seed)
        started.append(backend.start())
    return found + [copied(backend.finish(each)[0]) for each in started]


def test_run_tells_how_long_the_device_took(fp16: Backend) -> None:
    backend: Any = fp16
    backend.staging(4)[...] = toy_images(4)

    _, seconds = backend.finish(backend.start())

    assert 0 < seconds < 1


def test_batch_size_that_was_not_allowed_is_refused_and_the_backend_goes_on(fp16: Backend) -> None:
    before = answers(fp16, 2)

    with pytest.raises(BackendError, match="batch size 3"):
        fp16.infer(toy_images(3))

    assert_equal(answers(fp16, 2), before)
