"""Facts out of step artefacts. Promises: read from what the pipeline wrote, nothing measured again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.export.artifact import Artifact, StepResult
from saccade.export.convert.conversion_proof import read_proof
from saccade.export.graph.onnx_graph import MODEL_FILE
from tests.matrix.rows import Int8, Parity

_EXPORT_STEPS = ("wrap", "onnx_from_torch", "onnx_optimization")
_INT8 = "precision.int8-cpu"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # converters write for terminals
WORK_PREFIX = "saccade-matrix-"  # of work directories, whose place says nothing to a reader
_WORK_PATH = re.compile(rf"(?:/[\w.-]+)*/{WORK_PREFIX}\w+/")
_LONGEST_REASON = 400  # characters; the whole text is in the step's log


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the pipeline, by step."""

    results: Mapping[str, StepResult]

    @property
    def failed(self) -> StepResult | None:
        return next((result for result in self.results.values() if result.status == "failed"), None)

    def artifact(self, step: str) -> Artifact | None:
        result = self.results.get(step)
        return None if result is None else result.artifact


def reason_of(result: StepResult) -> str:
    """One line."""
    text = str(result.detail.get("error") or result.detail.get("denied") or "not good")
    return " ".join(_WORK_PATH.sub("", _COLOUR.sub("", text)).split())[:_LONGEST_REASON]


def denial_of(run: Run) -> str:
    gate = run.results.get("gate")
    return " ".join(str(gate.detail.get("denied", "")).split())[:_LONGEST_REASON] if gate else ""


def int8_of(run: Run) -> Int8 | None:
    """None when the run did not get that far."""
    result = run.results.get(_INT8)
    if result is None:
        return None
    if result.artifact is None:
        return Int8(is_built=False, note=reason_of(result))
    return Int8(is_built=True, megabytes=megabytes(result.artifact.file(MODEL_FILE)))


def export_figures(run: Run) -> dict[str, Any]:
    """Those fields of a row that wrapping and converting decide, as far as they went."""
    figures: dict[str, Any] = {}
    wrapped, converted = run.artifact("wrap"), run.artifact("onnx_from_torch")
    if wrapped is not None:
        # An ONNX file's weights are no torch parameters, and nobody counted them.
        figures |= {"parameters": wrapped.detail["parameters"] or None, "folds": wrapped.detail["folds"]}
    if converted is not None:
        figures |= {"opset": converted.detail["opset"], "parity": parity_figures(converted)}
    made = [artifact for step in _EXPORT_STEPS if (artifact := run.artifact(step)) is not None]
    if len(made) == len(_EXPORT_STEPS):
        figures["export_seconds"] = round(sum(artifact.seconds for artifact in made), 1)
    return figures


def parity_figures(converted: Artifact) -> tuple[Parity, ...]:
    """Worst raw output at each batch size, from the conversion's proof."""
    worst: dict[int, float] = {}
    for figure in read_proof(converted.directory).figures:
        worst[figure.batch_size] = max(worst.get(figure.batch_size, 0.0), figure.relative_l2)
    return tuple(Parity(batch_size=size, relative_l2=value) for size, value in sorted(worst.items()))


def megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 2)
