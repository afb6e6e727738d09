"""The interface of all backends: load a variant, run batches of uint8 images, return the network's final answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import ExtraOutput
from saccade.models.contract.specs import TensorSpec
from saccade.service.repository.plan_seal import Seal

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
    sha256: str | None = None  # digest of the file's bytes; None only while exporting, before they are published
    external_data: tuple[tuple[Path, str | None], ...] = ()  # weight files beside `file`, each with its digest
    precision: str = "fp32"  # as the manifest names it; runtimes must not compute in less
    merges_dequantized: bool = True  # False: runtimes keep Q/DQ pairs as written, see export/qualification/serving.py
    allowed_batch_sizes: tuple[int, ...] = ()  # ascending; `infer` gets no other size. Empty: any size
    plan_dir: Path | None = None  # directory of a plan, see models/contract/plans.py
    plan_sha256: str | None = None  # digest of the plan that passed its gate; None while it is still to be measured
    kernel_seal: Seal | None = None  # of compiled kernels, which are kept beside the plan; None: none are kept
    cuda_graphs: bool = True  # capture one graph per allowed batch size where the backend can
    batches_in_flight: int = 2  # one batch is copied while another runs, where the device has copy engines
    execution_contexts: int = 1  # batches that may run on the device at the same time
    extras: tuple[ExtraOutput, ...] = ()  # outputs of the file that are computed only when asked for


class Backend(Protocol):
    """One loaded variant on one device. Not thread-safe: the device loop is its only caller."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs the network."""

    def infer(self, images: UInt8Array) -> Outputs:
        """Runs `images` (n, height, width, 3) and returns one array per output tensor, rows in request order.

        Raises BackendError when the run failed; the backend stays usable.
        """

    def close(self) -> None:
        """Frees device memory. No other call may follow."""


@runtime_checkable
class AskableBackend(Backend, Protocol):
    """A backend that computes extra outputs for the batches that ask, and spends nothing on them otherwise."""

    def infer_asked(self, images: UInt8Array, asked: int) -> Outputs:
        """`infer` with the extra outputs of a mask behind the answer, in the order of `LoadRequest.extras`."""


@runtime_checkable
class CompilingBackend(Backend, Protocol):
    """A backend that compiles while it runs, and can keep what it compiled for the next load."""

    def keep_compiled(self) -> None:
        """Keeps what the warm-up compiled; a failure is logged, and costs the next load time."""


@runtime_checkable
class PipelinedBackend(Backend, Protocol):
    """A backend that copies one batch while another runs. `infer` is `staging`, `start` and `finish` in one.

    All calls come from one thread. It starts at most `batches_in_flight` - 1 other batches before it finishes one.
    """

    @property
    def batches_in_flight(self) -> int: ...

    def staging(self, batch_size: int) -> UInt8Array:
        """The buffer for the next batch, (batch_size, height, width, 3), valid until `start`. May block until one is
        free.

        Raises BackendError for a batch size that was not allowed at load.
        """

    def start(self) -> int:
        """Queues copy, run and copy back of the staged batch and returns at once the number that `finish` takes."""

    def finish(self, started: int) -> tuple[Outputs, float]:
        """The outputs of a started batch, rows in order, and the seconds its run took. The caller may keep the arrays.

        Raises BackendError when the run failed, DeviceLost when the device can only be used by another process.
        """
