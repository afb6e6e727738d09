"""Implements CudaDriver with cuda-python; checks the error code of every call.

Tests without a GPU run only its first failing call, so it makes no decisions.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np

from saccade.service.backends.base import UInt8Array
from saccade.service.backends.cuda.driver import CudaVersions, DeviceProperties, MemoryInfo, PinnedMemory
from saccade.service.backends.cuda.failures import failure
from saccade.service.errors import RuntimeMissing


class RuntimeDriver:
    """CudaDriver on CUDA's runtime library. Opening it needs no driver; the first call that needs one raises."""

    def __init__(self) -> None:
        try:
            # Imported late, because API processes must never load it. cuda-python has this path since 12.6.
            self._rt: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise RuntimeMissing(
                f"cuda-python is not installed ({error}): pip install 'saccade-serving[gpu]'"
            ) from error

    def versions(self) -> CudaVersions:
        # Both calls work without a driver and then give 0.
        return CudaVersions(int(self._rt.cudaDriverGetVersion()[1] or 0), int(self._rt.cudaRuntimeGetVersion()[1] or 0))

    def device_count(self) -> int:
        return int(self._call("cudaGetDeviceCount"))

    def properties(self, index: int) -> DeviceProperties:
        found = self._call("cudaGetDeviceProperties", index)
        name = found.name.decode("utf-8", "replace") if isinstance(found.name, bytes) else str(found.name)
        capability = f"SM{found.major}{found.minor}"
        return DeviceProperties(name, capability, int(found.totalGlobalMem))

    def set_device(self, index: int) -> None:
        self._call("cudaSetDevice", index)

    def memory(self) -> MemoryInfo:
        free_bytes, total_bytes = self._call("cudaMemGetInfo")
        return MemoryInfo(int(free_bytes), int(total_bytes))

    def allocate(self, size_bytes: int) -> int:
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory:
        address = int(self._call("cudaMallocHost", size_bytes))
        view: UInt8Array = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
        return PinnedMemory(address, view)

    def free_pinned(self, memory: PinnedMemory) -> None:
        self._call("cudaFreeHost", memory.address)

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def create_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        return int(self._call("cudaEventCreateWithFlags", self._rt.cudaEventBlockingSync))

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def is_done(self, event: int) -> bool:
        (error,) = self._rt.cudaEventQuery(event)
        if error == self._rt.cudaError_t.cudaErrorNotReady:
            return False
        self._ensure("cudaEventQuery", error)
        return True

    def synchronize_event(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def synchronize_stream(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def elapsed_s(self, start: int, end: int) -> float:
        return float(self._call("cudaEventElapsedTime", start, end)) / 1000

    def begin_capture(self, stream: int) -> None:
        # Other threads may allocate during a thread-local capture; a global one would forbid that.
        self._call("cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def is_capturing(self, stream: int) -> bool:
        status = self._call("cudaStreamIsCapturing", stream)
        return bool(status != self._rt.cudaStreamCaptureStatus.cudaStreamCaptureStatusNone)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Makes a call and returns its result without the error code: nothing, one value, or a tuple. Raises as
        CudaDriver says.
        """
        error, *values = getattr(self._rt, name)(*arguments)
        self._ensure(name, error)
        return values[0] if len(values) == 1 else tuple(values)

    def _ensure(self, name: str, error: Any) -> None:
        if error == self._rt.cudaError_t.cudaSuccess:
            return
        _, text = self._rt.cudaGetErrorString(error)
        self._rt.cudaGetLastError()  # clears a non-sticky error, so that no later call reports it
        said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise failure(name, error.name, said, self.versions())
