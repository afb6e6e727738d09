"""Makes int8 and fp8 files. Promises: the calibrator with the best tuning metric wins; all are reported."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import orjson
from numpy.typing import NDArray

from export.accuracy import evaluate
from export.artifact import Detail
from export.calibrate import calibration_split, read_histograms, whole_graph
from export.calibration import LARGEST_BATCH, calibrators_of, ranges_of
from export.datasets import ImageSplit
from export.equal_scales import EQUAL_SCALES, equal_scales
from export.errors import GraphError
from export.evidence import point_value
from export.graph_rewrites import use_depthwise_for_batch_norm
from export.large_files import hand_on_weights, load_graph, save_graph
from export.onnx_graph import MODEL_FILE, WEIGHTED_OPS, ensure_contract, layer_of, op_counts, weighted_part
from export.precision_files import CALIBRATION_FILE, LAYERS_FILE, weights_name, write_bare
from export.quantization import has_vnni
from export.quantization_schemes import SCHEMES, QuantizationPlan, QuantizationScheme
from export.serving import open_backend
from export.steps import StepContext
from export.thresholds import Histogram, Range
from export.variants import TRAITS

_FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "ConvTranspose")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One calibrator's file and what it reached on the tuning split."""

    calibrator: str
    metric: float
    file: Path


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every attempt at one variant needs."""

    context: StepContext
    scheme: QuantizationScheme
    model: onnx.ModelProto  # float, with its weights
    histograms: Mapping[str, Histogram]
    tuning: ImageSplit
    scratch: Path
    label: str = ""  # behind the calibrator's name; tells candidates of two benches apart


def make_quantized(context: StepContext) -> Detail:
    """Writes the variant's `model.onnx`, the table of candidates and the table of layers."""
    assert context.variant is not None
    calibration = calibration_split(context)
    model = whole_graph(context.inputs["onnx_optimization"].file(MODEL_FILE))
    use_depthwise_for_batch_norm(model)
    histograms = read_histograms(context.inputs["calibrate"])
    tuning = context.data.split(context.loaded, "tuning")
    with tempfile.TemporaryDirectory(dir=context.out) as scratch:
        plain = Workbench(context, SCHEMES[context.variant], model, histograms, tuning, Path(scratch))
        benches = [plain, *with_equal_scales(plain, calibration.images)]
        tried = [(each, measured_candidates(each, plan_of(each))) for each in benches]
        bench, own = max(tried, key=lambda pair: best_candidate(pair[1]).metric)  # of equals the plain one
        plan, chosen, model = plan_of(bench), best_candidate(own), bench.model
        candidates = [candidate for _, each in tried for candidate in each]
        made = load_graph(chosen.file)
        hand_on_weights(made, chosen.file.parent, context.out, weights_name(context.variant))
        save_graph(made, context.out / MODEL_FILE)
        write_bare(made, context.out)
        kernels = _runtime_facts(context, Path(scratch))
    _write_tables(context, candidates, tuning, layer_table(model, plan))
    weighted = [node.name for node in weighted_part(model) if node.op_type in WEIGHTED_OPS]
    return {
        "precision": bench.scheme.precision,
        "calibrator": chosen.calibrator,
        "calibration_images": len(calibration.samples),
        "calibration_sha256": calibration.sha256,
        "tuning_metric": chosen.metric,
        "quantized_nodes": len(plan.nodes),
        "quantized_weighted_nodes": len(set(weighted) & set(plan.nodes)),
        "weighted_nodes": len(weighted),
        **norm_facts(tried, bench),
        **kernels,
    }


def plan_of(bench: Workbench) -> QuantizationPlan:
    return bench.scheme.plan(bench.model, bench.context.recipe.calibration.keep_float, ())


def with_equal_scales(bench: Workbench, images: NDArray[np.uint8]) -> list[Workbench]:
    """A second bench where the network has LayerNorms whose channels can be made to reach equally far."""
    grid, recipe = bench.scheme.grid, bench.context.recipe
    if not (recipe.calibration.layer_norm_reparametrisation and grid.is_uniform):
        return []  # a floating-point grid rounds small channels as finely as large ones
    batch = min(LARGEST_BATCH, recipe.qualify.evaluate_batch_size)
    equal = equal_scales(bench.model, bench.histograms, images, batch, is_symmetric=grid.is_symmetric)
    if equal is None:
        return []
    return [replace(bench, model=equal.model, histograms=equal.histograms, label=EQUAL_SCALES)]


