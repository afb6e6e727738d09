"""Step `qualify`: measures one variant's file. Promises: every figure comes from the bytes that would be published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.accuracy import Answer, answers_of, evidence_of
from export.answer_pictures import write_examples
from export.artifact import Detail, file_sha256
from export.bare_graph import bare_images
from export.benchmark import cpu_device, latency_figure, seconds_per_run, speed_ratio, usable_threads
from export.bootstrap import CONFIDENCE
from export.curves import curves_of
from export.evidence import Accuracy, accuracy_of
from export.large_files import weight_files
from export.onnx_graph import MODEL_FILE
from export.parity import answer_difference, hostile_figure, hostile_images
from export.precision import BARE_FILE
from export.qualify_report import (
    BatchInvariance,
    HostileFigure,
    MetricDrop,
    ParityFigure,
    QualifyReport,
    SpeedRatio,
)
from export.recipe import Recipe
from export.reference import reference_answers
from export.serving import open_backend, open_racing_backends
from export.steps import StepContext, qualified_name
from models.manifest import LatencyFigure, MetricFigure
from models.specs import output_tensors
from service.backends.onnxruntime_backend import OnnxRuntimeBackend

REPORT_FILE = "qualify.json"
_INVARIANCE_IMAGES = 4  # each goes alone and at the end of every allowed batch size


def run_qualify(context: StepContext) -> Detail:
    """Writes `qualify.json` and pictures of images that it answers differently from the reference."""
    assert context.variant is not None
    recipe = context.recipe
    made = context.inputs[qualified_name("precision", context.variant)]
    file = made.file(MODEL_FILE)
    weights = [file.parent / name for name in weight_files(file)]
    split = context.data.split(context.loaded, "test")
    expected = reference_answers(context.inputs["reference"], recipe)
    reference = evidence_of(expected, split, recipe.task, len(recipe.labels))
    backend = open_backend(file, recipe)
    context.note("task metric")
    answers = answers_of(backend.infer, split, recipe.qualify.evaluate_batch_size)
    evidence = evidence_of(answers, split, recipe.task, len(recipe.labels))
    accuracy = accuracy_of(evidence, reference, recipe.qualify.bootstrap_resamples)
    context.note("parity, batch invariance, hostile inputs")
    parity = _parity(backend, recipe, split.images, expected)
    invariance = _batch_invariance(backend, recipe, split.images)
    hostile = _hostile(backend, recipe)
    is_deterministic = _is_deterministic(backend, split.images[:3])
    context.note("latency")
    latency = _latency(backend, recipe, split.images)
    backend.close()
    speed: tuple[SpeedRatio, ...] = ()
    if made.file(BARE_FILE).exists():
        context.note("deploy graph against bare graph")
        speed = _speed(file, made.file(BARE_FILE), recipe, split.images)
    report = QualifyReport(
        variant=context.variant,
        file_sha256=file_sha256(file),
        file_bytes=file.stat().st_size + sum(path.stat().st_size for path in weights),
        external_sha256={path.name: file_sha256(path) for path in weights},
        metric=_metric_figure(accuracy),
        drop=MetricDrop(value=accuracy.drop.value, ci_low=accuracy.drop.low, ci_high=accuracy.drop.high),
        per_class=accuracy.per_class,
        parity=parity,
        batch_invariance=invariance,
        hostile=hostile,
        is_deterministic=is_deterministic,
        latency=latency,
        speed=speed,
        measured_on=cpu_device(usable_threads(recipe.qualify.threads)),
        detail=dict(made.detail),
        curves=curves_of(evidence),
        disagreements=write_examples(expected, answers, split, recipe.task, recipe.labels, context.out),
    )
    (context.out / REPORT_FILE).write_text(report.model_dump_json(indent=2))
    return {
        accuracy.metric: accuracy.value.value,
        "drop_upper": accuracy.drop.high,
        "p50_ms_batch_1": latency[0].p50_ms,
        "images_per_s_best": max(figure.images_per_s for figure in latency),
        "deploy_to_bare": min((figure.ratio for figure in speed), default=0.0),
    }


def _metric_figure(accuracy: Accuracy) -> MetricFigure:
    return MetricFigure(
        name=accuracy.metric,
        value=accuracy.value.value,
        ci_low=accuracy.value.low,
        ci_high=accuracy.value.high,
        confidence=CONFIDENCE,
        split="test",
        images=accuracy.images,
    )


def _parity(
    backend: OnnxRuntimeBackend, recipe: Recipe, images: NDArray[np.uint8], expected: Answer
) -> tuple[ParityFigure, ...]:
    figures = []
    for size in recipe.qualify.parity_batch_sizes:
        count = min(size, len(images))
        found = backend.infer(_batch_of(images, size))
        gap = answer_difference(
            [array[:count] for array in found], [array[:count] for array in expected], recipe.task.task
        )
        figures.append(
            ParityFigure(batch_size=size, relative_l2=gap.relative_l2, class_agreement=1.0 - gap.id_disagreement)
        )
    return tuple(figures)


def _batch_invariance(backend: OnnxRuntimeBackend, recipe: Recipe, images: NDArray[np.uint8]) -> BatchInvariance:
    errors: list[float | None] = []
    disagreements: list[float] = []
    for size in recipe.allowed_batch_sizes[1:]:
        batch = _batch_of(images, size)
        together = backend.infer(batch)
        for row in range(max(0, size - _INVARIANCE_IMAGES), size):
            alone = backend.infer(batch[row : row + 1])
            gap = answer_difference([array[row : row + 1] for array in together], alone, recipe.task.task)
            errors.append(gap.relative_l2)
            disagreements.append(gap.id_disagreement)
    finite = [error for error in errors if error is not None]
    return BatchInvariance(
        relative_l2=max(finite, default=0.0) if len(finite) == len(errors) else None,
        id_disagreement=max(disagreements, default=0.0),
    )


def _hostile(backend: OnnxRuntimeBackend, recipe: Recipe) -> tuple[HostileFigure, ...]:
    specs = output_tensors(recipe.task, recipe.preprocess)
    inputs = hostile_images(recipe.preprocess.height, recipe.preprocess.width)
    return tuple(
        hostile_figure(name, backend.infer(images), specs, len(recipe.labels)) for name, images in inputs.items()
    )


def _is_deterministic(backend: OnnxRuntimeBackend, images: NDArray[np.uint8]) -> bool:
    """Whether the same batch twice gives equal bits."""
    first, second = backend.infer(images), backend.infer(images)
    return all(left.tobytes() == right.tobytes() for left, right in zip(first, second, strict=True))


def _latency(backend: OnnxRuntimeBackend, recipe: Recipe, images: NDArray[np.uint8]) -> tuple[LatencyFigure, ...]:
    figures = []
    for size in recipe.allowed_batch_sizes:
        batch = _batch_of(images, size)
        seconds = seconds_per_run(
            [lambda batch=batch: backend.infer(batch)],  # type: ignore[misc]  # mypy cannot type a bound default
            recipe.qualify.latency_repeats,
            recipe.qualify.latency_budget_s,
        )
        figures.append(latency_figure(seconds[:, 0], size))
    return tuple(figures)


def _speed(deploy_file: Path, bare_file: Path, recipe: Recipe, images: NDArray[np.uint8]) -> tuple[SpeedRatio, ...]:
    deploy, bare = open_racing_backends(deploy_file, bare_file, recipe)
    figures = []
    for size in recipe.qualify.compare_batch_sizes:
        batch = _batch_of(images, size)
        floats = bare_images(batch)
        seconds = seconds_per_run(
            [
                lambda batch=batch: deploy.infer(batch),  # type: ignore[misc]  # as above
                lambda floats=floats: bare.infer(floats),  # type: ignore[misc]  # as above
            ],
            recipe.qualify.compare_repeats,
            recipe.qualify.compare_budget_s,
        )
        figures.append(speed_ratio(seconds, size))
    deploy.close()
    bare.close()
    return tuple(figures)


def _batch_of(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The first `size` images, repeated from the start when the split is smaller."""
    return np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))
