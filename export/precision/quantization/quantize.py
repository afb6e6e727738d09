"""Makes int8 and fp8 files; the calibrator with the best metric on the tuning split is taken, and all are reported."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray

from saccade.export.artifact import Detail
from saccade.export.data.datasets import calibration_split
from saccade.export.data.image_split import ImageSplit
from saccade.export.graph.graph_rewrites import use_depthwise_for_batch_norm
from saccade.export.graph.large_files import hand_on_weights, load_graph, save_graph, whole_graph
from saccade.export.graph.onnx_graph import MODEL_FILE, WEIGHTED_OPS, layer_of, op_counts, weighted_part
from saccade.export.graph.sessions import cpu_session, quiet_options
from saccade.export.precision.files import CALIBRATION_FILE, LAYERS_FILE, POLICY_FILE, weights_name, write_bare
from saccade.export.precision.quantization.accuracy_control import ControlTerms, controlled, head_layers, told
from saccade.export.precision.quantization.calibrate import read_histograms
from saccade.export.precision.quantization.calibration import LARGEST_BATCH
from saccade.export.precision.quantization.candidates import (
    Attempt,
    Candidate,
    Workbench,
    best_candidate,
    chosen_calibrator,
    measured_candidate,
    measured_candidates,
    plan_ranges,
    plan_without,
    tuning_evidence,
)
from saccade.export.precision.quantization.equal_scales import EQUAL_SCALES, equal_scales
from saccade.export.precision.quantization.policy_measurement import searched
from saccade.export.precision.quantization.qdq import has_vnni
from saccade.export.precision.quantization.schemes import SCHEMES, QuantizationPlan
from saccade.export.precision.quantization.sensitivity import Sensitivities, sensitivities
from saccade.export.qualification.evidence import Evidence, accuracy_of, point_value
from saccade.export.qualification.operating_point import operating_accuracy
from saccade.export.steps import StepContext
from saccade.export.variants import TRAITS

Facts = dict[str, str | float | int | bool]
_FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "ConvTranspose")


def make_quantized(context: StepContext) -> Detail:
    """Writes the variant's `model.onnx`, the table of candidates and the table of layers."""
    assert context.variant is not None
    calibration = calibration_split(context.data, context.loaded)
    model = whole_graph(context.inputs["onnx_optimization"].file(MODEL_FILE), context.variant)
    use_depthwise_for_batch_norm(model)
    histograms = read_histograms(context.inputs["calibrate"])
    tuning = context.data.split(context.loaded, "tuning")
    with tempfile.TemporaryDirectory(dir=context.out) as scratch:
        plain = Workbench(context, SCHEMES[context.variant], model, histograms, tuning, Path(scratch))
        benches = [plain, *with_equal_scales(plain, calibration.images)]
        tried = [(each, measured_candidates(each, plan_without(each, {}))) for each in benches]
        bench, own = max(tried, key=lambda pair: best_candidate(pair[1]).rank)  # of equals the plain one
        first = Attempt(plan_without(bench, {}), best_candidate(own))
        found = measured_sensitivities(bench, first, calibration.images)
        attempts, facts = refined(bench, first, found)
        taken = attempts[-1]
        made = load_graph(taken.candidate.file)
        hand_on_weights(made, taken.candidate.file.parent, context.out, weights_name(context.variant))
        save_graph(made, context.out / MODEL_FILE)
        write_bare(made, context.out)
        kernels = _runtime_facts(context, Path(scratch))
    candidates = [*(candidate for _, each in tried for candidate in each), *(each.candidate for each in attempts[1:])]
    _write_tables(context, candidates, tuning, layer_table(bench.model, taken.plan, found))
    weighted = [node.name for node in weighted_part(bench.model) if node.op_type in WEIGHTED_OPS]
    return {
        "precision": bench.scheme.precision,
        "calibrator": taken.candidate.calibrator,
        "calibration_images": len(calibration.samples),
        "calibration_sha256": calibration.sha256,
        "tuning_metric": taken.candidate.metric,
        "quantized_nodes": len(taken.plan.nodes),
        "quantized_weighted_nodes": len(set(weighted) & set(taken.plan.nodes)),
        "weighted_nodes": len(weighted),
        **norm_facts(tried, bench),
        **facts,
        **kernels,
    }


