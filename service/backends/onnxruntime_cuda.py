"""Runs ONNX files with ONNX Runtime on a GPU. Promises: fixed buffers, CUDA graphs where it can, no silent fallback.

A PipelinedBackend of depth one: pixels are gathered into pinned memory, and `finish` copies, runs and copies back.
What serves while a plan is being built need not overlap.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from service.backends.base import LoadRequest, Outputs, UInt8Array
from service.backends.cuda.driver import CudaDriver, PinnedMemory
from service.backends.cuda.failures import sticky_code_in
from service.backends.node_assignment import AssignedNode, ensure_assigned
from service.backends.onnxruntime_backend import ensure_signature, first_line, import_onnxruntime, open_session
from service.errors import BackendError, DeviceLost, OutOfDeviceMemory

log = structlog.get_logger()

_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate memory", re.IGNORECASE)
_GRAPH_ID = "gpu_graph_id"  # run option; each id keeps the graph of one batch size
_NO_GRAPH = "-1"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where sessions run and their tensors lie; a test puts both on the CPU."""

    provider: str
    memory: str  # as OrtValue names devices
    index: int

    def options(self, *, with_graphs: bool) -> dict[str, str]:
        if self.memory != "cuda":
            return {}
        # fp32 means fp32: TensorFloat-32 would round what the variant's figures were measured without.
        return {"device_id": str(self.index), "use_tf32": "0", "enable_cuda_graph": str(int(with_graphs))}


