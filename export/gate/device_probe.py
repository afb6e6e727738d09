"""Runs plans on the GPU at hand. Promises: a small seam, named errors, and nothing that pretends to be a device.

`tensorrt` and `tensorrt_rtx` share the API used here. Tensors live in torch, which the exporter has anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import DeviceError, DeviceMissing
from export.gate.device_seam import OpenedPlan
from export.qualification.accuracy import Answer
from export.qualification.benchmark import seconds_per_run
from export.tensorrt_from_onnx import build_plan, find_tensorrt, refusal_text
from models.manifest import Device

_DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def missing_for_plans(driver: Path = _DRIVER_VERSION) -> tuple[str, ...]:
    """What this machine lacks to build, open and time plans; empty when it lacks nothing."""
    missing: list[str] = []
    if find_tensorrt() is None:
        missing.append("no TensorRT runtime: install `tensorrt`, or the extra `rtx`")
    if not torch.cuda.is_available():
        if driver.exists():
            words = driver.read_text().splitlines()[0]
            missing.append(f"torch sees no GPU: the driver is {words!r}, torch is built for CUDA {torch.version.cuda}")
        else:
            missing.append(f"no NVIDIA driver: {driver} does not exist; torch is built for CUDA {torch.version.cuda}")
    return tuple(missing)


class TensorRtProbe:
    """The first GPU, through whichever TensorRT is installed."""

    is_recorded = False

    def __init__(self) -> None:
        """Raises DeviceMissing naming everything that is not there."""
        missing = missing_for_plans()
        tensorrt = find_tensorrt()
        if missing or tensorrt is None:
            raise DeviceMissing(f"pending checks cannot be settled on this machine: {'; '.join(missing)}")
        self._tensorrt: ModuleType = tensorrt
        self.device = Device(kind="cuda", name=torch.cuda.get_device_name(0), threads=1)
        self.runtime = f"{tensorrt.__name__} {tensorrt.__version__}"
        self._capability = "SM{}{}".format(*torch.cuda.get_device_capability(0))

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        """Raises DeviceError naming the node that stops the build."""
        made = build_plan(
            file,
            (self._capability,),
            tuple(sorted({1, largest_batch})),
            self._tensorrt.__name__,
            is_sparse=is_sparse,
        )
        if made.plan is None:
            raise DeviceError(f"{self.runtime} builds no plan of {file.name}: {refusal_text(made.errors[0])}")
        return _OpenedTensorRtPlan(self._tensorrt, made.plan, outputs)

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        return seconds_per_run([partial(plan.infer, images) for plan in plans], repeats, budget_s)


class _OpenedTensorRtPlan:
    def __init__(self, tensorrt: ModuleType, plan: bytes, outputs: Sequence[str]) -> None:
        self.plan_bytes = len(plan)
        self.memory_bytes = 0
        self._tensorrt = tensorrt
        self._outputs = tuple(outputs)
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._runtime = tensorrt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DeviceError(f"{tensorrt.__name__} does not open the plan that it built")
        self._engine: Any = engine
        self._context: Any = engine.create_execution_context()
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types

    def layer_information(self) -> str:
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context  # else formats of dynamic shapes are not said
        return str(inspector.get_engine_information(self._tensorrt.LayerInformationFormat.JSON))

    def infer(self, images: NDArray[np.uint8]) -> Answer:
        given = torch.from_numpy(np.ascontiguousarray(images)).cuda()
        self._context.set_input_shape("images", tuple(given.shape))
        self._context.set_tensor_address("images", given.data_ptr())
        answers = [self._allocated(name) for name in self._outputs]
        others = [self._allocated(name) for name in self._unread()]  # alive until the run ends
        torch.cuda.current_stream().synchronize()
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise DeviceError(f"{self._tensorrt.__name__} failed on a batch of {len(images)}")
        self._stream.synchronize()
        del others
        return [tensor.cpu().numpy() for tensor in answers]

    def close(self) -> None:
        self._context = None
        self._engine = None

    def _unread(self) -> list[str]:
        engine, mode = self._engine, self._tensorrt.TensorIOMode.OUTPUT
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [name for name in names if engine.get_tensor_mode(name) == mode and name not in self._outputs]

    def _allocated(self, name: str) -> torch.Tensor:
        """A tensor on the device that the next run writes this output into."""
        kind = _TORCH_TYPES[self._engine.get_tensor_dtype(name).name]
        tensor = torch.empty(tuple(self._context.get_tensor_shape(name)), dtype=kind, device="cuda")
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor


_TORCH_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "BOOL": torch.bool,
}
