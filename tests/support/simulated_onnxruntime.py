"""ONNX Runtime's GPU path without a GPU: runs are queued on a stream of the simulated device, as late as it allows.

The network is computed by ONNX Runtime on the processor, in the simulated device's memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.service.backends import onnxruntime_session
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.onnxruntime_backend import open_session
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from saccade.service.backends.onnxruntime_forms import ProviderForm
from saccade.service.backends.onnxruntime_session import SessionDevice
from saccade.service.errors import BackendError
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.versions import SIDE

PROVIDER = "CPUExecutionProvider"
SIZES = (1, 2, 4, 16)
ON_CPU = SessionDevice(PROVIDER, "cpu", 0)


@dataclass(frozen=True, slots=True)
class SimulatedSessionDevice(SessionDevice):
    """Asks for what a GPU would be asked for; tensors lie where the processor can compute."""

    @property
    def is_cuda(self) -> bool:
        return True

    def options(self, form: ProviderForm, precision: str, stream: int, *, with_graphs: bool) -> dict[str, str]:
        real = SessionDevice("CUDAExecutionProvider", "cuda", self.index)
        return real.options(form, precision, stream, with_graphs=with_graphs)


ON_SIMULATED_GPU = SimulatedSessionDevice(PROVIDER, "cpu", 0)


class StreamedSession:
    """A session that computes on the stream it was given, and waits at the end unless it is told not to."""

    def __init__(self, real: Any, runtime: SimulatedRuntime, options: dict[str, str]) -> None:
        self._real = real
        self._cuda = runtime.cuda
        self._options = options
        self._asked = runtime.runs
        self._broken_captures = runtime.broken_captures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {PROVIDER: self._options}

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        names = ("gpu_graph_id", "disable_synchronize_execution_providers")
        entries = {}
        for name in names:
            try:
                entries[name] = options.get_run_config_entry(name)
            except RuntimeError:  # it was not set
                continue
        self._asked.append(entries)
        stream = int(self._options["user_compute_stream"])
        if self._broken_captures and int(entries.get(names[0], "-1")) > 0:
            text = self._broken_captures.pop()
            self._cuda.begin_capture(stream)
            raise RuntimeError(text)
        self._cuda.queue(stream, lambda: self._real.run_with_iobinding(binding))
        if entries.get(names[1]) != "1":
            self._cuda.synchronize_stream(stream)


@dataclass
class SimulatedRuntime:
    """What was asked of ONNX Runtime, and what it refuses."""

    cuda: SimulatedCuda
    opened: list[dict[str, str]] = field(default_factory=list)  # provider options, in order
    runs: list[dict[str, str]] = field(default_factory=list)  # run options, in order
    broken_captures: list[str] = field(default_factory=list)  # what runs say that fail while they are captured
    refused: dict[str, str] = field(default_factory=dict)  # provider option: what opening with it says

    def install(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(onnxruntime_session, "open_session", self._open)

    def _open(
        self,
        request: LoadRequest,
        provider: str,
        options: dict[str, str],
        entries: dict[str, str],
        *,
        drops_extras: bool,
    ) -> Any:
        self.opened.append(options)
        for name, text in self.refused.items():
            if options.get(name, "0") != "0":
                raise BackendError(text)
        session = open_session(request, provider, {}, entries, drops_extras=drops_extras)
        return StreamedSession(session, self, options) if options else session


def simulated(seed: int = 0, eagerness: float = 0.5) -> SimulatedCuda:
    return SimulatedCuda(seed, eagerness=eagerness, one_thread_at_a_time=False)


def on_device(request: LoadRequest, runtime: SimulatedRuntime) -> OnnxRuntimeCudaBackend:
    return OnnxRuntimeCudaBackend(request, cuda=runtime.cuda, placement=ON_SIMULATED_GPU)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(count + 100 * seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def warm(backend: OnnxRuntimeCudaBackend) -> None:
    """Every size in every lane, as loading does."""
    for size in SIZES:
        numbers = []
        for _ in range(backend.batches_in_flight):
            backend.staging(size)[...] = images(size)
            numbers.append(backend.start())
        for number in numbers:
            backend.finish(number)
