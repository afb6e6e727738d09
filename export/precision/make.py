"""Step `precision`: makes one variant's file with the maker that the table names for it."""

from __future__ import annotations

import os
from collections.abc import Callable

import onnx

from saccade.export.artifact import Detail
from saccade.export.errors import DeviceMissing, RecipeError
from saccade.export.extras.make import add_extras
from saccade.export.graph.graph_rewrites import read_interleaved_pixels
from saccade.export.graph.large_files import hand_on_weights, load_graph, save_graph
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.precision.files import weights_name, write_bare
from saccade.export.precision.mixed_precision import make_bf16, make_fp16
from saccade.export.precision.quantization.quantize import make_quantized
from saccade.export.precision.ready import make_ready
from saccade.export.steps import StepContext
from saccade.export.variants import TRAITS, VariantKind
from saccade.service.backends.openvino_backend import why_absent


def run_precision(context: StepContext) -> Detail:
    """Writes `model.onnx` in the variant's precision. Raises DeviceMissing, see `ensure_runtime`."""
    assert context.variant is not None
    ensure_runtime(context.variant)
    maker = make_ready if context.loaded.quantized else _MAKERS.get(context.variant)
    if maker is None:
        raise RecipeError(f"nothing makes the variant {context.variant!r} yet; made are: {', '.join(_MAKERS)}")
    return {**maker(context), **add_extras(context)}


def _make_fp32(context: StepContext) -> Detail:
    assert context.variant is not None
    return _float_file(context, context.variant)


def _make_openvino_float(context: StepContext) -> Detail:
    """Writes the file of fp32, byte for byte, which OpenVINO computes in the variant's precision."""
    assert context.variant is not None
    return {**_float_file(context, "fp32"), "precision": TRAITS[context.variant].precision}


def ensure_runtime(variant: VariantKind) -> None:
    """Raises DeviceMissing where this machine has no runtime or no instructions to measure the variant with."""
    traits = TRAITS[variant]
    reason = why_absent(traits.precision) if traits.is_openvino else ""
    if reason:
        raise DeviceMissing(f"{variant} is measured where it runs, not here: {reason}")


def _float_file(context: StepContext, named: VariantKind) -> Detail:
    """Writes the float graph; `named` names its weights file."""
    source = context.inputs["onnx_optimization"].file(MODEL_FILE)
    model = load_graph(source)
    hand_on_weights(model, source.parent, context.out, weights_name(named))
    write_bare(model, context.out)
    is_interleaved = read_interleaved_pixels(model)
    save_graph(model, context.out / MODEL_FILE)
    # checked by its path, because weights may lie beside it
    onnx.checker.check_model(os.fspath(context.out / MODEL_FILE))
    return {"precision": "fp32", "interleaved_first_convolution": is_interleaved}


_MAKERS: dict[VariantKind, Callable[[StepContext], Detail]] = {
    "fp32": _make_fp32,
    "fp32-openvino": _make_openvino_float,
    "fp32-pruned": _make_fp32,
    "fp16": make_fp16,
    "bf16": make_bf16,
    "bf16-cpu": _make_openvino_float,
    "fp16-sparse24": make_fp16,
    "fp16-pruned": make_fp16,
    "int8-cpu": make_quantized,
    "int8-cpu-pruned": make_quantized,
    "int8-openvino": make_quantized,
    "int8-trt": make_quantized,
    "int8-trt-sparse24": make_quantized,
    "int8-trt-pruned": make_quantized,
    "fp8-trt": make_quantized,
}
