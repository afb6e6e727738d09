"""What the device loop works on: requests, loaded instances with their buffers, and results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import ExtraOutput, asked_for, mask_of
from saccade.service.backends.base import AskableBackend, Backend, Outputs, PipelinedBackend
from saccade.service.ipc.tensor_slots import SlotArena, SlotLayout
from saccade.service.worker.batch_filling import ALL_PIXELS, Filling, JpegRowDecoder, fill_rows
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel


class Work(msgspec.Struct, frozen=True, eq=False):
    """One submitted request; the reply goes to `connection`."""

    connection: Any
    arena: SlotArena
    request_id: int
    slot: int
    instance_id: int
    deadline_s: float
    submitted_s: float
    encoded_bytes: int = 0  # length of the JPEG in the slot; 0 means that the slot holds pixels
    rank_offset_s: float = 0.0  # offset for the priority, see api/priority.py
    asked: int = 0  # mask of the extra outputs that its answer shall have

    @property
    def rank_s(self) -> float:
        return self.deadline_s + self.rank_offset_s


class Finished(msgspec.Struct, frozen=True):
    """How a request ended; `outputs` are its rows of the batch's outputs, or None unless `status` is DONE_OK."""

    work: Work
    status: int
    queue_s: float
    infer_s: float
    batch_size: int
    outputs: tuple[NDArray[Any], ...] | None
    layout: SlotLayout | None
    decode_s: float = 0.0
    batch: int = 0  # numbered in the order of their ends


def asked_of(batch: Sequence[Work]) -> int:
    """The mask of all that the requests of a batch ask for."""
    asked = 0
    for work in batch:
        asked |= work.asked
    return asked


class LoadedInstance:
    """A loaded variant with its buffers and its measured speed."""

    def __init__(
        self,
        backend: Backend,
        layout: SlotLayout,
        limits: BatchLimits,
        latency: LatencyModel,
        jpegs: JpegRowDecoder | None = None,
        extras: tuple[ExtraOutput, ...] = (),
    ) -> None:
        """`jpegs` decodes on the device; None means that every slot holds pixels.

        `extras` are the extra outputs of the variant's file, which count only where the backend computes them.
        """
        self.backend = backend
        self.pipeline = backend if isinstance(backend, PipelinedBackend) else None
        self.askable = backend if isinstance(backend, AskableBackend) else None
        self.extras = extras if self.askable else ()
        self.gives = mask_of(self.extras)
        self.layout = layout
        self.limits = limits
        self.latency = latency
        self.jpegs = jpegs
        self.is_closed = False
        self.last_run_s = time.monotonic()  # the warm-up has just measured the instance
        self._clears_padding = False
        # A pipelined backend has its own staging memory.
        rows = 0 if self.pipeline else limits.allowed_sizes[-1]
        self._batch = np.zeros((rows, *layout.input.shape), layout.input.dtype)

    def close(self) -> None:
        """Frees the backend; the caller must hold the device."""
        self.is_closed = True
        self.backend.close()

    def note_failure(self) -> None:
        """Notes a failed run: an image in the padding may have caused it, so padding is cleared from now on."""
        self._clears_padding = True

    def gather(self, batch: Sequence[Work], row_count: int) -> tuple[NDArray[Any], Filling]:
        """Returns the pixels of a batch in order, then padding; a single image is not copied out of its slot."""
        if row_count == 1 and not batch[0].encoded_bytes:
            return batch[0].arena.tensor(batch[0].slot, self.layout.input)[np.newaxis], ALL_PIXELS
        rows = self._batch[:row_count]
        return rows, fill_rows(batch, rows, self.layout.input, self.jpegs, self._clears_padding)

    def run(self, batch: Sequence[Work], row_count: int) -> tuple[Outputs, float, Filling]:
        """Runs a batch; returns the outputs of all rows, the seconds of the run, and how the rows were filled."""
        if self.pipeline is not None:
            number, filling = self.start(self.pipeline, batch, row_count)
            return *self.pipeline.finish(number), filling
        images, filling = self.gather(batch, row_count)
        asked = asked_of(batch)
        start_s = time.monotonic()
        outputs = self.askable.infer_asked(images, asked) if asked and self.askable else self.backend.infer(images)
        return outputs, time.monotonic() - start_s, filling

    def rows(self, batch: Sequence[Work], outputs: Outputs) -> Iterator[tuple[NDArray[Any], ...]]:
        """Each request's own rows of a batch's outputs: the answer, then the extra outputs that it asked for."""
        rows = zip(*(output[: len(batch)] for output in outputs), strict=True)  # without the padding
        asked = asked_of(batch)
        if all(work.asked == asked for work in batch):
            return rows
        found = asked_for(self.extras, asked)
        answers = len(outputs) - len(found)
        return (
            (
                *row[:answers],
                *(row[answers + place] for place, extra in enumerate(found) if extra.kind.bit & work.asked),
            )
            for work, row in zip(batch, rows, strict=True)
        )

    def start(self, pipeline: PipelinedBackend, batch: Sequence[Work], row_count: int) -> tuple[int, Filling]:
        """Starts a batch whose pixels are gathered directly in the memory that the device copies from."""
        rows = pipeline.staging(row_count)
        filling = fill_rows(batch, rows, self.layout.input, self.jpegs, self._clears_padding)
        return pipeline.start(), filling


@dataclass(frozen=True, slots=True)
class Started:
    """What the loop needs to finish a batch that was started."""

    instance: LoadedInstance
    pipeline: PipelinedBackend
    batch: Sequence[Work]
    rows: int  # rows of the run; rows beyond `batch` are padding
    filling: Filling
