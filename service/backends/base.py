"""The runtime seam: load, infer, close. Promises: whatever is behind it takes uint8 batches, gives final answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import TensorSpec

UInt8Array = NDArray[np.uint8]
Outputs = Sequence[NDArray[Any]]  # one array per output tensor, each with the batch as leading dimension


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Everything a backend needs to open one variant."""

    file: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    device: str  # "cpu" or "cuda:<index>"
    threads: int  # intra-op threads on a CPU device
    allow_spinning: bool  # busy-wait between batches: lower latency when the cores are otherwise idle
    sha256: str | None = None  # of the file's bytes; None only while exporting, when they are not published yet
    external_data: tuple[tuple[Path, str | None], ...] = ()  # weight files beside `file`, each with its digest
    precision: str = "fp32"  # as the manifest names it; runtimes must not compute in less
    merges_dequantized: bool = True  # False: runtimes keep Q/DQ pairs as written, see export/qualification/serving.py
    allowed_batch_sizes: tuple[int, ...] = ()  # ascending; what will be asked of `infer`. Empty: anything
    plan_dir: Path | None = None  # of a TensorRT plan, see models/contract/plans.py
    plan_sha256: str | None = None  # of the plan that passed its gate; None only where it is still to be measured
    cuda_graphs: bool = True  # capture one graph per allowed batch size where the backend can
    batches_in_flight: int = 2  # one is copied while another runs, where the device has engines for both
    execution_contexts: int = 1  # batches that may run on the device at the same time


class Backend(Protocol):
    """One loaded variant on one device. Not thread-safe: the device loop is its only caller."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""

    def infer(self, images: UInt8Array) -> Outputs:
        """Answers for `images` (n, height, width, 3), one output array per tensor, rows in request order.

        Raises BackendError when the run failed; the backend stays usable.
        """

    def close(self) -> None:
        """Frees device memory; no call may follow."""


@runtime_checkable
class PipelinedBackend(Backend, Protocol):
    """A backend whose device copies one batch while it runs another. `infer` is `staging`, `start` and `finish` in one.

    Calls come from one thread. Between `start` and its `finish` at most `batches_in_flight` - 1 others are started.
    """

    @property
    def batches_in_flight(self) -> int: ...

    def staging(self, batch_size: int) -> UInt8Array:
        """Where to write the next batch, (batch_size, height, width, 3); valid until `start`. May wait for a free one.

        Raises BackendError for a batch size that was not allowed at load.
        """

    def start(self) -> int:
        """Queues copy, run and copy back of what `staging` got; returns at once. The result names it for `finish`."""

    def finish(self, started: int) -> tuple[Outputs, float]:
        """Outputs of a started batch, rows in order and the caller's to keep, and the seconds its run took.

        Raises BackendError when the run failed, DeviceLost when the device can only be used by another process.
        """
