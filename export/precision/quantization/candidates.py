"""Writes quantized files and measures each of them on the tuning split through the serving backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from saccade.export.data.image_split import ImageSplit
from saccade.export.errors import GraphError
from saccade.export.graph.large_files import save_graph
from saccade.export.graph.onnx_graph import ensure_contract
from saccade.export.precision.quantization.calibration import Calibrator, calibrators_of, ranges_of
from saccade.export.precision.quantization.schemes import QuantizationPlan, QuantizationScheme
from saccade.export.precision.quantization.thresholds import Histogram, Range
from saccade.export.qualification.accuracy import evaluate
from saccade.export.qualification.evidence import Evidence, point_value
from saccade.export.qualification.operating_point import at_threshold
from saccade.export.qualification.serving import open_backend
from saccade.export.steps import StepContext


@dataclass(frozen=True, slots=True)
class Candidate:
    """One calibrator's file and the metric that it reached on the tuning split."""

    calibrator: str
    metric: float
    file: Path
    evidence: Evidence | None = None  # per tuning image, to compare candidates in pairs
    operating_metric: float | None = None  # of a detector at its score threshold

    @property
    def rank(self) -> float:
        """The mean of all that must not fall: at every score, and where users are."""
        return self.metric if self.operating_metric is None else (self.metric + self.operating_metric) / 2.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A candidate and the layers that are quantized in it."""

    plan: QuantizationPlan
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Workbench:
    """The inputs that every attempt at one variant shares."""

    context: StepContext
    scheme: QuantizationScheme
    model: onnx.ModelProto  # float model with its weights
    histograms: Mapping[str, Histogram]
    tuning: ImageSplit
    scratch: Path
    label: str = ""  # suffix of the calibrator's name that tells candidates of two benches apart


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """Highest tuning metrics; the earlier of equals, since that one clips less."""
    return max(candidates, key=lambda candidate: candidate.rank)


def measured_candidates(bench: Workbench, plan: QuantizationPlan) -> list[Candidate]:
    """Makes and measures one file per calibrator of the recipe."""
    candidates: list[Candidate] = []
    for calibrator in calibrators_of(bench.context.recipe.calibration, bench.scheme.grid):
        bench.context.note(f"trying {calibrator.name}{bench.label}")
        candidates.append(
            measured_candidate(bench, plan, plan_ranges(bench, plan, calibrator), calibrator.name + bench.label)
        )
    return candidates


def plan_ranges(bench: Workbench, plan: QuantizationPlan, calibrator: Calibrator) -> dict[str, Range]:
    """Returns the calibrator's range of every activation that the plan quantizes."""
    return ranges_of(observed(bench.histograms, plan.tensors), calibrator, plan.unclipped)


def measured_candidate(
    bench: Workbench, plan: QuantizationPlan, ranges: Mapping[str, Range], name: str, file_name: str | None = None
) -> Candidate:
    """Writes one graph into the scratch directory and measures it on the tuning split."""
    recipe = bench.context.recipe
    model = plan.apply(ranges)
    onnx.checker.check_model(model)
    ensure_contract(model, recipe.task, recipe.preprocess, recipe.extra_outputs)
    file = bench.scratch / f"{file_name or name}.onnx"
    save_graph(model, file)
    evidence = tuning_evidence(bench.context, file, bench.tuning)
    narrowed = at_threshold(evidence, recipe.task.score_threshold)
    return Candidate(name, point_value(evidence), file, evidence, None if narrowed is None else point_value(narrowed))


def tuning_evidence(context: StepContext, file: Path, tuning: ImageSplit) -> Evidence:
    recipe = context.recipe
    backend = open_backend(file, recipe)
    size = recipe.qualify.evaluate_batch_size
    evidence = evaluate(backend.infer, tuning, recipe.task, len(recipe.labels), size)
    backend.close()
    return evidence


def plan_without(bench: Workbench, taken_out: Mapping[str, str]) -> QuantizationPlan:
    """Returns the bench's plan with the named nodes kept float, for the given reasons."""
    return bench.scheme.plan(bench.model, bench.context.recipe.calibration.keep_float, taken_out)


def chosen_calibrator(bench: Workbench, candidate: Candidate) -> Calibrator:
    """Returns the calibrator that a measured candidate is named after."""
    calibrators = calibrators_of(bench.context.recipe.calibration, bench.scheme.grid)
    return next(each for each in calibrators if each.name + bench.label == candidate.calibrator)


def observed(histograms: Mapping[str, Histogram], tensors: tuple[str, ...]) -> dict[str, Histogram]:
    missing = [name for name in tensors if name not in histograms]
    if missing:
        raise GraphError(f"{len(missing)} tensors were not observed, such as {missing[0]!r}: redo step calibrate")
    return {name: histograms[name] for name in tensors}
