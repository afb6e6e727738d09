"""A device worker on the simulated machine: real queue, batches and swaps; CUDA and TensorRT are simulated.

With SIMULATED_TENSORRT=none there is only ONNX Runtime, which computes on the processor in the simulated memory.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from saccade.models.contract.manifest import read_manifest
from saccade.service.backends.base import Backend, LoadRequest
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from saccade.service.backends.registry import load_backend
from saccade.service.backends.tensorrt_backend import TensorRtBackend
from saccade.service.worker import loading
from saccade.service.worker import process as worker
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_machine import BARE_FACTS, FACTS, simulated_tensorrt
from tests.support.simulated_onnxruntime import ON_CPU


def simulated_backend(name: str, request: LoadRequest) -> Backend:
    """Plans on the simulated device; without one, ONNX Runtime on the processor stands for ONNX Runtime on a GPU."""
    if is_bare() and name == "onnxruntime":
        return OnnxRuntimeCudaBackend(request, cuda=SimulatedCuda(one_thread_at_a_time=False), placement=ON_CPU)
    if name != "tensorrt":
        return load_backend(name, replace(request, device="cpu"))
    cuda = SimulatedCuda()
    manifest = read_manifest(Path(request.file).parent)[0]
    return TensorRtBackend(request, tensorrt=simulated_tensorrt(cuda, manifest), cuda=cuda)


def is_bare() -> bool:
    return os.environ.get("SIMULATED_TENSORRT") == "none"


if __name__ == "__main__":
    loading.load_backend = simulated_backend
    worker.device_facts = lambda settings: BARE_FACTS if is_bare() else FACTS  # type: ignore[assignment]
    worker.main()
