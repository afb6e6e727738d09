"""Runs TensorRT plans, with copies that overlap runs.

TensorRT opens a plan only after the plan's digest, its TensorRT version and its GPU were checked
(`plan_checks.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import structlog

from saccade.models.contract.plans import PlanEnvironment, PlanRecord
from saccade.service.backends.base import LoadRequest, Outputs, UInt8Array
from saccade.service.backends.cuda.buffers import BufferPlan, ensure_fits, plan_buffers
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.lanes import CudaLane, device_memory, open_streams
from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
from saccade.service.backends.plan_checks import build_command, ensure_plan_fits, read_plan, read_plan_record
from saccade.service.backends.tensorrt.contexts import ContextSource, SizedContext
from saccade.service.backends.tensorrt.engine import EngineTensors, checked_tensors, open_engine, tensors_of
from saccade.service.backends.tensorrt.kernel_cache import KernelCache
from saccade.service.backends.tensorrt.module import KeptLog, TensorRt, find_tensorrt
from saccade.service.errors import BackendError, RuntimeMissing

log = structlog.get_logger()


class TensorRtBackend:
    """A PipelinedBackend: one opened plan with its buffers."""

    def __init__(
        self, request: LoadRequest, *, tensorrt: TensorRt | None = None, cuda: CudaDriver | None = None
    ) -> None:
        """Opens the plan. Only tests pass `tensorrt` and `cuda`.

        Raises PlanRefused, RuntimeMissing, OutOfDeviceMemory, or BackendError; DeviceLost ends the process.
        """
        self._cuda: CudaDriver = RuntimeDriver() if cuda is None else cuda
        self._device = device_index(request.device)
        self._thread = 0
        self._owned = ExitStack()
        self._contexts: dict[tuple[int, int], SizedContext] = {}
        self._ready: tuple[CudaLane, int] | None = None  # the lane that `staging` gave out, and its batch size
        self._started: dict[int, tuple[CudaLane, int]] = {}
        self._last_started = 0
        self._inspect: Callable[[], str] | None = None
        self._kernels: KernelCache | None = None
        device = self._cuda.properties(self._device)
        record = read_plan_record(request.plan_dir, device.capability)
        runtime = _ensure_tensorrt(tensorrt, record)
        assert request.plan_dir is not None  # read_plan_record refuses None
        plan = read_plan(request.plan_dir, record, device.capability)
        here = PlanEnvironment(runtime.__name__, runtime.__version__, device.capability, device.name)
        ensure_plan_fits(record, request, here)
        self._sizes = request.allowed_batch_sizes or record.key.allowed_batch_sizes
        with ExitStack() as undo:
            undo.callback(self._owned.close)
            self._open(request, runtime, plan, build_command(record, device.capability))
            undo.pop_all()
        self.provider = f"{runtime.__name__} {runtime.__version__}"

    @property
    def batches_in_flight(self) -> int:
        return len(self._lanes)

    @property
    def graphs(self) -> Mapping[int, str]:
        """For each batch size that has run: `captured`, or why it runs without a graph."""
        notes = sorted((size, context.note) for (_, size), context in self._contexts.items() if context.note)
        return dict(notes)

    @property
    def buffers(self) -> BufferPlan:
        return self._plan

    def layer_information(self) -> str:
        """The inspector's description of the plan, as JSON; only plans built with detailed profiling name types."""
        if self._inspect is None:
            raise BackendError("the plan is closed")
        return self._inspect()

    def infer(self, images: UInt8Array) -> Outputs:
        if images.shape[1:] != self._plan.input.spec.shape:
            raise BackendError(f"images are {images.shape[1:]}, the model takes {self._plan.input.spec.shape}")
        self.staging(len(images))[...] = images
        return self.finish(self.start())[0]

    def staging(self, batch_size: int) -> UInt8Array:
        if batch_size not in self._sizes:
            raise BackendError(f"batch size {batch_size} is not among those loaded: {', '.join(map(str, self._sizes))}")
        busy = [lane for lane, _ in self._started.values()]
        lane = next((lane for lane in self._lanes if lane not in busy), None)
        if lane is None:
            raise BackendError(f"{len(busy)} batches are in flight, which is all there is room for; finish one first")
        self._ready = (lane, batch_size)
        return lane.staging(batch_size)

    def start(self) -> int:
        if self._ready is None:
            raise BackendError("nothing was staged; write the pixels into what `staging` returns")
        (lane, batch_size), self._ready = self._ready, None
        self._take_thread()
        context = self._contexts[self._lanes.index(lane), batch_size]
        if not context.note:
            self._prepare(context, lane, batch_size)
        lane.start(batch_size, context.run, lambda output: context.address_of(lane, output))
        self._last_started += 1
        self._started[self._last_started] = (lane, batch_size)
        return self._last_started

    def finish(self, started: int) -> tuple[Outputs, float]:
        lane, batch_size = self._started.pop(started)
        self._take_thread()
        try:
            return lane.finish(batch_size)
        except BackendError:
            lane.drain()  # else a later batch would reuse memory that is still being written
            raise

    def keep_compiled(self) -> None:
        if self._kernels is not None:
            self._take_thread()
            self._kernels.keep()

    def close(self) -> None:
        """Waits for the batches in flight, then frees everything."""
        self._take_thread()
        self._kernels = None
        for lane, _ in self._started.values():
            lane.drain()
        self._started.clear()
        self._inspect = None
        self._contexts.clear()
        self._owned.close()

    def _open(self, request: LoadRequest, tensorrt: TensorRt, plan: bytes, rebuild: str) -> None:
        self._take_thread()
        sizes = {"max_batch_size": self._sizes[-1], "batches_in_flight": request.batches_in_flight}
        buffers = plan_buffers(request.input, request.outputs, **sizes)
        what = f"{request.file.name} as a plan of {len(plan)} bytes"
        ensure_fits(what, len(plan) + buffers.device_bytes, self._cuda.memory().free_bytes)
        kept = KeptLog(tensorrt)
        runtime, engine = open_engine(tensorrt, plan, kept, rebuild)
        self._owned.callback(_drop_in_reverse, [kept, runtime, engine])
        tensors = checked_tensors(tensors_of(engine, tensorrt), request, rebuild)
        scratch = int(engine.device_memory_size_v2)
        self._plan = plan_buffers(
            request.input, request.outputs, **sizes, scratch_bytes=scratch, contexts=request.execution_contexts
        )
        ensure_fits(what, self._plan.device_bytes, self._cuda.memory().free_bytes)
        streams = open_streams(self._cuda, self._plan.contexts, self._owned)
        self._lanes = [
            CudaLane(self._cuda, self._plan, streams, index, self._owned) for index in range(request.batches_in_flight)
        ]
        self._owned.callback(self._contexts.clear)  # contexts go before the memory that they compute in
        source = ContextSource(tensorrt, engine, kept)
        if source.kernels is not None and request.kernel_seal is not None and request.plan_dir is not None:
            name = self._cuda.properties(self._device).name
            self._kernels = KernelCache(source.kernels, request.plan_dir, name, request.kernel_seal)
        self._make_contexts(source, tensorrt, kept, tensors, request.cuda_graphs)
        self._inspect = partial(_inspected, tensorrt, engine, source)

    def _make_contexts(
        self, source: ContextSource, tensorrt: TensorRt, kept: KeptLog, tensors: EngineTensors, wants_graph: bool
    ) -> None:
        sizes = source.unread_bytes(self._plan.input.spec, self._sizes[-1], tensors.unread)
        ensure_fits(f"memory for {len(sizes)} unread outputs", sum(sizes.values()), self._cuda.memory().free_bytes)
        scratch, unread = [], []
        for _ in range(self._plan.contexts):
            scratch.append(device_memory(self._cuda, max(1, self._plan.scratch_bytes), self._owned))
            # Outputs are not shared between contexts, because later layers may read them.
            unread.append({name: device_memory(self._cuda, size, self._owned) for name, size in sizes.items()})
        for index, lane in enumerate(self._lanes):
            for size in self._sizes:
                context = source.create()
                made = SizedContext(
                    context,
                    size,
                    tensors,
                    cuda=self._cuda,
                    tensorrt=tensorrt,
                    kept=kept,
                    owned=self._owned,
                    wants_graph=wants_graph,
                )
                made.set_up(lane, self._plan, scratch[lane.slot], unread[lane.slot])
                self._contexts[index, size] = made

    def _prepare(self, context: SizedContext, lane: CudaLane, batch_size: int) -> None:
        try:
            context.prepare(lane.compute_stream)
        except BackendError:
            lane.drain()
            raise
        log.info("batch_size_prepared", size=batch_size, cuda_graph=context.note)

    def _take_thread(self) -> None:
        """Sets the device in this thread: versions are loaded in one thread and run in another."""
        thread = threading.get_ident()
        if thread != self._thread:
            self._cuda.set_device(self._device)
            self._thread = thread


def _inspected(tensorrt: TensorRt, engine: Any, source: ContextSource) -> str:
    inspector = engine.create_engine_inspector()
    inspector.execution_context = source.create()  # without a context, formats of dynamic shapes are missing
    return str(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


def device_index(device: str) -> int:
    """The index of a GPU: 2 for "cuda:2". Raises BackendError for any other device."""
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit():
        raise BackendError(f"TensorRT runs on a GPU, the device is {device!r}: say cuda:0, or another backend")
    return int(index)


def _drop_in_reverse(held: list[Any]) -> None:
    """Drops the last one first: an engine goes before its runtime."""
    while held:
        held.pop()


def _ensure_tensorrt(given: TensorRt | None, record: PlanRecord) -> TensorRt:
    found = find_tensorrt(record.key.runtime) if given is None else given
    if found is None:
        raise RuntimeMissing(
            f"the plan needs {record.key.runtime} {record.key.runtime_version} and no TensorRT is installed: "
            "pip install 'saccade-serving[tensorrt]' (or 'saccade-serving[rtx]')"
        )
    return found
