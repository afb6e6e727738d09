"""TensorRT on the simulated device: engines are numpy functions, and misuse of a context is a `Violation`.

Checked are addresses, shapes, memory for activations, changes of a context that a graph was captured from, and two
runs at once in the same activation memory.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.simulated_cuda import SimulatedCuda, Violation

DTYPES = {"UINT8": np.uint8, "FLOAT": np.float32, "INT32": np.int32, "INT64": np.int64, "HALF": np.float16}
DataType = enum.Enum("DataType", list(DTYPES))
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
AllocationStrategy = enum.Enum("AllocationStrategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"])
EngineValidity = enum.Enum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"])
Specialization = enum.Enum("Specialization", ["LAZY", "EAGER", "NONE"])
Diagnostics = enum.IntEnum(
    "Diagnostics", {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "INSUFFICIENT_GPU_MEMORY": 16}
)
_HEADER_BYTES = 16
_HIGHEST = 1 << 30


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    Severity = Severity

    def log(self, severity: Severity, text: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    pass


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str  # TensorRT's name
    shape: tuple[int, ...]  # with -1 for the batch, and where the data decides
    is_input: bool = False


@dataclass
class Design:
    """The engine that a plan opens as."""

    tensors: tuple[Tensor, ...]
    function: Callable[[np.ndarray], Sequence[np.ndarray]]  # outputs in the order of `tensors`
    max_batch_size: int = _HIGHEST
    scratch_bytes: int = 4096
    is_capturable: bool = True
    fails_on: Callable[[int], bool] = lambda _batch_size: False  # batch sizes that it refuses to enqueue
    has_no_memory: bool = False
    loses_capture: bool = False  # enqueueing fails while its stream captures


class SimulatedTensorRt(SimpleNamespace):
    """Stands for the module."""

    def __init__(
        self, device: SimulatedCuda, *, name: str = "tensorrt", version: str = "10.16.1", is_rtx: bool = False
    ) -> None:
        super().__init__(
            DataType=DataType,
            TensorIOMode=TensorIOMode,
            ExecutionContextAllocationStrategy=AllocationStrategy,
            ILogger=ILogger,
            IOutputAllocator=IOutputAllocator,
        )
        self.__name__ = name
        self.__version__ = version
        self.device = device
        self.designs: dict[bytes, Design] = {}
        self.opened: list[bytes] = []
        self.compiled: list[int] = []  # batch sizes for which TensorRT for RTX compiled kernels, in order
        self.validity: tuple[EngineValidity, int] = (EngineValidity.VALID, 0)
        self.Runtime = lambda logger: Runtime(self, logger) if not is_rtx else RtxRuntime(self, logger)
        if is_rtx:
            self.EngineValidity = EngineValidity
            self.EngineInvalidityDiagnostics = Diagnostics
            self.DynamicShapesKernelSpecializationStrategy = Specialization

    def plan_of(self, design: Design) -> bytes:
        """Bytes that open as this design."""
        plan = b"simulated plan %4d" % len(self.designs)
        self.designs[plan] = design
        return plan


class Runtime:
    def __init__(self, module: SimulatedTensorRt, logger: ILogger) -> None:
        self._module = module
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        self._module.opened.append(plan)
        design = self._module.designs.get(plan)
        if design is None:
            self.logger.log(Severity.WARNING, "this warning is not the reason")
            self.logger.log(Severity.ERROR, "Serialization assertion magicTag failed")
            return None
        return Engine(self._module, self.logger, design)


class RtxRuntime(Runtime):
    engine_header_size = _HEADER_BYTES

    def get_engine_validity(self, header: bytes) -> tuple[EngineValidity, int]:
        assert len(header) == _HEADER_BYTES
        return self._module.validity


class RuntimeCache:
    """Compiled kernels, as the set of batch sizes that they are for; they are for one device."""

    def __init__(self, module: SimulatedTensorRt) -> None:
        self._module = module
        self.sizes: set[int] = set()

    def _prefix(self) -> bytes:
        return f"{self._module.__version__} on {self._module.device.properties(0).name}: ".encode()

    def serialize(self) -> memoryview:
        return memoryview(self._prefix() + ",".join(map(str, sorted(self.sizes))).encode())

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(self._prefix()):
            return False
        self.sizes = {int(size) for size in blob.removeprefix(self._prefix()).split(b",")}
        return True


class RuntimeConfig:
    def __init__(self, module: SimulatedTensorRt) -> None:
        self._module = module
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        self.strategy = AllocationStrategy.STATIC
        self.cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: AllocationStrategy) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._module)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Engine:
    def __init__(self, module: SimulatedTensorRt, logger: ILogger, design: Design) -> None:
        self._module = module
        self._logger = logger
        self.design = design
        self._by_name = {tensor.name: tensor for tensor in design.tensors}
        self.num_io_tensors = len(design.tensors)
        self.device_memory_size_v2 = design.scratch_bytes

    def get_tensor_name(self, index: int) -> str:
        return self.design.tensors[index].name

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._by_name[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._by_name[name].shape

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._by_name[name].is_input else TensorIOMode.OUTPUT

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self._module)

    def create_execution_context(self, how: Any) -> Context | None:
        strategy = how.strategy if isinstance(how, RuntimeConfig) else how
        if self.design.has_no_memory:
            self._logger.log(Severity.ERROR, "Requested amount of GPU memory could not be allocated: OutOfMemory")
            return None
        return Context(self._module, self._logger, self.design, strategy, getattr(how, "cache", None))


_tokens = itertools.count(1)


class Context:
    def __init__(
        self,
        module: SimulatedTensorRt,
        logger: ILogger,
        design: Design,
        strategy: AllocationStrategy,
        kernels: RuntimeCache | None,
    ) -> None:
        self._module = module
        self._kernels = kernels
        self._device = module.device
        self._logger = logger
        self._design = design
        self._image = next(tensor for tensor in design.tensors if tensor.is_input)
        self._outputs = [tensor for tensor in design.tensors if not tensor.is_input]
        self._batch_size = 0
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._scratch = 0 if strategy is AllocationStrategy.USER_MANAGED else None
        self._has_settled = False
        self._is_captured = False

    def set_device_memory(self, address: int, size_bytes: int) -> None:
        self._ensure_unchanged("its memory")
        if size_bytes < self._design.scratch_bytes:
            raise Violation(f"{size_bytes} bytes for activations, {self._design.scratch_bytes} are needed")
        self._scratch = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._ensure_unchanged("its shape")
        if name != self._image.name or tuple(shape[1:]) != self._image.shape[1:]:
            return self._refuse(f"{name} has no shape {shape}")
        if shape[0] > self._design.max_batch_size:
            return self._refuse(f"{shape[0]} is above the profile's {self._design.max_batch_size}")
        self._batch_size = shape[0]
        self._has_settled = False
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._ensure_unchanged(f"the address of {name}")
        if address % 256:
            return self._refuse(f"{name} is not aligned")
        self._addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        return True

    def get_max_output_size(self, name: str) -> int:
        tensor = next(each for each in self._outputs if each.name == name)
        return self._batch_size * math.prod(tensor.shape[1:]) * np.dtype(DTYPES[tensor.dtype]).itemsize

    def is_stream_capturable(self, stream: int) -> bool:
        return self._design.is_capturable

    def execute_async_v3(self, stream: int) -> bool:
        if self._design.fails_on(self._batch_size):
            return self._refuse(f"no kernel for batch {self._batch_size}")
        is_capturing = self._device.is_capturing(stream)
        if is_capturing and self._design.loses_capture:
            return self._refuse("operation not permitted when stream is capturing")
        if is_capturing and not self._has_settled:
            raise Violation("a context is captured before it ran once with its shape")
        if self._scratch == 0:
            raise Violation("a context without memory for activations runs")
        self._is_captured |= is_capturing
        self._has_settled = True
        if self._kernels is not None and self._batch_size not in self._kernels.sizes:
            self._kernels.sizes.add(self._batch_size)
            self._module.compiled.append(self._batch_size)
        batch_size, scratch, source = self._batch_size, self._scratch, self._addresses[self._image.name]
        image_bytes = batch_size * math.prod(self._image.shape[1:])
        self._device.memory_at(source, image_bytes)  # mapped while it is queued, not only while it runs
        for name, allocator in self._allocators.items():
            shape = self._shape_of(name)
            size = math.prod(shape) * np.dtype(self._dtype_of(name)).itemsize
            self._addresses[name] = allocator.reallocate_output_async(
                name, self._addresses.get(name, 0), size, 256, stream
            )
            allocator.notify_shape(name, shape)
        addresses = dict(self._addresses)
        absent = [tensor.name for tensor in self._design.tensors if tensor.name not in addresses]
        if absent:
            raise Violation(f"{', '.join(absent)} have no address")
        token = np.frombuffer(next(_tokens).to_bytes(8, "little"), np.uint8)
        seen: list[np.ndarray] = []

        # Outputs hold values that later layers read, so they are the run's own from its beginning to its end.
        own = [
            addresses[tensor.name] for tensor in self._outputs if self.get_max_output_size(tensor.name) >= len(token)
        ]

        def begin() -> None:
            seen[:] = [self._device.memory_at(source, image_bytes).copy()]
            for address in (*own, *([] if scratch is None else [scratch])):
                self._device.memory_at(address, len(token))[:] = token

        def end() -> None:
            for address in (*own, *([] if scratch is None else [scratch])):
                if not np.array_equal(self._device.memory_at(address, len(token)), token):
                    what = "for activations" if address == scratch else "of an output"
                    raise Violation(f"two runs use the same memory {what} at the same time")
            images = seen[0].view(DTYPES[self._image.dtype]).reshape(batch_size, *self._image.shape[1:])
            answers = self._design.function(images)
            for tensor, answer in zip(self._outputs, answers, strict=True):
                made = np.ascontiguousarray(answer.astype(DTYPES[tensor.dtype], copy=False))
                self._device.memory_at(addresses[tensor.name], made.nbytes)[:] = made.reshape(-1).view(np.uint8)

        self._device.queue(stream, begin)
        self._device.queue(stream, end)
        return True

    def _shape_of(self, name: str) -> tuple[int, ...]:
        """Of an output that the data sizes: found by running the function on anything."""
        images = np.zeros((self._batch_size, *self._image.shape[1:]), DTYPES[self._image.dtype])
        names = [tensor.name for tensor in self._outputs]
        return tuple(self._design.function(images)[names.index(name)].shape)

    def _dtype_of(self, name: str) -> type[np.generic]:
        return DTYPES[next(tensor.dtype for tensor in self._outputs if tensor.name == name)]

    def _ensure_unchanged(self, what: str) -> None:
        if self._is_captured:
            raise Violation(f"{what} is changed in a context that a graph was captured from")

    def _refuse(self, text: str) -> bool:
        self._logger.log(Severity.ERROR, text)
        return False
