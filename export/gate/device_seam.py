"""What settles pending checks, as a seam. Promises: torch is not needed; a recording and a device look the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.accuracy import Answer
from saccade.models.contract.manifest import MeasuredDevice


class OpenedPlan(Protocol):
    """A plan in a runtime, ready to answer."""

    @property
    def plan_bytes(self) -> int: ...

    @property
    def memory_bytes(self) -> int:
        """Of the device, that opening it took with its buffers, measured; 0: not measured."""

    def layer_information(self) -> str:
        """The inspector's JSON, see `plan_layers.py`."""

    def infer(self, images: NDArray[np.uint8]) -> Answer:
        """Answers (n, ...) to uint8 images (n, height, width, 3), on the host again."""

    def close(self) -> None: ...


class DeviceProbe(Protocol):
    """What settles pending checks: it builds plans and times them."""

    @property
    def device(self) -> MeasuredDevice: ...

    @property
    def runtime(self) -> str: ...

    @property
    def is_recorded(self) -> bool:
        """Whether figures come from a recording instead of a device; such figures are never published."""

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        """Builds a plan of an ONNX file and opens it; `outputs` are the tensors that `infer` answers, in order."""

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        """Durations (turns, plans) of one batch; the plans take turns."""
