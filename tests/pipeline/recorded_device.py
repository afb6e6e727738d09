"""A device that is none. Promises: answers by ONNX Runtime, layers and durations from a recording, and it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray

from saccade.export.precision.effective_precision import layer_precisions
from saccade.export.qualification.accuracy import Answer
from saccade.export.qualification.serving import open_backend
from saccade.export.recipe import Recipe
from saccade.models.contract.manifest import MeasuredDevice

_FORMATS = {"fp32": "Row major linear FP32", "fp16": "Row major linear FP16 format", "int8": "Row major Int8 format"}
_OPENED_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Recording:
    """What the device of the recording did with plans."""

    is_sparse_picked: bool = True
    silently_fp32: tuple[str, ...] = ()  # nodes that its plan computes in fp32 whatever the file says
    seconds: dict[str, float] = field(default_factory=dict)  # of one batch, by variant; 0.01 for others


class RecordedPlan:
    plan_bytes = _OPENED_BYTES
    memory_bytes = 3_000_000

    def __init__(self, file: Path, recipe: Recipe, recording: Recording, is_sparse: bool) -> None:
        self.variant = file.stem
        self._layers = layer_precisions(onnx.load(file))
        self._recording = recording
        self._tactic = "sm80_xmma_fprop_sparse_conv_x" if is_sparse and recording.is_sparse_picked else "sm80_conv_x"
        self._backend = open_backend(file, recipe)
        self.is_closed = False

    def layer_information(self) -> str:
        layers = [
            {
                "Name": layer.node,
                "LayerType": "CaskConvolution",
                "Inputs": [
                    {
                        "Format/Datatype": _FORMATS[
                            "fp32" if layer.node in self._recording.silently_fp32 else layer.precision
                        ]
                    }
                ],
                "TacticName": self._tactic,
                "Metadata": f"[ONNX Layer: {layer.node}]",
            }
            for layer in self._layers
        ]
        return orjson.dumps({"Layers": layers, "Bindings": ["images"]}).decode()

    def infer(self, images: NDArray[np.uint8]) -> Answer:
        return [array.copy() for array in self._backend.infer(images)]

    def close(self) -> None:
        self._backend.close()
        self.is_closed = True


class RecordedDevice:
    """`is_recorded` is False only where a test is about what a real device's figures would lead to."""

    runtime = "a recording"
    device = MeasuredDevice(kind="cuda", name="a recording", threads=1)

    def __init__(self, recipe: Recipe, recording: Recording, *, is_recorded: bool = True) -> None:
        self.is_recorded = is_recorded
        self.opened: list[RecordedPlan] = []
        self._recipe, self._recording = recipe, recording

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> RecordedPlan:
        self.opened.append(RecordedPlan(file, self._recipe, self._recording, is_sparse))
        return self.opened[-1]

    def seconds(
        self, plans: Sequence[RecordedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        durations = [self._recording.seconds.get(plan.variant, 0.01) for plan in plans]
        return np.tile(durations, (repeats, 1))
