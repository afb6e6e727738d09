"""Defines what a device must do to settle pending checks; a GPU and a recording both implement it, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.accuracy import Answer
from saccade.models.contract.manifest import MeasuredDevice


class OpenedPlan(Protocol):
    """A plan that a runtime has opened and that can answer."""

    @property
    def plan_bytes(self) -> int: ...

    @property
    def memory_bytes(self) -> int:
        """Returns the device memory that opening the plan took with its buffers; 0 when it was not measured."""

    def layer_information(self) -> str:
        """Returns the inspector's JSON, which `plan_layers.py` reads; empty where a runtime keeps the types."""

    def infer(self, images: NDArray[np.uint8]) -> Answer:
        """Answers uint8 images (n, height, width, 3) with arrays (n, ...) on the host."""

    def close(self) -> None: ...


class DeviceProbe(Protocol):
    """Builds plans and times them to settle pending checks."""

    @property
    def device(self) -> MeasuredDevice: ...

    @property
    def runtime(self) -> str: ...

    @property
    def is_recorded(self) -> bool:
        """Tells whether figures come from a recording instead of a device; such figures are never published."""

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        """Builds a plan of an ONNX file and opens it; `outputs` are the tensors that `infer` answers, in order."""

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        """Times one batch on plans that take turns; returns durations (turns, plans) in seconds."""
