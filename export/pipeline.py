"""The export pipeline: steps as data, and their loop. Promises: a finished step is reused, a changed one redone."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from export.artifact import (
    Artifact,
    StepIdentity,
    StepResult,
    building,
    digest_of,
    finish,
    finished_artifact,
    sources_digest,
)
from export.batching import settled
from export.datasets import DataStore
from export.errors import ExportError, RecipeError
from export.judge import run_gate
from export.onnx_from_torch import run_onnx_from_torch
from export.onnx_optimization import run_onnx_optimization
from export.precision import run_precision
from export.preprocess_check import run_preprocess
from export.publish import run_publish
from export.qualify import run_qualify
from export.recipe import LoadedRecipe, VariantKind
from export.reference import run_reference
from export.sources import source_digest
from export.steps import Step, StepContext, qualified_name
from export.targets import installed_tensorrt, run_targets
from export.wrap import run_wrap
from service.errors import SaccadeError

_log = logging.getLogger(__name__)
_PIXELS = ("models.preprocessing", "models.resampling", "service.vision.image_decoder")
_DATA = (
    "export.datasets",
    "export.digit_data",
    "export.folder_data",
    "export.labelled_images",
    "models.digit_scenes",
    "models.digit_sources",
    "models.digit_strokes",
    "models.backgrounds",
    *_PIXELS,
)
_METRIC = (
    "export.accuracy",
    "export.evidence",
    "export.detection_evidence",
    "export.bootstrap",
    "models.metrics",
    "models.specs",
)
_HEADS = (
    "export.answer_heads",
    "export.detection_heads",
    "export.suppression",
    "export.normalisation",
    "export.padding",
    "models.specs",
)
_FOLDING = (
    "export.folding",
    "export.folding_hooks",
    "export.layer_pairs",
    "export.rewrites.torch_modules",
    "export.rewrites.cond_conv",
    "export.rewrites.standardised_conv",
)
_REWRITES = (
    "export.graph_rewrites",
    "export.rewrites.patches_to_image",
    "export.rewrites.fourier",
    "export.rewrites.antialiased_resize",
)
_WHOLE = ("wrap", "preprocess", "onnx_from_torch", "reference", "onnx_optimization", "targets")

STEPS: tuple[Step, ...] = (
    Step(
        "wrap",
        run_wrap,
        inputs=(),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "extra_outputs", "folding"),
            "source": source_digest(loaded.network_request()),
            "classes": len(loaded.recipe.labels),
        },
        modules=("export.wrap", "export.trace", *_HEADS, *_FOLDING),
        tools=("torch",),
    ),
    Step(
        "preprocess",
        run_preprocess,
        inputs=(),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation"),
            "source": source_digest(loaded.network_request()),
        },
        modules=("export.preprocess_check", "export.fidelity", *_PIXELS),
        tools=("numpy", "pillow", "torch", "cykooz-resizer"),
    ),
    Step(
        "onnx_from_torch",
        run_onnx_from_torch,
        inputs=("wrap",),
        config=lambda loaded: (
            _parts(loaded, "onnx", "preprocess") | {"batch_error": loaded.recipe.gate.max_batch_error}
        ),
        modules=(
            "export.onnx_from_torch",
            "export.onnx_graph",
            "export.conversion_proof",
            "export.large_files",
            "export.layer_names",
            "export.splice",
            "export.suppression",
        ),
        tools=("torch", "onnx", "onnxscript", "onnxruntime"),
    ),
    Step(
        "reference",
        run_reference,
        inputs=(),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels"),
            "source": source_digest(loaded.network_request()),
            "resamples": loaded.recipe.qualify.bootstrap_resamples,
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        modules=("export.reference", "export.plain_answers", *_HEADS, *_DATA, *_METRIC),
        tools=("torch", "numpy", "pillow", "simplejpeg"),
    ),
    Step(
        "onnx_optimization",
        run_onnx_optimization,
        inputs=("onnx_from_torch",),
        config=lambda loaded: _parts(loaded, "task", "preprocess", "extra_outputs"),
        modules=("export.onnx_optimization", "export.onnx_graph", "export.large_files", *_REWRITES),
        tools=("onnx", "onnxslim", "onnxruntime"),
    ),
    Step(
        "targets",
        run_targets,
        inputs=("onnx_optimization",),
        config=lambda loaded: {"tensorrt": installed_tensorrt()},
        modules=(
            "export.targets",
            "export.operator_support",
            "export.tensorrt_from_onnx",
            "export.rewrites.byte_input",
            "export.rewrites.suppression_for_tensorrt",
        ),
        tools=("onnx",),
    ),
    Step(
        "precision",
        run_precision,
        inputs=("onnx_optimization",),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "extra_outputs", "data", "labels", "calibration"),
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        modules=(
            "export.precision",
            "export.quantization",
            "export.calibration",
            "export.thresholds",
            "export.onnx_graph",
            "export.graph_rewrites",
            "export.bare_graph",
            "export.large_files",
            *_DATA,
            *_METRIC,
        ),
        tools=("onnx", "onnxruntime", "numpy", "pillow", "simplejpeg"),
        is_per_variant=True,
    ),
    Step(
        "qualify",
        run_qualify,
        inputs=("reference", "precision"),
        config=lambda loaded: _parts(loaded, "task", "preprocess", "data", "labels", "qualify", "allowed_batch_sizes"),
        modules=(
            "export.qualify",
            "export.benchmark",
            "export.parity",
            "export.bare_graph",
            "export.serving",
            "service.backends.onnxruntime_backend",
            *_DATA,
            *_METRIC,
        ),
        tools=("onnxruntime", "numpy", "pillow", "simplejpeg"),
        is_per_variant=True,
        is_measured=True,
    ),
    Step(
        "gate",
        run_gate,
        inputs=(*_WHOLE, "precision", "qualify"),
        config=lambda loaded: _parts(loaded, "gate", "variants"),
        modules=("export.gate",),
        tools=(),
        is_reusable=False,
        is_measured=True,
        is_good=lambda detail: bool(detail["accepted"]),
    ),
    Step(
        "publish",
        run_publish,
        inputs=(*_WHOLE, "precision", "qualify", "gate"),
        config=lambda loaded: {},
        modules=("export.publish",),
        tools=(),
        is_reusable=False,
    ),
)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Where a run reads and writes."""

    work: Path  # step directories live below it
    repository: Path
    redo: str | None = None  # qualified name of a step to run again although it is finished
    until: str | None = None  # qualified name of the last step to run