def norm_facts(tried: list[tuple[Workbench, list[Candidate]]], taken: Workbench) -> dict[str, str | float]:
    """Both figures of a network whose LayerNorms competed; nothing for others."""
    if len(tried) == 1:
        return {}
    plain, equal = (best_candidate(candidates).metric for _, candidates in tried)
    return {
        "layer_norm_scales": "equal" if taken.label else "plain",
        "plain_scales_tuning_metric": plain,
        "equal_scales_tuning_metric": equal,
    }


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """Highest tuning metric; the earlier of equals, since that one clips less."""
    return max(candidates, key=lambda candidate: candidate.metric)


def measured_candidates(bench: Workbench, plan: QuantizationPlan) -> list[Candidate]:
    """One file per calibrator of the recipe, each measured on the tuning split."""
    candidates: list[Candidate] = []
    for calibrator in calibrators_of(bench.context.recipe.calibration, bench.scheme.grid):
        bench.context.note(f"trying {calibrator.name}")
        observed = _observed(bench.histograms, plan.tensors)
        ranges = ranges_of(observed, calibrator, plan.unclipped)
        candidates.append(measured_candidate(bench, plan, ranges, calibrator.name + bench.label))
    return candidates


def measured_candidate(bench: Workbench, plan: QuantizationPlan, ranges: Mapping[str, Range], name: str) -> Candidate:
    """Writes one graph into the scratch directory and measures it on the tuning split."""
    recipe = bench.context.recipe
    model = plan.apply(ranges)
    onnx.checker.check_model(model)
    ensure_contract(model, recipe.task, recipe.preprocess, recipe.extra_outputs)
    file = bench.scratch / f"{name}.onnx"
    save_graph(model, file)
    return Candidate(name, tuning_metric(bench.context, file, bench.tuning), file)


def tuning_metric(context: StepContext, file: Path, tuning: ImageSplit) -> float:
    recipe = context.recipe
    backend = open_backend(file, recipe)
    size = recipe.qualify.evaluate_batch_size
    evidence = evaluate(backend.infer, tuning, recipe.task, len(recipe.labels), size)
    backend.close()
    return point_value(evidence)


def layer_table(model: onnx.ModelProto, plan: QuantizationPlan) -> list[dict[str, object]]:
    """A row per weighted node, JSON-ready."""
    chosen = set(plan.nodes)
    return [
        {
            "layer": layer_of(node.name),
            "node": node.name,
            "op": node.op_type,
            "quantized": node.name in chosen,
            "reason": plan.reasons.get(node.name, ""),
        }
        for node in weighted_part(model)
        if node.op_type in WEIGHTED_OPS
    ]


def optimised_ops(file: Path, scratch: Path) -> dict[str, int]:
    """How often each kernel occurs after ONNX Runtime's own fusions: whether Q/DQ pairs really became int8 kernels."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    options.log_severity_level = 4  # it warns that such a file fits this machine only, which is the point
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return op_counts(onnx.load(options.optimized_model_filepath).graph.node)


def _runtime_facts(context: StepContext, scratch: Path) -> dict[str, str | float | int | bool]:
    """What this machine makes of the file; nothing for variants that other machines run."""
    assert context.variant is not None
    if TRAITS[context.variant].needs_gpu:
        return {}
    kernels = optimised_ops(context.out / MODEL_FILE, scratch)
    return {
        "reduce_range": not has_vnni(),
        "float_weighted_kernels": sum(kernels.get(op, 0) for op in _FLOAT_KERNELS),
        "runtime_kernels": ", ".join(f"{op} {count}" for op, count in sorted(kernels.items())),
    }


def _observed(histograms: Mapping[str, Histogram], tensors: tuple[str, ...]) -> dict[str, Histogram]:
    missing = [name for name in tensors if name not in histograms]
    if missing:
        raise GraphError(f"{len(missing)} tensors were not observed, such as {missing[0]!r}: redo step calibrate")
    return {name: histograms[name] for name in tensors}


def _write_tables(
    context: StepContext, candidates: list[Candidate], tuning: ImageSplit, layers: list[dict[str, object]]
) -> None:
    table = [{"calibrator": candidate.calibrator, "tuning_metric": candidate.metric} for candidate in candidates]
    document = {"candidates": table, "tuning_images": len(tuning.samples), "tuning_sha256": tuning.sha256}
    (context.out / CALIBRATION_FILE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    (context.out / LAYERS_FILE).write_bytes(orjson.dumps(layers, option=orjson.OPT_INDENT_2))
