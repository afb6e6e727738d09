"""Step `onnx_optimization`: a smaller graph. Promises: same answers, tensors, dynamic batch; measured, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxslim

from export.artifact import Detail
from export.errors import GraphError
from export.graph_rewrites import use_constant_scales, use_elementwise_vector_product, use_global_pooling
from export.onnx_graph import (
    MODEL_FILE,
    ensure_contract,
    ensure_unique_names,
    mark_network_outputs,
    rename_batch_dimension,
)
from export.parity import relative_l2
from export.steps import StepContext
from models.specs import output_tensors

_CHECKED_BATCH_SIZES = (1, 3)
_MAX_ERROR = 1e-5  # relative L2 on raw network outputs; fusing rounds, it must not do more


def run_onnx_optimization(context: StepContext) -> Detail:
    """Writes the slimmed `model.onnx`. Raises GraphError when it answers differently."""
    recipe = context.recipe
    original = context.inputs["onnx_from_torch"].file(MODEL_FILE)
    model = onnx.load(original)
    before = len(model.graph.node)
    answers = len(output_tensors(recipe.task, recipe.preprocess))
    raw_names = [output.name for output in model.graph.output][answers:]
    slimmed = slim(model)
    onnx.save(slimmed, context.out / MODEL_FILE)
    error = _largest_difference(
        original, context.out / MODEL_FILE, raw_names, recipe.preprocess.height, recipe.preprocess.width
    )
    if error > _MAX_ERROR:
        raise GraphError(f"optimisation changed raw outputs by {error:.1e} (relative L2), allowed is {_MAX_ERROR}")
    mark_network_outputs(slimmed, raw_names)
    ensure_contract(slimmed, recipe.task, recipe.preprocess)
    onnx.checker.check_model(slimmed)
    onnx.save(slimmed, context.out / MODEL_FILE)
    return {"nodes_before": before, "nodes_after": len(slimmed.graph.node), "relative_error": error}


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folds constants, fuses, and rewrites what ONNX Runtime has no fast or no int8 kernel for."""
    slimmed: onnx.ModelProto = onnxslim.slim(model)
    use_global_pooling(slimmed)
    use_constant_scales(slimmed)
    use_elementwise_vector_product(slimmed)
    ensure_unique_names(slimmed)
    rename_batch_dimension(slimmed)
    return slimmed


def _largest_difference(first: Path, second: Path, names: list[str], height: int, width: int) -> float:
    """Relative L2 of the named outputs of two files on seeded noise, worst over outputs and batch sizes."""
    rng = np.random.default_rng(0)
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (first, second)]
    worst = 0.0
    for size in _CHECKED_BATCH_SIZES:
        images = rng.integers(0, 256, (size, height, width, 3), np.uint8)
        expected, found = (session.run(names, {"images": images}) for session in sessions)
        worst = max(worst, *(relative_l2(*pair) for pair in zip(found, expected, strict=True)))
    return worst
