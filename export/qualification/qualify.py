"""Step `qualify`: measures one variant on the file that would be published; step `speed` adds its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from saccade.export.artifact import Detail, file_sha256
from saccade.export.convert.conversion_proof import read_proof
from saccade.export.extras.marks import extras_in
from saccade.export.graph.large_files import load_graph, weight_files
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.precision.emulation import measured_through
from saccade.export.precision.files import BARE_FILE
from saccade.export.qualification.accuracy import answers_of, evidence_of, retrieval_of
from saccade.export.qualification.answer_measurements import (
    batch_invariance,
    equal_runs,
    hostile_figures,
    parity_figures,
)
from saccade.export.qualification.answer_pictures import write_examples
from saccade.export.qualification.benchmark import cpu_device, usable_threads
from saccade.export.qualification.confidence import confidence_figure
from saccade.export.qualification.curves import curves_of
from saccade.export.qualification.evidence import Accuracy, accuracy_of
from saccade.export.qualification.familiarity import trust_figure
from saccade.export.qualification.file_structure import file_structure
from saccade.export.qualification.metric_figures import metric_drop, metric_figure
from saccade.export.qualification.operating_point import operating_accuracy
from saccade.export.qualification.picture_figures import picture_figure
from saccade.export.qualification.plausibility import answer_faults
from saccade.export.qualification.pointing import explanation_figure
from saccade.export.qualification.qualify_report import ClassDropFigure, QualifyReport
from saccade.export.qualification.reference import read_reference, reference_answers
from saccade.export.qualification.serving import computed_precisions, open_backend
from saccade.export.qualification.slices import rows_by_slice, slice_figures
from saccade.export.qualification.speed_measurements import memory_mb, speed_ratios
from saccade.export.steps import StepContext, qualified_name
from saccade.export.variants import TRAITS
from saccade.models.metrics.agreement import answer_agreement

REPORT_FILE = "qualify.json"
_THROUGH = {"file": "ONNX Runtime on the CPU", "emulation": "its emulation on the CPU, rounded where the file rounds"}


def run_qualify(context: StepContext) -> Detail:
    """Writes `qualify.json` and pictures of images that the variant answers differently from the reference."""
    assert context.variant is not None
    recipe, traits = context.recipe, TRAITS[context.variant]
    made = context.inputs[qualified_name("precision", context.variant)]
    file = made.file(MODEL_FILE)
    weights = [file.parent / name for name in weight_files(file)]
    split = context.data.split(context.loaded, "test")
    expected = reference_answers(context.inputs["reference"], recipe)
    reference = evidence_of(expected, split, recipe.task, len(recipe.labels))
    backend = open_backend(file, recipe, traits)
    context.note("task metric")
    answers = answers_of(backend.infer, split, recipe.task, recipe.qualify.evaluate_batch_size)
    evidence = evidence_of(answers, split, recipe.task, len(recipe.labels))
    resamples = recipe.qualify.bootstrap_resamples
    accuracy = accuracy_of(evidence, reference, resamples)
    operating = operating_accuracy(evidence, reference, recipe.task.score_threshold, resamples)
    context.note("parity, batch invariance, hostile inputs, repetition")
    is_deterministic, runs = equal_runs(backend, lambda: open_backend(file, recipe, traits), recipe, split.images)
    parity = parity_figures(backend, recipe, split, expected)
    invariance = batch_invariance(backend, recipe, split.images)
    hostile = hostile_figures(backend, recipe)
    extras = extras_in(load_graph(file))
    explanation = explanation_figure(backend, extras, split)
    computed = computed_precisions(backend)
    through = (
        f"{backend.provider} on the CPU, which computes the file in {traits.precision}" if computed else _through(file)
    )
    backend.close()
    is_onnxruntime = not traits.needs_gpu and not traits.is_openvino
    context.note("unfamiliarity, confidence")
    trust = trust_figure(file, recipe, extras, split) if is_onnxruntime else None
    tuning = context.data.split(context.loaded, "tuning") if is_onnxruntime and recipe.gate.needs_labels else None
    is_raced = not traits.needs_gpu and made.file(BARE_FILE).exists()
    context.note("precision and sparsity by layer")
    compressed = context.inputs.get("compress")
    structure = file_structure(file, traits, made.directory, compressed.directory if compressed else None, computed)
    report = QualifyReport(
        variant=context.variant,
        file_sha256=file_sha256(file),
        file_bytes=file.stat().st_size + sum(path.stat().st_size for path in weights),
        external_sha256={path.name: file_sha256(path) for path in weights},
        metric=metric_figure(accuracy),
        drop=metric_drop(accuracy),
        per_class=accuracy.per_class,
        parity=parity,
        batch_invariance=invariance,
        hostile=hostile,
        is_deterministic=is_deterministic,
        speed=speed_ratios(file, made.file(BARE_FILE), recipe, traits, split.images) if is_raced else (),
        measured_on=cpu_device(usable_threads(recipe.qualify.threads)),
        detail=dict(made.detail),
        curves=curves_of(evidence),
        disagreements=write_examples(expected, answers, split, recipe.task, recipe.labels, context.out),
        agreement=answer_agreement(answers, expected, recipe.task, len(recipe.labels)),
        worst_class=_worst_class(accuracy, recipe.labels),
        form_error=read_proof(context.inputs["onnx_from_torch"].directory).worst.relative_l2,
        mask=structure.mask,
        layers=structure.figures,
        precision=structure.precision,
        runs_compared=runs,
        memory_mb=None if traits.needs_gpu else memory_mb(file, recipe, traits),
        measured_through=through,
        reference=read_reference(context.inputs["reference"]).figure,
        operating_point=None if operating is None else operating[0],
        operating_drop=None if operating is None else metric_drop(operating[1]),
        faults=tuple(answer_faults(answers, recipe.task, recipe.preprocess, len(recipe.labels))),
        retrieval=retrieval_of(answers, split, recipe.task),
        explanation=explanation,
        extras=extras,
        slices=slice_figures(evidence, reference, rows_by_slice(context, split), resamples),
        trust=trust,
        confidence=None if tuning is None else confidence_figure(file, recipe, tuning, split),
        pictures=picture_figure(evidence),
    )
    (context.out / REPORT_FILE).write_text(report.model_dump_json(indent=2))
    return _facts(report, needs_labels=recipe.gate.needs_labels)


def _facts(report: QualifyReport, *, needs_labels: bool) -> Detail:
    """Returns what the progress lines show: without labels, how many answers are the reference's."""
    facts: dict[str, str | float | int | bool] = {
        report.metric.name: report.metric.value,
        "drop_upper": report.drop.judged,
    }
    if not needs_labels:
        facts = {f"same_{name}": share for name, share in (report.agreement or {}).items()}
    if report.precision is not None and report.precision.share is not None:
        facts[f"share_{report.precision.asked}"] = report.precision.share
    if report.speed:
        facts["deploy_to_bare"] = min(figure.ratio for figure in report.speed)
    return facts


def _worst_class(accuracy: Accuracy, labels: Sequence[str]) -> ClassDropFigure | None:
    worst = accuracy.worst_class
    if worst is None:
        return None
    drop, label = worst.drop, labels[worst.class_id]
    return ClassDropFigure(
        class_id=worst.class_id,
        label=label,
        value=drop.value,
        ci_low=drop.low,
        ci_high=drop.high,
        is_never_worse=worst.is_never_worse,
    )


def _through(file: Path) -> str:
    return _THROUGH[measured_through(onnx.load(file, load_external_data=False))]
