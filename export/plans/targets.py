"""Step `targets`: asks, before a build, which runtimes take the network, and names the layer that stops one."""

from __future__ import annotations

from saccade.export.artifact import Artifact, Detail
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.plans.operator_support import tensorrt_support
from saccade.export.plans.tensorrt_from_onnx import find_tensorrt
from saccade.export.steps import StepContext
from saccade.models.contract.manifest import TargetSupport

TARGETS_FILE = "tensorrt.json"


def run_targets(context: StepContext) -> Detail:
    """Writes what the manifest says about TensorRT."""
    support = tensorrt_support(context.inputs["onnx_optimization"].file(MODEL_FILE))
    (context.out / TARGETS_FILE).write_text(support.model_dump_json(indent=2))
    facts: dict[str, str | float | int | bool] = {"tensorrt": support.supported}
    return facts if support.supported else facts | {"reason": support.reason, "fallback": str(support.fallback)}


def installed_tensorrt() -> str:
    """Returns the name and version of the TensorRT that would answer; the version decides which graphs it takes."""
    tensorrt = find_tensorrt()
    return "none" if tensorrt is None else f"{tensorrt.__name__} {tensorrt.__version__}"


def read_targets(artifact: Artifact) -> tuple[TargetSupport, ...]:
    return (TargetSupport.model_validate_json(artifact.file(TARGETS_FILE).read_bytes()),)
