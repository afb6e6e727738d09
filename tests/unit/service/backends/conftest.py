"""ONNX Runtime's GPU path on the processor: bound tensors are real, order and failures are a GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.models.contract.specs import Task
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from tests.support.graphs import classifier_graph
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_onnxruntime import ON_CPU, SIZES, SimulatedRuntime, simulated
from tests.support.versions import manifest_for


@pytest.fixture
def request_(tmp_path: Path) -> LoadRequest:
    file = tmp_path / "model.onnx"
    file.write_bytes(classifier_graph())
    manifest = manifest_for("digits", 1, Task.CLASSIFY)
    return LoadRequest(
        file, manifest.input, manifest.outputs, "cuda:0", 1, False, precision="fp16", allowed_batch_sizes=SIZES
    )


@pytest.fixture
def opened() -> Iterator[Any]:
    """Opens backends whose tensors and sessions are on the processor, and closes them."""
    made: list[OnnxRuntimeCudaBackend] = []

    def open_it(request: LoadRequest, cuda: SimulatedCuda | None = None) -> OnnxRuntimeCudaBackend:
        made.append(OnnxRuntimeCudaBackend(request, cuda=cuda or simulated(), placement=ON_CPU))
        return made[-1]

    yield open_it
    for backend in made:
        backend._runner.shutdown()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> SimulatedRuntime:
    """ONNX Runtime on the simulated device, slow to run what is queued."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # given back afterwards
    found = SimulatedRuntime(simulated(eagerness=0.2))
    found.install(monkeypatch)
    return found


@pytest.fixture(autouse=True)
def _default_logger() -> Iterator[None]:
    """As it was, for other tests."""
    import onnxruntime

    yield
    onnxruntime.set_default_logger_severity(2)
