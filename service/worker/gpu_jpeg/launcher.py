"""Launches the resize kernels, and turns every error code of the driver into an exception."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from saccade.service.backends.cuda.failures import STICKY
from saccade.service.errors import BackendError, DeviceLost, RuntimeMissing
from saccade.service.vision.resize_plan import THREADS_PER_BLOCK
from saccade.service.worker.gpu_jpeg.kernels import KERNELS, compiled


class KernelLauncher(Protocol):
    def launch(self, kernel: str, grid: tuple[int, int], addresses: Sequence[int], stream: int) -> None:
        """Queues `kernel` with a grid of (blocks, images) on the stream; `addresses` are jobs, places and weights."""

    def close(self) -> None: ...


class DriverLauncher:
    """Launches with cuda-python's driver bindings, in the current device's primary context.

    No test without a GPU runs this class, since it only makes calls.
    """

    def __init__(self, compute_capability: str) -> None:
        """Raises RuntimeMissing where the kernels cannot be compiled, BackendError where they cannot be loaded."""
        code = compiled(compute_capability)
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise RuntimeMissing("cuda-bindings is not installed: pip install 'saccade-serving[gpu-jpeg]'") from error
        self._module = self._call("cuModuleLoadData", code)
        self._functions = {name: self._call("cuModuleGetFunction", self._module, name.encode()) for name in KERNELS}

    def launch(self, kernel: str, grid: tuple[int, int], addresses: Sequence[int], stream: int) -> None:
        blocks, images = grid
        arguments = (tuple(addresses), (ctypes.c_void_p,) * len(addresses))
        function = self._functions[kernel]
        self._call("cuLaunchKernel", function, blocks, images, 1, THREADS_PER_BLOCK, 1, 1, 0, stream, arguments, 0)

    def close(self) -> None:
        self._call("cuModuleUnload", self._module)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        code = int(error)
        if code == 0:
            return values[0] if values else None
        if code in STICKY.values():  # the driver and the runtime interface of CUDA use the same error numbers
            raise DeviceLost(f"{name}: {error.name}; this process cannot use the device any more and ends")
        raise BackendError(f"{name}: {error.name}")
