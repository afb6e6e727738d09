"""Step `gate`: judges all variants and writes the report, which shows denied variants like accepted ones."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import orjson

from saccade.export.artifact import Detail
from saccade.export.convert.batching import not_batchable_reason
from saccade.export.convert.conversion_proof import read_proof
from saccade.export.convert.wrap import read_folds, read_wrap_facts
from saccade.export.data.data_report import looser_data_limits
from saccade.export.data.preprocess_check import read_fidelity
from saccade.export.gate.decision import denial_text, verdict
from saccade.export.gate.judged_variants import judged_variants
from saccade.export.gate.looser_measuring import looser_measuring
from saccade.export.plans.targets import read_targets
from saccade.export.precision.files import CALIBRATION_FILE
from saccade.export.qualification.benchmark import cpu_name
from saccade.export.qualification.library_agreement import read_library_figure
from saccade.export.qualification.reference import read_reference
from saccade.export.recipe import LoadedRecipe
from saccade.export.reports.export_report import (
    CalibrationTable,
    ConversionFigure,
    ExportReport,
    FoldFigure,
    StepFigure,
)
from saccade.export.reports.report_files import write_report
from saccade.export.reports.report_inputs import (
    command_of,
    example_pictures,
    form_details,
    pruning_of,
    quantized_layers,
    sparsity_of,
    split_digests,
)
from saccade.export.sources.specs import source_name
from saccade.export.sources.weights import weights_digest
from saccade.export.steps import StepContext, qualified_name, tool_versions
from saccade.models.contract.quality import ranges_of
from saccade.models.contract.quality_ranges import QualityRanges
from saccade.models.contract.specs import Task

_VERDICTS = ("accepted", "pending", "denied")
_REPORTED_TOOLS = ("torch", "onnx", "onnxruntime", "openvino", "onnxslim", "numpy", "pillow")


def run_gate(context: StepContext) -> Detail:
    """Writes the report with every variant's verdict as JSON, Markdown and one HTML page, with plots and pictures."""
    report = _report(context)
    write_report(report, context.out, example_pictures(context, report.variants))
    named = {word: [each for each in report.variants if verdict(each.gate) == word] for word in _VERDICTS}
    detail: dict[str, str | float | int | bool] = {
        "accepted": len(named["accepted"]),
        "variants": ", ".join(each.qualify.variant for each in named["accepted"]),
    }
    if named["pending"]:
        detail["pending"] = ", ".join(each.qualify.variant for each in named["pending"])
    if report.lost:
        detail["lost"] = " | ".join(f"{name}: {reason}" for name, reason in report.lost.items())
    if named["denied"]:
        detail["denied"] = " | ".join(denial_text(each.qualify.variant, each.gate) for each in named["denied"])
    return detail


def weights_identity(loaded: LoadedRecipe) -> str:
    path = loaded.weights_path
    return "random" if path is None else f"sha256:{weights_digest(path)}"


def conversion_figures(directory: Path) -> tuple[ConversionFigure, ...]:
    """Reads the conversion's proof as the report states it."""
    return tuple(
        ConversionFigure(output=each.output, batch_size=each.batch_size, relative_l2=each.relative_l2)
        for each in read_proof(directory).figures
    )


def _quality(context: StepContext) -> QualityRanges | None:
    """What the calibration pictures are like; None for networks that are there to restore poor ones."""
    if context.recipe.task.task is Task.IMAGE:
        return None
    calibration = context.data.split(context.loaded, "calibration")
    return ranges_of(calibration.images, calibration.geometries)


def _report(context: StepContext) -> ExportReport:
    recipe = context.recipe
    stored = read_reference(context.inputs["reference"])
    calibration: list[CalibrationTable] = []
    for name in recipe.variants:
        made = context.inputs[qualified_name("precision", name)]
        if made.file(CALIBRATION_FILE).exists():
            table = orjson.loads(made.file(CALIBRATION_FILE).read_bytes())
            calibration.append(
                CalibrationTable(
                    variant=name, tuning_images=table["tuning_images"], candidates=tuple(table["candidates"])
                )
            )
    return ExportReport(
        model=recipe.model,
        task=recipe.task.task,
        labels=recipe.labels,
        preprocess=recipe.preprocess,
        normalisation=recipe.normalisation,
        quality=_quality(context),
        source=source_name(recipe.source),
        weights=weights_identity(context.loaded),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        reference=stored.figure.metric,
        reference_operating_point=stored.operating_point,
        network=read_wrap_facts(context.inputs["wrap"].directory)
        | {"nodes": int(context.inputs["onnx_optimization"].detail["nodes_after"])},
        variants=judged_variants(context),
        lost={name: reason for name, reason in context.lost.items()},
        calibration=tuple(calibration),
        thresholds=recipe.gate,
        looser_data_limits=(*looser_data_limits(recipe), *looser_measuring(recipe)),
        fidelity=read_fidelity(context.inputs["preprocess"]),
        library=read_library_figure(context.inputs),
        conversion=conversion_figures(context.inputs["onnx_from_torch"].directory),
        folds=tuple(FoldFigure.model_validate(fold) for fold in read_folds(context.inputs["wrap"].directory)),
        targets=read_targets(context.inputs["targets"]),
        not_batchable_reason=not_batchable_reason(context.inputs),
        steps=tuple(
            StepFigure(step=name, digest=artifact.digest, seconds=round(artifact.seconds, 3))
            for name, artifact in context.inputs.items()
        ),
        environment={
            "cpu": cpu_name(),
            "python": platform.python_version(),
            **tool_versions(_REPORTED_TOOLS),
        },
        command=command_of(context),
        splits=split_digests(context.inputs),
        forms={form: dict(detail) for form, detail in form_details(context).items()},
        sparsity=sparsity_of(context),
        pruning=pruning_of(context),
        quantized_layers=quantized_layers(context),
    )
