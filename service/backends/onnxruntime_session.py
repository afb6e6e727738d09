"""One ONNX Runtime session whose tensors are a lane's buffers, so that a batch needs no copy of its own.

ONNX Runtime computes on the stream it is given (`user_compute_stream`) and does not wait at the end of a run
(`disable_synchronize_execution_providers`). Where a session does not confirm that it took the stream, the caller waits
before and after a run: then the copies of other batches still overlap with it, and only the launches do not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.cuda.buffers import BufferPlan
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.lanes import CudaLane
from saccade.service.backends.node_assignment import AssignedNode, ensure_assigned
from saccade.service.backends.onnxruntime_backend import (
    ensure_signature,
    first_line,
    import_onnxruntime,
    open_session,
    silence_default_logger,
)
from saccade.service.backends.onnxruntime_forms import ProviderForm, tf32_option
from saccade.service.errors import BackendError, OutOfDeviceMemory

_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate memory", re.IGNORECASE)
_GRAPH_ID = "gpu_graph_id"  # run option; each id keeps one graph with its addresses
_NO_GRAPH = "-1"
_NO_WAIT = "disable_synchronize_execution_providers"  # run option
_STREAM = "user_compute_stream"  # provider option
_WARM_RUNS = 3  # the first run allocates and chooses algorithms
_MEASURE_S = 0.3
_MEASURE_RUNS = 20


@dataclass(frozen=True, slots=True)
class SessionDevice:
    """The provider that sessions use and where their tensors lie; a test puts both on the CPU."""

    provider: str
    memory: str  # the device's name for OrtValue
    index: int

    @property
    def is_cuda(self) -> bool:
        return self.memory == "cuda"

    def options(self, form: ProviderForm, precision: str, stream: int, *, with_graphs: bool) -> dict[str, str]:
        if not self.is_cuda:
            return {}
        return {
            "device_id": str(self.index),
            _STREAM: str(stream),
            "use_tf32": tf32_option(precision),
            "enable_cuda_graph": str(int(with_graphs)),
            **form.options,
        }


class BoundSession:
    """A session in one form, for one batch size where that is known. All calls come from one thread."""

    def __init__(
        self,
        request: LoadRequest,
        at: SessionDevice,
        cuda: CudaDriver,
        plan: BufferPlan,
        stream: int,
        form: ProviderForm,
        *,
        with_graphs: bool,
    ) -> None:
        """Opens the session. Raises BackendError or RepositoryError."""
        self._at = at
        self._cuda = cuda
        self._plan = plan
        self._with_graphs = with_graphs
        options = at.options(form, request.precision, stream, with_graphs=with_graphs)
        entries = {"session.record_ep_graph_assignment_info": "1"}
        # Only shape arithmetic may stay on the processor, so a pool of threads per session would be wasted.
        alone = replace(request, threads=1, allow_spinning=False)
        # CUDA graphs cannot hold the branches that compute extra outputs.
        self._session = open_session(alone, at.provider, options, entries, drops_extras=True)
        if at.is_cuda:
            silence_default_logger()
        ensure_signature(self._session, replace(request, extras=()))
        self.nodes_beside = ensure_assigned(assigned_nodes(self._session), at.provider)
        self._bindings: dict[tuple[int, int], Any] = {}
        self.is_ordered = _stream_of(self._session.get_provider_options(), at.provider) == str(stream)

    def run(self, lane: CudaLane, size: int, stream: int, *, graph: int | None, waits: bool) -> None:
        """Runs the lane's batch; its answers are complete when `stream` is idle. Raises BackendError."""
        if not self.is_ordered:
            self._cuda.synchronize_stream(stream)  # waits until the pixels have arrived
        options = import_onnxruntime().RunOptions()
        if self._with_graphs:
            options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH if graph is None else str(graph))
        if self.is_ordered and not waits:
            options.add_run_config_entry(_NO_WAIT, "1")
        try:
            self._session.run_with_iobinding(self._binding(lane, size), options)
        except Exception as error:  # ORT's exceptions have no public base class
            self._leave_capture(stream)
            raise BackendError(f"onnxruntime failed: {first_line(error)}") from error
        if waits:
            self._cuda.synchronize_stream(stream)

    def _leave_capture(self, stream: int) -> None:
        """Ends the capture that a failed run left open; nothing else could use the stream until then."""
        if self._with_graphs and self._cuda.is_capturing(stream):
            with suppress(BackendError):  # ending a broken capture raises
                self._cuda.destroy_graph(self._cuda.end_capture(stream))

    def images_per_s(self, lane: CudaLane, size: int) -> float:
        """Speed of runs one after the other, without copies and on whatever bytes the lane's input holds."""
        stream = lane.compute_stream
        for _ in range(_WARM_RUNS):
            self.run(lane, size, stream, graph=None, waits=True)
        start_s, runs = time.monotonic(), 0
        while runs < _MEASURE_RUNS and (runs == 0 or time.monotonic() - start_s < _MEASURE_S):
            self.run(lane, size, stream, graph=None, waits=True)
            runs += 1
        return runs * size / (time.monotonic() - start_s)

    def _binding(self, lane: CudaLane, size: int) -> Any:
        """Input and outputs of one lane and batch size. Their memory never moves, as graphs need it."""
        key = (lane.input_address, size)
        if key not in self._bindings:
            binding, place = self._session.io_binding(), (self._at.memory, self._at.index)
            images = self._plan.input.spec
            binding.bind_input(images.name, *place, *_shaped(images, size), lane.input_address)
            for output in self._plan.outputs:
                binding.bind_output(output.spec.name, *place, *_shaped(output.spec, size), lane.output_address(output))
            self._bindings[key] = binding
        return self._bindings[key]


def assigned_nodes(session: Any) -> list[AssignedNode]:
    return [
        AssignedNode(part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def raise_if_out_of_memory(error: BackendError) -> None:
    """Raises OutOfDeviceMemory when that is what ONNX Runtime's message means."""
    if _OUT_OF_MEMORY.search(str(error)):
        raise OutOfDeviceMemory(f"{error}: unload a version, or lower max_batch_size") from error


def _shaped(spec: TensorSpec, size: int) -> tuple[Any, list[int]]:
    return np.dtype(spec.dtype).type, [size, *spec.shape]


def _stream_of(options: Mapping[str, Mapping[str, str]], provider: str) -> str:
    return options.get(provider, {}).get(_STREAM, "")