@dataclass(frozen=True, slots=True)
class Listener:
    """Told what happens; the programs draw progress with it."""

    started: Callable[[str], None]
    noted: Callable[[str], None]
    finished: Callable[[StepResult], None]


def planned_steps(loaded: LoadedRecipe) -> list[tuple[Step, VariantKind | None]]:
    """Every step with every variant it runs for, in order."""
    plan: list[tuple[Step, VariantKind | None]] = []
    for step in STEPS:
        plan.extend([(step, variant) for variant in loaded.recipe.variants] if step.is_per_variant else [(step, None)])
    return plan


def run_pipeline(loaded: LoadedRecipe, settings: RunSettings, data: DataStore, listener: Listener) -> list[StepResult]:
    """Runs the steps until one fails or `settings.until` is done. Raises RecipeError for an unknown step name."""
    names = [qualified_name(step.name, variant) for step, variant in planned_steps(loaded)]
    for name in (settings.redo, settings.until):
        if name is not None and name not in names:
            raise RecipeError(f"no step {name!r}; this recipe has: {', '.join(names)}")
    results: list[StepResult] = []
    made: dict[str, Artifact] = {}
    for step, variant in planned_steps(loaded):
        name = qualified_name(step.name, variant)
        listener.started(name)
        result = _run_step(step, variant, settled(loaded, made), settings, made, data, listener)
        listener.finished(result)
        results.append(result)
        if result.artifact is not None:
            made[name] = result.artifact
        if result.status == "failed" or name == settings.until:
            break
    return results


def rerun_command(recipe: Path, settings: RunSettings, step: str) -> str:
    """The command that runs one step again, alone, with the same directories, ready to paste."""
    words = ["saccade-export", "step", recipe, step, "--work", settings.work, "--repository", settings.repository]
    return shlex.join(str(word) for word in words)


def _run_step(
    step: Step,
    variant: VariantKind | None,
    loaded: LoadedRecipe,
    settings: RunSettings,
    made: dict[str, Artifact],
    data: DataStore,
    listener: Listener,
) -> StepResult:
    name = qualified_name(step.name, variant)
    start = time.perf_counter()
    try:
        inputs = {key: made[key] for key in _input_names(step, variant, loaded)}
        digest = digest_of(_identity(step, variant, loaded, inputs))
        directory = settings.work / loaded.recipe.model / f"{name}-{digest[:12]}"
        if step.is_reusable and name != settings.redo:
            artifact = finished_artifact(directory, digest)
            if artifact is not None:
                return StepResult(name, "cached", artifact, time.perf_counter() - start, artifact.detail)
        with building(directory) as out:
            context = StepContext(loaded, variant, out, inputs, data, settings.repository, listener.noted)
            detail = step.run(context)
            seconds = time.perf_counter() - start
            artifact = finish(out, directory, digest, detail, seconds)
    except (ExportError, SaccadeError) as error:
        return StepResult(name, "failed", None, time.perf_counter() - start, {"error": str(error)})
    except Exception as error:  # converters and runtimes raise whatever they like; the other recipes still run
        _log.exception("step_failed %s %s", loaded.recipe.model, name)
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return StepResult(name, "failed", None, time.perf_counter() - start, {"error": text})
    return StepResult(name, "done" if step.is_good(detail) else "failed", artifact, seconds, detail)


def _input_names(step: Step, variant: VariantKind | None, loaded: LoadedRecipe) -> Iterator[str]:
    """A per-variant step reads its own variant of per-variant inputs; a whole-model step reads all of them."""
    per_variant = {candidate.name for candidate in STEPS if candidate.is_per_variant}
    for name in step.inputs:
        if name not in per_variant:
            yield name
        elif step.is_per_variant:
            yield qualified_name(name, variant)
        else:
            yield from (qualified_name(name, each) for each in loaded.recipe.variants)


def _identity(
    step: Step, variant: VariantKind | None, loaded: LoadedRecipe, inputs: dict[str, Artifact]
) -> StepIdentity:
    measured = {candidate.name for candidate in STEPS if candidate.is_measured}
    return StepIdentity(
        step=qualified_name(step.name, variant),
        config=step.config(loaded),
        inputs={
            name: artifact.digest if name.partition(".")[0] in measured else artifact.content
            for name, artifact in inputs.items()
        },
        tools={"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
        | {tool: version(tool) for tool in step.tools},
        sources=_sources(step.modules),
    )


@cache
def _sources(modules: tuple[str, ...]) -> str:
    return sources_digest(modules)


def _parts(loaded: LoadedRecipe, *names: str) -> dict[str, object]:
    """The named sections of a recipe, JSON-ready."""
    document = loaded.recipe.model_dump(mode="json")
    return {name: document[name] for name in names}
