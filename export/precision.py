"""Step `precision`: one variant's file. Promises: the calibrator with the best tuning metric wins; all are reported."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import orjson

from export.accuracy import evaluate
from export.artifact import Detail
from export.bare_graph import bare_graph
from export.calibration import LARGEST_BATCH, Calibrator, calibrators_of, observe, ranges_of
from export.datasets import ImageSplit, ensure_calibration_allowed
from export.errors import GraphError
from export.evidence import point_value
from export.graph_rewrites import read_interleaved_pixels, use_depthwise_for_batch_norm
from export.large_files import WEIGHTS_SUFFIX, hand_on_weights, load_graph, save_graph, weight_files
from export.onnx_graph import MODEL_FILE, WEIGHTED_OPS, ensure_contract, op_counts, weighted_part
from export.quantization import has_vnni, last_tensors, nodes_to_quantize, observed_tensors, quantized
from export.serving import open_backend
from export.steps import StepContext
from export.variants import VariantKind

BARE_FILE = "bare.onnx"  # the same variant without deploy wrapping; absent where the front has no such form
CALIBRATION_FILE = "calibration.json"
_MAX_QUANTIZED_BYTES = 1_900_000_000  # the graph is one message in memory meanwhile, which protobuf ends at 2 GiB


@dataclass(frozen=True, slots=True)
class Candidate:
    """One calibrator's file and what it reached on the tuning split."""

    calibrator: str
    metric: float
    file: Path


def run_precision(context: StepContext) -> Detail:
    """Writes `model.onnx` in the variant's precision."""
    assert context.variant is not None
    return _MAKERS[context.variant](context)


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """Highest tuning metric; the earlier of equals, since that one clips less."""
    return max(candidates, key=lambda candidate: candidate.metric)


def _make_fp32(context: StepContext) -> Detail:
    source = context.inputs["onnx_optimization"].file(MODEL_FILE)
    model = load_graph(source)
    hand_on_weights(model, source.parent, context.out, _weights_name(context))
    _write_bare(model, context.out)
    is_interleaved = read_interleaved_pixels(model)
    save_graph(model, context.out / MODEL_FILE)
    onnx.checker.check_model(os.fspath(context.out / MODEL_FILE))  # by its path: weights may lie beside it
    return {"precision": "fp32", "interleaved_first_convolution": is_interleaved}


def _make_int8_cpu(context: StepContext) -> Detail:
    recipe, spec = context.recipe, context.recipe.calibration
    calibration, tuning, test = (context.data.split(context.loaded, name) for name in ("calibration", "tuning", "test"))
    ensure_calibration_allowed(calibration, [tuning, test], spec.min_images)
    model = _whole_graph(context.inputs["onnx_optimization"].file(MODEL_FILE))
    use_depthwise_for_batch_norm(model)
    names = nodes_to_quantize(model, spec.keep_float)
    context.note("observing activations")
    largest_batch = min(LARGEST_BATCH, recipe.qualify.evaluate_batch_size)
    histograms = observe(model, observed_tensors(model, names), calibration.images, largest_batch)
    with tempfile.TemporaryDirectory(dir=context.out) as scratch:
        candidates: list[Candidate] = []
        for calibrator in calibrators_of(spec):
            context.note(f"trying {calibrator.name}")
            ranges = ranges_of(histograms, calibrator, unclipped=last_tensors(model, names))
            candidate = quantized(model, names, ranges, has_vnni())
            onnx.checker.check_model(candidate)
            ensure_contract(candidate, recipe.task, recipe.preprocess, recipe.extra_outputs)
            candidates.append(_measured(context, candidate, calibrator, tuning, Path(scratch)))
        chosen = best_candidate(candidates)
        made = load_graph(chosen.file)
        hand_on_weights(made, chosen.file.parent, context.out, _weights_name(context))
        save_graph(made, context.out / MODEL_FILE)
        _write_bare(made, context.out)
        kernels = optimised_ops(context.out / MODEL_FILE, Path(scratch))
    weighted = [node.name for node in weighted_part(model) if node.op_type in WEIGHTED_OPS]
    detail: dict[str, str | float | int | bool] = {
        "precision": "int8",
        "calibrator": chosen.calibrator,
        "calibration_images": len(calibration.samples),
        "calibration_sha256": calibration.sha256,
        "tuning_metric": chosen.metric,
        "reduce_range": not has_vnni(),
        "quantized_nodes": len(names),
        "quantized_weighted_nodes": len(set(weighted) & set(names)),
        "weighted_nodes": len(weighted),
        "float_weighted_kernels": sum(kernels.get(op, 0) for op in _FLOAT_KERNELS),
        "runtime_kernels": ", ".join(f"{op} {count}" for op, count in sorted(kernels.items())),
    }
    table = [{"calibrator": candidate.calibrator, "tuning_metric": candidate.metric} for candidate in candidates]
    document = {"candidates": table, "tuning_images": len(tuning.samples), "tuning_sha256": tuning.sha256}
    (context.out / CALIBRATION_FILE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return detail


def _whole_graph(file: Path) -> onnx.ModelProto:
    """A graph with its weights in it, as quantization needs it. Raises GraphError for one that is too large."""
    size = file.stat().st_size + sum((file.parent / name).stat().st_size for name in weight_files(file))
    if size > _MAX_QUANTIZED_BYTES:
        raise GraphError(
            f"the float network has {size / 1e9:.1f} GB, int8-cpu takes up to "
            f"{_MAX_QUANTIZED_BYTES / 1e9:.1f} GB: leave int8-cpu out of the recipe's variants"
        )
    return onnx.load(file)


def _write_bare(model: onnx.ModelProto, directory: Path) -> None:
    """No file when the front has no bare form: the speed ratio cannot be measured then."""
    with contextlib.suppress(GraphError):
        save_graph(bare_graph(model), directory / BARE_FILE)


def _weights_name(context: StepContext) -> str:
    """Variants lie in one directory when published, so each names its own weights."""
    return f"{context.variant}.onnx{WEIGHTS_SUFFIX}"


def optimised_ops(file: Path, scratch: Path) -> dict[str, int]:
    """How often each kernel occurs after ONNX Runtime's own fusions: whether Q/DQ pairs really became int8 kernels."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    options.log_severity_level = 4  # it warns that such a file fits this machine only, which is the point
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return op_counts(onnx.load(options.optimized_model_filepath).graph.node)


_FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "ConvTranspose")


def _measured(
    context: StepContext, model: onnx.ModelProto, calibrator: Calibrator, tuning: ImageSplit, scratch: Path
) -> Candidate:
    recipe = context.recipe
    file = scratch / f"{calibrator.name}.onnx"
    save_graph(model, file)
    backend = open_backend(file, recipe)
    size = recipe.qualify.evaluate_batch_size
    evidence = evaluate(backend.infer, tuning, recipe.task, len(recipe.labels), size)
    backend.close()
    return Candidate(calibrator.name, point_value(evidence), file)


_MAKERS: dict[VariantKind, Callable[[StepContext], Detail]] = {"fp32": _make_fp32, "int8-cpu": _make_int8_cpu}
