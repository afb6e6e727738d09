"""Makes the fp16 and bf16 variants: calibrated ranges decide which nodes leave fp32, and all types are written down."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import orjson

from saccade.export.artifact import Detail
from saccade.export.data.datasets import calibration_split
from saccade.export.errors import GraphError
from saccade.export.graph.large_files import hand_on_weights, load_graph, save_graph, whole_graph
from saccade.export.graph.onnx_graph import MODEL_FILE, ensure_contract, ensure_unique_names
from saccade.export.precision.casting import lift_constants, narrowed
from saccade.export.precision.effective_precision import (
    dtype_counts,
    dtype_table,
    layer_precisions,
    layers_of_network,
    share_in,
)
from saccade.export.precision.emulation import measured_through
from saccade.export.precision.files import weights_name
from saccade.export.precision.float_formats import FloatFormat, NarrowPrecision, float_format
from saccade.export.precision.quantization.calibration import LARGEST_BATCH, observe
from saccade.export.precision.regions import Regions, ranged_tensors, regions_by_operator, regions_within_range
from saccade.export.steps import StepContext
from saccade.export.variants import TRAITS

DTYPES_FILE = "dtypes.json"  # lists every node's type, and why it stayed fp32


def make_fp16(context: StepContext) -> Detail:
    """Writes `model.onnx` and `dtypes.json`."""
    return _make(context, "fp16")


def make_bf16(context: StepContext) -> Detail:
    """Writes `model.onnx` and `dtypes.json`."""
    return _make(context, "bf16")


def _make(context: StepContext, precision: NarrowPrecision) -> Detail:
    assert context.variant is not None
    assert TRAITS[context.variant].precision == precision
    recipe, target = context.recipe, float_format(precision)
    calibration = calibration_split(context.data, context.loaded)
    model = whole_graph(context.inputs["onnx_optimization"].file(MODEL_FILE), context.variant)
    allowed = regions_by_operator(prepared(model, target), target)
    context.note("observing activations")
    batch = min(LARGEST_BATCH, recipe.qualify.evaluate_batch_size)
    histograms = observe(model, ranged_tensors(model, allowed), calibration.images, batch)
    extremes = {name: max(abs(each.low), abs(each.high)) for name, each in histograms.items()}
    regions = regions_within_range(model, allowed, extremes, target)
    made = narrowed(model, regions.narrow, target)
    ensure_contract(made, recipe.task, recipe.preprocess, recipe.extra_outputs)
    _save(made, context)
    (context.out / DTYPES_FILE).write_bytes(orjson.dumps(dtypes_document(made, regions), option=orjson.OPT_INDENT_2))
    counts = {f"nodes_{dtype}": count for dtype, count in dtype_counts(dtype_table(made)).items()}
    layers = layers_of_network(made, layer_precisions(made))
    return {
        "precision": precision,
        "share_of_flops": share_in(layers, precision),
        "kept_fp32": ", ".join(f"{reason}: {count}" for reason, count in regions.reason_counts().items()),
        "calibration_images": len(calibration.samples),
        "calibration_sha256": calibration.sha256,
        "measured_through": measured_through(made),
        **counts,
    }


def prepared(model: onnx.ModelProto, target: FloatFormat) -> onnx.ModelProto:
    """Changes the graph so that every operator may take the type: constants lifted, names unique, opset raised."""
    ensure_unique_names(model)
    lift_constants(model)
    del model.graph.value_info[:]
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset < target.min_opset:
        try:
            model.CopyFrom(onnx.version_converter.convert_version(model, target.min_opset))
        except Exception as error:  # the converter raises plain RuntimeErrors of C++
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GraphError(
                f"{target.precision} needs opset {target.min_opset}; this graph of opset {opset} cannot be converted "
                f"({reason}): set onnx.opset: {target.min_opset} in the recipe"
            ) from error
        del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def dtypes_document(model: onnx.ModelProto, regions: Regions) -> list[Mapping[str, object]]:
    """Returns one row per node: its name, operator, output types, and why it stayed fp32."""
    return [
        {"node": row.node, "op": row.op, "dtypes": row.dtypes, "kept_fp32": regions.kept_fp32.get(row.node)}
        for row in dtype_table(model)
    ]


def _save(model: onnx.ModelProto, context: StepContext) -> None:
    assert context.variant is not None
    with tempfile.TemporaryDirectory(dir=context.out) as scratch:
        save_graph(model, Path(scratch) / MODEL_FILE)
        saved = load_graph(Path(scratch) / MODEL_FILE)
        hand_on_weights(saved, Path(scratch), context.out, weights_name(context.variant))
    save_graph(saved, context.out / MODEL_FILE)
    onnx.checker.check_model(os.fspath(context.out / MODEL_FILE), full_check=True)
