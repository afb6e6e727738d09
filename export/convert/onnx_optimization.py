"""Step `onnx_optimization`: makes a smaller graph with the same answers and tensors; the difference is measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxslim
from numpy.typing import NDArray

from saccade.export.artifact import Detail
from saccade.export.convert.conversion_proof import (
    MAX_ERROR,
    Arrays,
    Loose,
    RawOutputs,
    compared,
    output_scales,
    proving_rows,
    raw_outputs,
)
from saccade.export.convert.onnx_from_torch import eager_outputs
from saccade.export.convert.own_rounding import OwnRounding
from saccade.export.convert.proof_images import proof_images
from saccade.export.convert.wrap import load_deploy_program
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
from saccade.models.contract.specs import output_tensors


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
    images = proof_images(context.data, context.loaded)
    error = _largest_difference(original, file, outputs, images)
    # Fusing rounds as conversion does: trained text detectors move by 5e-5. The gate holds the shipped file once more.
    if not error <= MAX_ERROR:
        rows, loose = _proving(context, outputs, images)
        again = np.resize(rows, len(images))
        error = _largest_difference(original, file, outputs, images[again], loose[again])
    if not error <= MAX_ERROR:
        raise GraphError(f"optimisation changed raw outputs by {error:.1e} (relative L2), allowed is {MAX_ERROR:.0e}")
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


def _proving(context: StepContext, outputs: RawOutputs, images: NDArray[np.uint8]) -> tuple[NDArray[np.intp], Loose]:
    """Returns the rows of `images` that rounding does not decide, as `proving_rows` does. Raises GraphError."""
    program = load_deploy_program(context.inputs["wrap"].directory)
    first = len(output_tensors(context.recipe.task, context.recipe.preprocess))
    return proving_rows(eager_outputs(program, first), OwnRounding(program, first), outputs, images)


def _largest_difference(
    first: Path, second: Path, outputs: RawOutputs, images: NDArray[np.uint8], loose: Loose | None = None
) -> float:
    """Returns the error between the outputs of two files, as the conversion's proof counts it, worst over all."""
    is_batchable = batch_dimension(load_graph(first)) != 1
    batches = [images[:1], images[:3]] if is_batchable else [images[row : row + 1] for row in range(3)]
    # One after the other, because a session holds a copy of the weights.
    expected, found = (_answers(file, outputs, batches) for file in (first, second))
    scales = output_scales(expected)
    return max(
        figure.relative_l2
        for batch, left, right in zip(batches, found, expected, strict=True)
        for figure in compared(outputs, len(batch), left, right, scales, loose=loose)
    )


def _answers(file: Path, outputs: RawOutputs, batches: Sequence[NDArray[np.uint8]]) -> list[Arrays]:
    session = plain_session(file)
    return [session.run(list(outputs.names), {"images": batch}) for batch in batches]
