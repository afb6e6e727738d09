"""Runs ONNX files with ONNX Runtime on a GPU, with fixed buffers, copies that overlap runs, and no silent CPU fallback.

This is a PipelinedBackend. The thread that calls `start` queues the copy to the device; the backend's own thread then
runs the batch and queues the copy back. All runs come from that one thread, because ONNX Runtime keeps CUDA graphs and
library handles per calling thread: what a warm-up prepared in another thread would be prepared again at the first
request. Replaying a graph blocks its caller until the run is done, so another thread queues the copies.

Every batch size has a session of its own, because a convolution keeps cuDNN's plan for the latest shape only: in a
shared session every change of size would plan the whole network anew, and graphs would outlive the plans they replay.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from saccade.models.contract.plans import PlanEnvironment
from saccade.service.backends.base import LoadRequest, Outputs, UInt8Array
from saccade.service.backends.cuda.buffers import BufferPlan, ensure_fits, plan_buffers
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.failures import ensure_usable
from saccade.service.backends.cuda.lanes import CudaLane, open_streams
from saccade.service.backends.onnxruntime_backend import (
    GPU_PROVIDER,
    ensure_provider,
    import_onnxruntime,
    load_cuda_libraries,
    refuse_tf32,
)
from saccade.service.backends.onnxruntime_forms import PLAIN, MeasuredForm, ProviderForm, fastest, form_from, forms_for
from saccade.service.backends.onnxruntime_session import BoundSession, SessionDevice, raise_if_out_of_memory
from saccade.service.backends.plan_checks import ensure_plan_fits, read_plan, read_plan_record
from saccade.service.errors import BackendError

log = structlog.get_logger()

# Opening a session is work of the processor, which has more cores than one thread uses. Each reads the whole file, so
# larger ones are opened one after the other.
_OPENED_AT_ONCE = 4
_LARGEST_AT_ONCE = 256 * 2**20
# Larger batches keep the device busy without graphs, which gained 1.7 times at batch 1 and nothing at 256 on an H200.
_LARGEST_GRAPH = 8


@dataclass(frozen=True, slots=True)
class _Started:
    lane: CudaLane
    size: int
    queued: Future[None]  # completes once the run and the copy back are queued


class OnnxRuntimeCudaBackend:
    """One session per batch size, with input and outputs bound per lane."""

    def __init__(
        self, request: LoadRequest, *, cuda: CudaDriver | None = None, placement: SessionDevice | None = None
    ) -> None:
        """Opens all sessions. Only tests pass `cuda` and `placement`.

        Raises RuntimeMissing, OutOfDeviceMemory or BackendError; DeviceLost ends the process.
        """
        self._request = request
        self._at = placement or SessionDevice(GPU_PROVIDER, "cuda", int(request.device.partition(":")[2]))
        ensure_provider(request.device, self._at.provider)
        self._sizes = request.allowed_batch_sizes
        self._thread = 0
        self._owned = ExitStack()
        self._lanes: list[CudaLane] = []
        self._sessions: dict[int, BoundSession] = {}  # by batch size; a single one under 0 where none were named
        self._form = PLAIN
        self._settled: set[tuple[int, int]] = set()  # (lane, batch size) pairs that have run
        self._without_graphs = self._reason_against_graphs()
        self._ready: tuple[CudaLane, int] | None = None
        self._started: dict[int, _Started] = {}
        self._last_started = 0
        if cuda is None:
            from saccade.service.backends.cuda.runtime_driver import (
                RuntimeDriver,  # needs cuda-python, which tests do without
            )

            cuda = RuntimeDriver()
        self._cuda = cuda
        self._runner = ThreadPoolExecutor(1, "onnxruntime")
        with ExitStack() as undo:
            undo.callback(self._runner.shutdown)
            self._runner.submit(self._open).result()
            undo.pop_all()

    @property
    def provider(self) -> str:
        return self._at.provider

    @property
    def batches_in_flight(self) -> int:
        return self._request.batches_in_flight

    @property
    def form(self) -> ProviderForm:
        """The provider options that were chosen."""
        return self._form

    @property
    def graphs(self) -> Mapping[int, str]:
        """For each batch size that has run: `captured`, or why it runs without a graph."""
        sizes = sorted({size for _, size in self._settled})
        return {size: "captured" if self._has_graph(size) else self._why_no_graph(size) for size in sizes}

    def infer(self, images: UInt8Array) -> Outputs:
        if images.shape[1:] != self._request.input.shape:
            raise BackendError(f"images are {images.shape[1:]}, the model takes {self._request.input.shape}")
        self.staging(len(images))[...] = images
        return self.finish(self.start())[0]

    def staging(self, batch_size: int) -> UInt8Array:
        if self._sizes and batch_size not in self._sizes:
            raise BackendError(f"batch size {batch_size} is not among those loaded: {', '.join(map(str, self._sizes))}")
        if batch_size > self._plan.max_batch_size:
            self._grow(batch_size)
        busy = [started.lane for started in self._started.values()]
        lane = next((lane for lane in self._lanes if lane not in busy), None)
        if lane is None:
            raise BackendError(f"{len(busy)} batches are in flight, which is all there is room for; finish one first")
        self._ready = (lane, batch_size)
        return lane.staging(batch_size)

    def start(self) -> int:
        if self._ready is None:
            raise BackendError("nothing was staged; write the pixels into what `staging` returns")
        (lane, size), self._ready = self._ready, None
        self._take_thread()
        lane.upload(size)
        self._last_started += 1
        index = self._lanes.index(lane)
        queued = self._runner.submit(self._compute, index, size)
        if (index, size) not in self._settled:
            # The queued run may capture a graph, in a mode that calls of other threads would break.
            wait([queued])
        self._started[self._last_started] = _Started(lane, size, queued)
        return self._last_started

    def finish(self, started: int) -> tuple[Outputs, float]:
        batch = self._started.pop(started)
        self._take_thread()
        try:
            batch.queued.result()
            return batch.lane.finish(batch.size)
        except BackendError:
            batch.lane.drain()  # or its memory would be overwritten by a later batch while it is still being written
            ensure_usable(self._cuda, batch.lane.compute_stream)
            raise

    def close(self) -> None:
        """Waits for the batches in flight, then frees everything."""
        self._started.clear()
        try:
            self._runner.submit(self._close).result()
        finally:
            self._runner.shutdown()

    # These methods run in the backend's own thread, except `_grow`, `_take_thread` and those that only read

    def _open(self) -> None:
        if self._at.is_cuda:
            refuse_tf32()
            if missing := load_cuda_libraries():
                log.warning("cuda_libraries_missing", said=missing)  # without them, opening the session fails
        self._cuda.set_device(self._at.index)
        with ExitStack() as undo:
            undo.callback(self._close)
            self._make_lanes(self._sizes[-1] if self._sizes else 1)
            self._choose_form(self._forms())
            self._log_session()
            undo.pop_all()

    def _close(self) -> None:
        for lane in self._lanes:
            lane.drain()
        self._sessions.clear()
        self._lanes = []
        self._owned.close()

    def _log_session(self) -> None:
        """Logs one session, since those of all sizes are alike."""
        session, file = next(iter(self._sessions.values())), self._request.file.name
        if session.nodes_beside:
            log.info("nodes_on_cpu", file=file, operators=sorted({node.operator for node in session.nodes_beside}))
        if self._at.is_cuda and not session.is_ordered:
            log.warning("onnxruntime_stream_refused", file=file, effect="runs are waited for")

    def _make_lanes(self, max_batch_size: int) -> None:
        request = self._request
        self._plan: BufferPlan = plan_buffers(
            request.input,
            request.outputs,
            max_batch_size=max_batch_size,
            batches_in_flight=request.batches_in_flight,
        )
        ensure_fits(f"buffers of {request.file.name}", self._plan.device_bytes, self._cuda.memory().free_bytes)
        streams = open_streams(self._cuda, 1, self._owned)
        self._lanes = [
            CudaLane(self._cuda, self._plan, streams, index, self._owned) for index in range(request.batches_in_flight)
        ]

    def _grow(self, batch_size: int) -> None:
        """Enlarges the buffers for a larger batch, where the sizes were not known at load."""
        if self._started:
            raise BackendError(f"there is no room for {batch_size} images while batches are in flight; finish them")
        self._runner.submit(self._reopen_for, batch_size).result()

    def _reopen_for(self, batch_size: int) -> None:
        self._close()
        self._settled.clear()
        self._make_lanes(batch_size)
        self._use(self._form)

    def _forms(self) -> tuple[ProviderForm, ...]:
        """The form of the plan, or all that may be tried where there is none."""
        if self._request.plan_dir is not None:
            return (self._planned_form(self._request.plan_dir),)
        return forms_for(self._request.precision) if self._at.is_cuda else (PLAIN,)

    def _planned_form(self, directory: Path) -> ProviderForm:
        here = self._cuda.properties(self._at.index)
        version = str(import_onnxruntime().__version__)
        record = read_plan_record(directory, here.capability)
        ensure_plan_fits(record, self._request, PlanEnvironment("onnxruntime", version, here.capability, here.name))
        return form_from(read_plan(directory, record, here.capability), self._request.precision)

    def _choose_form(self, forms: tuple[ProviderForm, ...]) -> None:
        """Opens the fastest form, after running the largest batch in every form that opens."""
        if len(forms) == 1:
            self._use(forms[0])
            return
        measured = [self._measured(form) for form in forms]
        form = fastest(measured)
        self._use(form)
        log.info(
            "onnxruntime_form_chosen",
            file=self._request.file.name,
            form=form.name,
            batch_size=self._plan.max_batch_size,
            images_per_s={each.form.name: round(each.images_per_s, 1) for each in measured if not each.failure},
            failed={each.form.name: each.failure for each in measured if each.failure},
        )

    def _measured(self, form: ProviderForm) -> MeasuredForm:
        lane, size = self._lanes[0], self._plan.max_batch_size
        self._sessions.clear()
        try:
            session = self._opened(form, size)
            measured = MeasuredForm(form, session.images_per_s(lane, size))
        except BackendError as error:
            ensure_usable(self._cuda, lane.compute_stream)
            return MeasuredForm(form, failure=str(error))
        self._form, self._sessions[self._key(size)] = form, session
        return measured

    def _use(self, form: ProviderForm, *, afresh: bool = False) -> None:
        """Opens in this form the sessions that are not open yet, several at once."""
        if afresh or form != self._form:
            self._sessions.clear()
        self._form = form
        absent = [size for size in reversed(self._sizes or (0,)) if size not in self._sessions]
        with ThreadPoolExecutor(self._openers(), "onnxruntime-open", self._cuda.set_device, (self._at.index,)) as pool:
            opened = pool.map(partial(self._opened, form), absent)
            self._sessions.update(zip(absent, opened, strict=True))

    def _openers(self) -> int:
        files = (self._request.file, *(path for path, _ in self._request.external_data))
        file_bytes = sum(path.stat().st_size for path in files if path.is_file())
        return _OPENED_AT_ONCE if file_bytes <= _LARGEST_AT_ONCE else 1

    def _opened(self, form: ProviderForm, size: int) -> BoundSession:
        """Opens a session, without graphs where the session refuses to have them."""
        stream = self._lanes[0].compute_stream
        make = partial(BoundSession, self._request, self._at, self._cuda, self._plan, stream, form)
        try:
            try:
                return make(with_graphs=self._has_graph(size))
            except BackendError as error:
                if not self._has_graph(size) or "graph" not in str(error).lower():
                    raise
                # Graphs demand every node on the GPU; without them a few shape nodes may stay on the CPU.
                self._without_graphs = f"ONNX Runtime refuses: {error}"
                return make(with_graphs=False)
        except BackendError as error:
            ensure_usable(self._cuda, stream)
            raise_if_out_of_memory(error)
            raise

    def _compute(self, index: int, size: int) -> None:
        """Runs an uploaded batch and queues the copy of its answers.

        The first run of a lane and size is waited for: it captures the graph, or shows what must be given up.
        """
        lane, is_first = self._lanes[index], (index, size) not in self._settled
        while True:
            try:
                self._run(lane, index, size, is_first=is_first)
                self._settled.add((index, size))
                return
            except BackendError as error:
                ensure_usable(self._cuda, lane.compute_stream)
                raise_if_out_of_memory(error)
                if not (is_first and self._give_something_up(size, str(error))):
                    raise

    def _run(self, lane: CudaLane, index: int, size: int, *, is_first: bool) -> None:
        session = self._sessions.get(self._key(size))
        if session is None:  # an earlier attempt to open it in another form failed
            raise BackendError(f"{self._request.file.name} has no session for {size} images: load the version again")
        graph = index + 1 if self._has_graph(size) else None  # each lane has its own addresses, so its own graph
        lane.compute(
            size,
            lambda stream: session.run(lane, size, stream, graph=graph, waits=is_first),
            lane.output_address,
        )

    def _give_something_up(self, size: int, reason: str) -> bool:
        """Reopens without graphs, or else in the plain form. False when there is nothing left to give up."""
        self._settled.clear()  # the new sessions have not run yet
        if self._has_graph(size):
            log.warning("cuda_graphs_given_up", file=self._request.file.name, reason=reason)
            self._without_graphs = f"capture failed: {reason}"
            self._use(self._form, afresh=True)
        elif self._form != PLAIN:
            log.warning("onnxruntime_form_given_up", file=self._request.file.name, form=self._form.name, reason=reason)
            self._use(PLAIN)
        else:
            return False
        return True

    def _reason_against_graphs(self) -> str:
        if not self._request.cuda_graphs:
            return "SACCADE_CUDA_GRAPHS is false"
        return "" if self._sizes else "batch sizes were not named at load"

    def _key(self, size: int) -> int:
        """The key in `_sessions` of the session that runs batches of this size."""
        return size if self._sizes else 0

    def _has_graph(self, size: int) -> bool:
        return not self._without_graphs and size <= _LARGEST_GRAPH

    def _why_no_graph(self, size: int) -> str:
        return self._without_graphs or f"gains nothing above batches of {_LARGEST_GRAPH}"

    def _take_thread(self) -> None:
        """Sets the device in this thread: versions are loaded in one thread and run in another."""
        thread = threading.get_ident()
        if thread != self._thread:
            self._cuda.set_device(self._at.index)
            self._thread = thread
