"""Step `onnx_optimization`: makes a smaller graph with the same answers and tensors; the difference is measured."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnxslim

from saccade.export.artifact import Detail
from saccade.export.convert.conversion_proof import Arrays, RawOutputs, compared, raw_outputs, seeded_images
from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import use_constant_scales, use_elementwise_vector_product, use_global_pooling
from saccade.export.graph.large_files import hand_on_weights, load_graph, plain_session, save_graph, weights_as_inputs
from saccade.export.graph.onnx_graph import (
    MODEL_FILE,
    batch_dimension,
    ensure_contract,
    ensure_unique_names,
    mark_network_outputs,
    rename_batch_dimension,
)
from saccade.export.graph.rewrites.antialiased_resize import use_products_for_antialiased_resize
from saccade.export.graph.rewrites.fourier import use_products_for_fourier
from saccade.export.graph.rewrites.patches_to_image import use_transposed_convolution_for_patches
from saccade.export.steps import StepContext

_CHECKED_BATCH_SIZES = (1, 3)
_MAX_ERROR = 1e-5  # relative L2 on raw outputs; fusing may round and change nothing else


def run_onnx_optimization(context: StepContext) -> Detail:
    """Writes the slimmed `model.onnx`. Raises GraphError when it answers differently."""
    recipe = context.recipe
    converted = context.inputs["onnx_from_torch"]
    original = converted.file(MODEL_FILE)
    file = context.out / MODEL_FILE
    model = load_graph(original)
    before = len(model.graph.node)
    outputs = raw_outputs([each.name for each in model.graph.output], recipe, str(converted.detail["scores_output"]))
    with weights_as_inputs(model):
        slimmed = slim(model)
        model.CopyFrom(slimmed)
    hand_on_weights(model, original.parent, context.out)
    save_graph(model, file)
    error = _largest_difference(original, file, outputs, recipe.preprocess.height, recipe.preprocess.width)
    if not error <= _MAX_ERROR:
        raise GraphError(f"optimisation changed raw outputs by {error:.1e} (relative L2), allowed is {_MAX_ERROR}")
    mark_network_outputs(model, outputs.names[len(recipe.extra_outputs) :])
    ensure_contract(model, recipe.task, recipe.preprocess, recipe.extra_outputs)
    save_graph(model, file)
    onnx.checker.check_model(os.fspath(file))  # checked by its path, so that weights beside it are found
    return {"nodes_before": before, "nodes_after": len(model.graph.node), "relative_error": error}


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folds constants, fuses, and rewrites operators for which a target has no kernel or no fast one."""
    slimmed: onnx.ModelProto = onnxslim.slim(model)
    use_global_pooling(slimmed)
    use_constant_scales(slimmed)
    use_elementwise_vector_product(slimmed)
    use_transposed_convolution_for_patches(slimmed)
    use_products_for_fourier(slimmed)
    use_products_for_antialiased_resize(slimmed)
    ensure_unique_names(slimmed)
    rename_batch_dimension(slimmed)
    return slimmed


def _largest_difference(first: Path, second: Path, outputs: RawOutputs, height: int, width: int) -> float:
    """Returns the relative L2 between the outputs of two files, worst over outputs and batch sizes."""
    sizes = _CHECKED_BATCH_SIZES if batch_dimension(load_graph(first)) != 1 else _CHECKED_BATCH_SIZES[:1]
    # One after the other, because a session holds a copy of the weights.
    expected, found = (_answers(file, outputs, sizes, height, width) for file in (first, second))
    return max(
        figure.relative_l2
        for size, right, left in zip(sizes, expected, found, strict=True)
        for figure in compared(outputs, size, left, right, _MAX_ERROR)
    )


def _answers(file: Path, outputs: RawOutputs, sizes: tuple[int, ...], height: int, width: int) -> list[Arrays]:
    session = plain_session(file)
    images = seeded_images(sizes[-1], height, width)
    return [session.run(list(outputs.names), {"images": images[:size]}) for size in sizes]