def measured_sensitivities(bench: Workbench, first: Attempt, images: NDArray[np.uint8]) -> Sensitivities:
    """Measures all quantized layers with the chosen calibrator's ranges, without time limit where they decide."""
    spec, recipe = bench.context.recipe.calibration, bench.context.recipe
    decides = spec.accuracy_control.max_drop is not None or spec.policy is not None
    names = {node.name for node in weighted_part(bench.model) if node.op_type in WEIGHTED_OPS}
    bench.context.note("measuring sensitivity")
    return sensitivities(
        bench.model,
        names & set(first.plan.nodes),
        plan_ranges(bench, first.plan, chosen_calibrator(bench, first.candidate)),
        bench.scheme.grid,
        bench.scheme.numbers,
        images[: spec.sensitivity_images],
        min(spec.sensitivity_images, recipe.qualify.evaluate_batch_size),
        float("inf") if decides else spec.sensitivity_budget_s,
    )


def refined(bench: Workbench, first: Attempt, found: Sensitivities) -> tuple[list[Attempt], Facts]:
    """Applies accuracy control and policy search to the best candidate; of the attempts, the last one is taken."""
    context, spec = bench.context, bench.context.recipe.calibration
    calibrator = chosen_calibrator(bench, first.candidate)

    def attempt(taken_out: Mapping[str, str]) -> Attempt:
        plan = plan_without(bench, taken_out)
        name = f"{first.candidate.calibrator}, {len(taken_out)} layers float"
        context.note(f"trying {name}")
        return Attempt(plan, measured_candidate(bench, plan, plan_ranges(bench, plan, calibrator), name))

    attempts: list[Attempt] = [first]
    facts: Facts = {}
    control = spec.accuracy_control
    if control.budget_s > 0 and (spec.policy is None or control.max_drop is not None):
        start = time.monotonic()
        floats = tuning_evidence(context, context.inputs["onnx_optimization"].file(MODEL_FILE), bench.tuning)
        terms = ControlTerms(
            lambda candidate: tuning_drop(context, candidate, floats),
            allowed_drop(context),
            control.max_float_layers,
            lambda: time.monotonic() - start < control.budget_s,
        )
        heads = [name for name in head_layers(bench.model) if name in set(first.plan.nodes)]
        attempts = controlled(first, heads, found.worst_first(), terms, attempt)
        facts = {
            "float_tuning_metric": point_value(floats),
            "tuning_drop": terms.drop(attempts[-1].candidate),
            "layers_given_back": taken_back(attempts),
            "accuracy_control": told(attempts, terms),
        }
    if spec.policy is not None and attempts[-1] is first and not _runs_elsewhere(context):
        taken, report = searched(bench, spec.policy, first, calibrator, found)
        (context.out / POLICY_FILE).write_text(report.model_dump_json(indent=2) + "\n")
        facts |= {"policy": "all-int8" if taken is first else taken.candidate.calibrator}
        attempts = [first] if taken is first else [first, taken]
    return attempts, facts


def allowed_drop(context: StepContext) -> float:
    """Without a number of its own it is the gate's."""
    assert context.variant is not None
    named = context.recipe.calibration.accuracy_control.max_drop
    return context.recipe.gate.metric_drop_limit(context.variant) if named is None else named


def tuning_drop(context: StepContext, candidate: Candidate, floats: Evidence) -> float:
    """What the gate would ask of the tuning split, at every score and at a detector's threshold: the larger one."""
    assert candidate.evidence is not None
    recipe = context.recipe
    resamples = recipe.qualify.bootstrap_resamples
    every = [accuracy_of(candidate.evidence, floats, resamples)]
    operating = operating_accuracy(candidate.evidence, floats, recipe.task.score_threshold, resamples)
    every += [] if operating is None else [operating[1]]
    return max(each.drop.value if each.is_never_worse else each.drop.high for each in every)


