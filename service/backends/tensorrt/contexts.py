"""Execution contexts of one engine: one per lane and batch size, so that no context changes after a graph captured it.

TensorRT's guide ("CUDA Graphs") says that changing a context after a graph captured it is undefined, and advises
one context per graph with shared memory for activations. So each context is set up once, and contexts whose runs
follow each other on one stream share that memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.cuda.buffers import BufferPlan, TensorBuffer
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.lanes import CudaLane, device_memory
from saccade.service.backends.tensorrt.capture import CAPTURED, CaptureFacts, capture_refusal
from saccade.service.backends.tensorrt.engine import EngineTensors, is_out_of_memory
from saccade.service.backends.tensorrt.module import KeptLog, TensorRt
from saccade.service.backends.tensorrt.sized_outputs import SizedOutput, sized_output
from saccade.service.errors import BackendError, OutOfDeviceMemory


class ContextSource:
    """Makes execution contexts that compute in memory which saccade allocated."""

    def __init__(self, tensorrt: TensorRt, engine: Any, kept: KeptLog) -> None:
        self.kernels: Any = None  # TensorRT for RTX's cache of compiled kernels, which all contexts share
        self._engine = engine
        self._kept = kept
        strategy = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._how: Any = strategy
        if hasattr(tensorrt, "DynamicShapesKernelSpecializationStrategy"):
            # TensorRT for RTX compiles kernels for each shape while it runs. It shall do so during warm-up, because a
            # graph must not capture the fallback kernels.
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.dynamic_shapes_kernel_specialization_strategy = (
                tensorrt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            self.kernels = config.create_runtime_cache()
            config.set_runtime_cache(self.kernels)
            self._how = config

    def unread_bytes(self, images: TensorSpec, batch_size: int, names: Sequence[str]) -> dict[str, int]:
        """Largest sizes of the outputs that nobody reads; TensorRT computes them all the same."""
        if not names:
            return {}
        context = self.create()
        context.set_input_shape(images.name, (batch_size, *images.shape))
        return {name: int(context.get_max_output_size(name)) for name in names}

    def create(self) -> Any:
        context = self._engine.create_execution_context(self._how)
        if context is None:
            reason = self._kept.last()
            error = OutOfDeviceMemory if is_out_of_memory(reason) else BackendError
            raise error(f"TensorRT makes no execution context: {reason}")
        return context


class SizedContext:
    """One lane at one batch size: a context that is set up once, and its CUDA graph where it has one."""

    def __init__(
        self,
        context: Any,
        batch_size: int,
        tensors: EngineTensors,
        *,
        cuda: CudaDriver,
        tensorrt: TensorRt,
        kept: KeptLog,
        owned: ExitStack,
        wants_graph: bool,
    ) -> None:
        self._context = context
        self._batch_size = batch_size
        self._tensors = tensors
        self._cuda = cuda
        self._tensorrt = tensorrt
        self._kept = kept
        self._owned = owned
        self._wants_graph = wants_graph
        self._graph: int | None = None
        self._sized: dict[str, tuple[SizedOutput, TensorSpec]] = {}
        self.note = ""  # CAPTURED, or why it runs without a graph; empty before the first run

    def set_up(self, lane: CudaLane, plan: BufferPlan, scratch: int, unread: Mapping[str, int]) -> None:
        """Sets shapes and addresses for good. Outputs that nobody asked for go to the addresses in `unread`."""
        context, images = self._context, plan.input.spec
        context.set_device_memory(scratch, plan.scratch_bytes)
        self._ensure(context.set_input_shape(images.name, (self._batch_size, *images.shape)), "the input's shape")
        self._ensure(context.set_tensor_address(images.name, lane.input_address), "the input's address")
        for output in plan.outputs:
            address, name = lane.output_address(output), output.spec.name
            if name in self._tensors.sized_by_data:
                size_bytes = output.size_bytes(plan.max_batch_size)
                allocator = sized_output(self._tensorrt, self._allocate, address, size_bytes)
                self._sized[name] = (allocator, output.spec)
                self._ensure(context.set_output_allocator(name, allocator), f"the allocator of {name}")
            else:
                self._ensure(context.set_tensor_address(name, address), f"the address of {name}")
        for name in self._tensors.unread:
            self._ensure(context.set_tensor_address(name, unread[name]), f"the address of {name}")

    def address_of(self, lane: CudaLane, output: TensorBuffer) -> int:
        """The address at which the last run put an output."""
        sized = self._sized.get(output.spec.name)
        return lane.output_address(output) if sized is None else sized[0].address

    def run(self, stream: int) -> None:
        """Queues one run, as a graph where one was captured."""
        if self._graph is not None:
            self._cuda.launch(self._graph, stream)
        else:
            self._enqueue(stream)

    def prepare(self, stream: int) -> None:
        """Makes a first run, whose answers are dropped: TensorRT fixes its shapes in it. Then captures a graph if
        possible.
        """
        self._enqueue(stream)
        self._cuda.synchronize_stream(stream)
        asks = getattr(self._context, "is_stream_capturable", None)
        is_capturable = None if asks is None else bool(asks(stream))
        refusal = capture_refusal(CaptureFacts(self._wants_graph, self._tensors.sized_by_data, is_capturable))
        self.note = refusal or self._capture(stream)

    def _capture(self, stream: int) -> str:
        self._cuda.begin_capture(stream)
        problem = ""
        try:
            self._enqueue(stream)
        except BackendError as error:
            problem = str(error)
        try:
            graph = self._cuda.end_capture(stream)
        except BackendError as error:  # the context still runs without a graph
            return f"capture failed: {problem or error}"
        self._owned.callback(self._cuda.destroy_graph, graph)
        if problem:
            return f"capture failed: {problem}"
        self._graph = graph
        return CAPTURED

    def _enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"TensorRT failed to run batch size {self._batch_size}: {self._kept.last()}")
        for name, (allocator, spec) in self._sized.items():
            wanted = (self._batch_size, *spec.shape)
            if allocator.shape != wanted:
                raise BackendError(f"output {name!r} came out as {allocator.shape}, the manifest declares {wanted}")

    def _allocate(self, size_bytes: int) -> int:
        return device_memory(self._cuda, size_bytes, self._owned)

    def _ensure(self, is_done: bool, what: str) -> None:
        if not is_done:
            raise BackendError(f"TensorRT refuses {what} at batch size {self._batch_size}: {self._kept.last()}")