class OnnxRuntimeCudaBackend:
    """One session with input and outputs bound per batch size."""

    batches_in_flight = 1

    def __init__(
        self, request: LoadRequest, *, cuda: CudaDriver | None = None, placement: Placement | None = None
    ) -> None:
        """`cuda` and `placement` are the real ones unless a test passes its own.

        Raises RuntimeMissing, OutOfDeviceMemory or BackendError; DeviceLost ends the process.
        """
        self._request = request
        self._at = placement or Placement("CUDAExecutionProvider", "cuda", int(request.device.partition(":")[2]))
        self._sizes = request.allowed_batch_sizes
        self._staged = 0
        self._thread = 0
        self._settled: set[int] = set()
        self._without_graphs = "" if request.cuda_graphs else "SACCADE_CUDA_GRAPHS is false"
        self._open()
        if cuda is None:
            from service.backends.cuda.runtime_driver import RuntimeDriver  # needs cuda-python, which tests do without

            cuda = RuntimeDriver()
        self._cuda = cuda
        self._pinned: PinnedMemory | None = None
        self._ensure_pinned(self._sizes[-1] if self._sizes else 1)

    @property
    def provider(self) -> str:
        return self._at.provider

    @property
    def graphs(self) -> Mapping[int, str]:
        """How each batch size that has run runs: `captured`, or why not."""
        return {size: self._without_graphs or "captured" for size in sorted(self._settled)}

    def infer(self, images: UInt8Array) -> Outputs:
        if images.shape[1:] != self._request.input.shape:
            raise BackendError(f"images are {images.shape[1:]}, the model takes {self._request.input.shape}")
        self.staging(len(images))[...] = images
        return self.finish(self.start())[0]

    def staging(self, batch_size: int) -> UInt8Array:
        if self._sizes and batch_size not in self._sizes:
            raise BackendError(f"batch size {batch_size} is not among those loaded: {', '.join(map(str, self._sizes))}")
        shape = (batch_size, *self._request.input.shape)
        self._staged = batch_size
        return self._ensure_pinned(batch_size).view[: math.prod(shape)].reshape(shape)

    def start(self) -> int:
        if not self._staged:
            raise BackendError("nothing was staged; write the pixels into what `staging` returns")
        return self._staged

    def finish(self, started: int) -> tuple[Outputs, float]:
        images = self.staging(started)
        self._staged = 0
        start_s = time.monotonic()
        try:
            outputs = self._run(images)
        except BackendError as error:
            if self._without_graphs or started in self._settled:
                raise
            self._reopen_without_graphs(str(error))
            outputs = self._run(images)
        self._settled.add(started)
        return outputs, time.monotonic() - start_s

    def close(self) -> None:
        self._take_thread()
        self._bindings.clear()
        del self._session
        if self._pinned is not None:
            self._cuda.free_pinned(self._pinned)
            self._pinned = None

    def _open(self) -> None:
        request = self._request
        entries = {"session.record_ep_graph_assignment_info": "1"}
        try:
            options = self._at.options(with_graphs=not self._without_graphs)
            self._session = open_session(request, self._at.provider, options, entries)
        except BackendError as error:
            _raise_by_cause(error)
            if self._without_graphs or "graph" not in str(error).lower():
                raise
            # It demands every node on the GPU for graphs; without them a few shapes may stay on the CPU.
            self._without_graphs = f"ONNX Runtime refuses: {error}"
            self._open()
            return
        ensure_signature(self._session, request)
        beside = ensure_assigned(_nodes(self._session), self._at.provider)
        if beside:
            log.info("nodes_on_cpu", file=request.file.name, operators=sorted({node.operator for node in beside}))
        self._bindings = {size: self._bound(size) for size in self._sizes}

    def _ensure_pinned(self, batch_size: int) -> PinnedMemory:
        """Grows only where the sizes were not known at load."""
        size_bytes = batch_size * math.prod(self._request.input.shape)
        if self._pinned is None or len(self._pinned.view) < size_bytes:
            self._take_thread()
            if self._pinned is not None:
                self._cuda.free_pinned(self._pinned)
                self._pinned = None
            self._pinned = self._cuda.allocate_pinned(size_bytes)
        return self._pinned

    def _bound(self, size: int) -> tuple[Any, Any, list[Any]]:
        """Binding, input and outputs of one batch size; their memory never moves, as graphs need it."""
        images, outputs = self._request.input, self._request.outputs
        try:
            pixels = self._value((size, *images.shape), images.dtype)
            answers = [self._value((size, *spec.shape), spec.dtype) for spec in outputs]
        except Exception as error:  # ORT raises a family of its own without a public root
            raise OutOfDeviceMemory(f"no device memory for batches of {size}: {first_line(error)}") from error
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(images.name, pixels)
        for spec, answer in zip(outputs, answers, strict=True):
            binding.bind_ortvalue_output(spec.name, answer)
        return binding, pixels, answers

    def _value(self, shape: tuple[int, ...], dtype: str) -> Any:
        make = import_onnxruntime().OrtValue.ortvalue_from_shape_and_type
        return make(list(shape), np.dtype(dtype), self._at.memory, self._at.index)

    def _run(self, images: UInt8Array) -> Outputs:
        size = len(images)
        if size not in self._bindings:  # known at load unless the request named no sizes
            self._bindings[size] = self._bound(size)
        binding, pixels, answers = self._bindings[size]
        options = import_onnxruntime().RunOptions()
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH if self._without_graphs else str(size))
        try:
            pixels.update_inplace(images)
            self._session.run_with_iobinding(binding, options)
            # Copies, also where the device is the CPU and `numpy` a view.
            outputs: Outputs = [np.array(answer.numpy()) for answer in answers]
        except Exception as error:  # same family as above
            failed = BackendError(f"onnxruntime failed: {first_line(error)}")
            _raise_by_cause(failed)
            raise failed from error
        return outputs

    def _reopen_without_graphs(self, reason: str) -> None:
        log.warning("cuda_graphs_given_up", file=self._request.file.name, reason=reason)
        self._without_graphs = f"capture failed: {reason}"
        self._bindings.clear()
        self._open()

    def _take_thread(self) -> None:
        """Pinned memory is made and freed here only; ONNX Runtime sets the device for what it calls itself."""
        if threading.get_ident() != self._thread:
            self._cuda.set_device(self._at.index)
            self._thread = threading.get_ident()


def _nodes(session: Any) -> list[AssignedNode]:
    return [
        AssignedNode(part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def _raise_by_cause(error: BackendError) -> None:
    """Turns ONNX Runtime's prose into the error of ours that it quotes, where it does."""
    if sticky_code_in(str(error)) is not None:
        raise DeviceLost(f"{error}; this process cannot use the device any more and ends") from error
    if _OUT_OF_MEMORY.search(str(error)):
        raise OutOfDeviceMemory(f"{error}: unload a version, or lower max_batch_size") from error