def taken_back(attempts: list[Attempt]) -> int:
    """How many weighted layers the last attempt keeps float beyond the one that quantizes most."""
    return max(len(each.plan.nodes) for each in attempts) - len(attempts[-1].plan.nodes)


def with_equal_scales(bench: Workbench, images: NDArray[np.uint8]) -> list[Workbench]:
    """Returns a second bench when the network has LayerNorms whose channels can get equal ranges."""
    grid, recipe = bench.scheme.grid, bench.context.recipe
    if not (recipe.calibration.layer_norm_reparametrisation and grid.is_uniform):
        return []  # a floating-point grid rounds small channels as finely as large ones
    batch = min(LARGEST_BATCH, recipe.qualify.evaluate_batch_size)
    equal = equal_scales(bench.model, bench.histograms, images, batch, is_symmetric=grid.is_symmetric)
    if equal is None:
        return []
    return [replace(bench, model=equal.model, histograms=equal.histograms, label=EQUAL_SCALES)]


def norm_facts(tried: list[tuple[Workbench, list[Candidate]]], taken: Workbench) -> dict[str, str | float]:
    """Returns both figures of a network whose LayerNorms competed; nothing for other networks."""
    if len(tried) == 1:
        return {}
    plain, equal = (best_candidate(candidates).metric for _, candidates in tried)
    return {
        "layer_norm_scales": "equal" if taken.label else "plain",
        "plain_scales_tuning_metric": plain,
        "equal_scales_tuning_metric": equal,
    }


def layer_table(model: onnx.ModelProto, plan: QuantizationPlan, found: Sensitivities) -> list[dict[str, object]]:
    """Returns a JSON row per weighted node."""
    chosen = set(plan.nodes)
    return [
        {
            "layer": layer_of(node.name),
            "node": node.name,
            "op": node.op_type,
            "quantized": node.name in chosen,
            "reason": plan.reasons.get(node.name, ""),
            "sensitivity": found.decibels(node.name),
        }
        for node in weighted_part(model)
        if node.op_type in WEIGHTED_OPS
    ]


def optimised_ops(file: Path, scratch: Path) -> dict[str, int]:
    """Counts each kernel after ONNX Runtime's own fusions; it shows whether Q/DQ pairs really became int8 kernels."""
    options = quiet_options()
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    cpu_session(file, options)
    return op_counts(onnx.load(options.optimized_model_filepath).graph.node)


def _runs_elsewhere(context: StepContext) -> bool:
    assert context.variant is not None
    return TRAITS[context.variant].needs_gpu


def _runtime_facts(context: StepContext, scratch: Path) -> Facts:
    """Returns facts about this machine's kernels; nothing for variants that other machines run."""
    if _runs_elsewhere(context):
        return {}
    kernels = optimised_ops(context.out / MODEL_FILE, scratch)
    return {
        "reduce_range": not has_vnni(),
        "float_weighted_kernels": sum(kernels.get(op, 0) for op in _FLOAT_KERNELS),
        "runtime_kernels": ", ".join(f"{op} {count}" for op, count in sorted(kernels.items())),
    }


def _write_tables(
    context: StepContext, candidates: list[Candidate], tuning: ImageSplit, layers: list[dict[str, object]]
) -> None:
    table = [{"calibrator": candidate.calibrator, "tuning_metric": candidate.metric} for candidate in candidates]
    document = {"candidates": table, "tuning_images": len(tuning.samples), "tuning_sha256": tuning.sha256}
    (context.out / CALIBRATION_FILE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    (context.out / LAYERS_FILE).write_bytes(orjson.dumps(layers, option=orjson.OPT_INDENT_2))
