"""Loading, running and unloading for a while leaves device memory and the process as large as they were.

`--leak-seconds 600` is the long check; the default is short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.service.backends.base import Backend
from saccade.service.backends.registry import load_backend
from tests.gpu.conftest import NETWORK, Plans, Toy, toy_images
from tests.gpu.flatness import growth
from tests.support.gpu_machine import ONNXRUNTIME_CUDA

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1500)]
FEWEST_CYCLES = 12
MOST_DEVICE_BYTES = 4 << 20
MOST_RESIDENT_BYTES = 24 << 20  # the allocator gives pages back late


def device_bytes_in_use() -> int:
    from cuda.bindings import runtime

    error, free, total = runtime.cudaMemGetInfo()
    assert int(error) == 0, error
    return int(total) - int(free)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def ensure_flat(load: Callable[[], Backend], seconds: float) -> None:
    """Cycles of load, every batch size, several in flight, unload."""
    device: list[int] = []
    resident: list[int] = []
    deadline_s = time.monotonic() + seconds
    while len(device) < FEWEST_CYCLES or time.monotonic() < deadline_s:
        backend: Any = load()
        for size in NETWORK.batch_sizes:
            for _ in range(5):
                backend.infer(toy_images(size))
        if hasattr(backend, "staging"):
            started = []
            for _ in range(backend.batches_in_flight):
                backend.staging(1)[...] = toy_images(1)
                started.append(backend.start())
            for each in started:
                backend.finish(each)
        backend.close()
        device.append(device_bytes_in_use())
        resident.append(resident_bytes())
    assert growth(device) <= MOST_DEVICE_BYTES, f"device memory grew over {len(device)} cycles"
    assert growth(resident) <= MOST_RESIDENT_BYTES, f"the process grew over {len(device)} cycles"


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    given: float = request.config.getoption("--leak-seconds")
    return given


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_plans_come_and_go_without_a_trace(plans: Plans, seconds: float, cuda_graphs: bool) -> None:
    request = plans.request("fp16")
    assert request.plan_dir is not None

    ensure_flat(lambda: plans.load("fp16", cuda_graphs=cuda_graphs), seconds)


@pytest.mark.needs(ONNXRUNTIME_CUDA)
def test_sessions_come_and_go_without_a_trace(toy: Toy, seconds: float) -> None:
    ensure_flat(lambda: load_backend("onnxruntime", toy.request("fp32")), seconds)
