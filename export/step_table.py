"""Lists the steps as data: what each one needs, and what decides its outcome."""

from __future__ import annotations

from saccade.export.compression.compress import recovered_digest, run_compress
from saccade.export.convert.onnx_from_torch import run_onnx_from_torch
from saccade.export.convert.onnx_optimization import run_onnx_optimization
from saccade.export.convert.wrap import run_wrap
from saccade.export.data.data_step import files_digest, run_data
from saccade.export.data.preprocess_check import run_preprocess
from saccade.export.gate.judge import run_gate
from saccade.export.plans.targets import installed_tensorrt, run_targets
from saccade.export.precision.make import run_precision
from saccade.export.precision.quantization.calibrate import calibrated_forms, run_calibrate
from saccade.export.publish.publish import run_publish
from saccade.export.qualification.corrupted_pictures import missing_library
from saccade.export.qualification.corruption_step import run_corruptions
from saccade.export.qualification.library_agreement import answers_digest, run_library
from saccade.export.qualification.qualify import run_qualify
from saccade.export.qualification.reference import run_reference
from saccade.export.qualification.speed_step import run_speed
from saccade.export.recipe import LoadedRecipe
from saccade.export.sources import source_digest
from saccade.export.steps import Step

_WHOLE = (
    *("wrap", "preprocess", "compress", "onnx_from_torch", "library", "reference", "onnx_optimization", "calibrate"),
    "targets",
)

STEPS: tuple[Step, ...] = (
    Step(
        "data",
        run_data,
        inputs=(),
        config=lambda loaded: {
            **_parts(loaded, "task", "data", "labels"),
            "files": files_digest(loaded),
            "needs_labels": loaded.recipe.gate.needs_labels,
            # a library that is missing is told here, in the first step, also where the data were read before
            "missing": missing_library(loaded),
        },
        tools=("numpy", "pillow", "simplejpeg", "msgspec"),
        is_measured=True,  # what it writes says how long it took
    ),
    Step(
        "wrap",
        run_wrap,
        inputs=(),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "extra_outputs", "folding"),
            "source": source_digest(loaded.network_request()),
            "classes": len(loaded.recipe.labels),
        },
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
        tools=("numpy", "pillow", "torch", "cykooz-resizer"),
    ),
    Step(
        "compress",
        run_compress,
        inputs=("data", "wrap"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels", "sparsity", "pruning"),
            "recovered": recovered_digest(loaded),
            "least_gain": loaded.recipe.gate.min_sparse_gain,
            "source": source_digest(loaded.network_request()),
        },
        tools=("torch", "numpy", "pillow", "simplejpeg"),
        scope="form",
        skips_dense=True,
    ),
    Step(
        "onnx_from_torch",
        run_onnx_from_torch,
        inputs=("wrap",),  # `compare` exports without step data, because its pictures need no labels
        config=lambda loaded: {
            **_parts(loaded, "onnx", "preprocess", "data"),
            "files": files_digest(loaded),
            "batch_error": loaded.recipe.gate.max_batch_error,
        },
        tools=("torch", "onnx", "onnxscript", "onnxruntime"),
        scope="form",
    ),
    Step(
        "library",
        run_library,
        inputs=("onnx_from_torch",),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels"),
            "files": files_digest(loaded),
            "answers": answers_digest(loaded),
            "source": source_digest(loaded.network_request()),
        },
        tools=("onnxruntime", "numpy", "pillow", "simplejpeg", "ultralytics"),
        is_asked=lambda loaded: loaded.recipe.gate.library_agreement is not None,
    ),
    Step(
        "reference",
        run_reference,
        inputs=("data",),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels"),
            "source": source_digest(loaded.network_request()),
            "resamples": loaded.recipe.qualify.bootstrap_resamples,
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        tools=("torch", "numpy", "pillow", "simplejpeg"),
    ),
    Step(
        "onnx_optimization",
        run_onnx_optimization,
        inputs=("data", "wrap", "onnx_from_torch"),
        config=lambda loaded: _parts(loaded, "task", "preprocess", "extra_outputs", "data"),
        tools=("torch", "onnx", "onnxslim", "onnxruntime"),
        scope="form",
    ),
    Step(
        "calibrate",
        run_calibrate,
        inputs=("data", "onnx_optimization"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "data", "labels"),
            "min_images": loaded.recipe.calibration.min_images,
            "forms": calibrated_forms(loaded),
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        tools=("onnx", "onnxruntime", "numpy", "pillow", "simplejpeg"),
        scope="form",
    ),
    Step(
        "targets",
        run_targets,
        inputs=("onnx_optimization",),
        config=lambda loaded: {"tensorrt": installed_tensorrt()},
        tools=("onnx",),
    ),
    Step(
        "precision",
        run_precision,
        inputs=("data", "onnx_optimization", "calibrate"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "extra_outputs", "data", "labels", "calibration"),
            "batch": loaded.recipe.qualify.evaluate_batch_size,
            "max_drop": loaded.recipe.gate.max_metric_drop,
            "max_drop_by_variant": dict(loaded.recipe.gate.max_metric_drop_by_variant),
        },
        tools=("onnx", "onnxruntime", "numpy", "ml-dtypes", "pillow", "simplejpeg"),
        scope="variant",
    ),
    Step(
        "qualify",
        run_qualify,
        inputs=("data", "reference", "compress", "onnx_from_torch", "precision"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "data", "labels", "qualify", "allowed_batch_sizes"),
            "tensorrt": installed_tensorrt(),
        },
        tools=("onnxruntime", "openvino", "numpy", "pillow", "simplejpeg"),
        scope="variant",
        is_measured=True,
    ),
    Step(
        "speed",
        run_speed,
        inputs=("data", "precision", "qualify"),
        config=lambda loaded: _parts(loaded, "task", "preprocess", "data", "labels", "qualify", "allowed_batch_sizes"),
        tools=("onnxruntime", "openvino", "numpy"),
        is_measured=True,
    ),
    Step(
        "corruptions",
        run_corruptions,
        inputs=("data", "compress", "precision"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels"),
            "source": source_digest(loaded.network_request()),
            "pictures": loaded.recipe.gate.corruptions and loaded.recipe.gate.corruptions.pictures,
            "resamples": loaded.recipe.qualify.bootstrap_resamples,
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        tools=("imagecorruptions-imaug", "torch", "onnxruntime", "openvino", "numpy", "pillow", "simplejpeg"),
        is_asked=lambda loaded: loaded.recipe.gate.corruptions is not None,
    ),
    Step(
        "gate",
        run_gate,
        inputs=(*_WHOLE, "precision", "qualify", "speed", "corruptions"),
        config=lambda loaded: _parts(loaded, "gate", "variants"),
        tools=(),
        is_reusable=False,
        is_measured=True,
        is_good=lambda detail: bool(detail["accepted"]),
    ),
    Step(
        "publish",
        run_publish,
        inputs=(*_WHOLE, "precision", "qualify", "speed", "corruptions", "gate"),
        config=lambda loaded: {},
        tools=(),
        is_reusable=False,
    ),
)


def _parts(loaded: LoadedRecipe, *names: str) -> dict[str, object]:
    """Returns the named sections of a recipe, JSON-ready."""
    document = loaded.recipe.model_dump(mode="json")
    return {name: document[name] for name in names}
