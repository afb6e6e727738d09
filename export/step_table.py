"""The steps, as data. Promises: each says what decides its outcome, so that a change redoes it and nothing else."""

from __future__ import annotations

from saccade.export.compression.compress import recovered_digest, run_compress
from saccade.export.gate.judge import run_gate
from saccade.export.onnx_from_torch import run_onnx_from_torch
from saccade.export.onnx_optimization import run_onnx_optimization
from saccade.export.precision.make import run_precision
from saccade.export.preprocess_check import run_preprocess
from saccade.export.publish import run_publish
from saccade.export.qualification.qualify import run_qualify
from saccade.export.quantization.calibrate import calibrated_forms, run_calibrate
from saccade.export.recipe import LoadedRecipe
from saccade.export.reference import run_reference
from saccade.export.sources import source_digest
from saccade.export.steps import Step
from saccade.export.targets import installed_tensorrt, run_targets
from saccade.export.wrap import run_wrap

_PIXELS = ("saccade.models.preprocessing", "saccade.models.resampling", "saccade.service.vision.image_decoder")
_DATA = (
    "saccade.export.datasets",
    "saccade.export.digit_data",
    "saccade.export.folder_data",
    "saccade.export.labelled_images",
    "saccade.models.digit_scenes",
    "saccade.models.digit_sources",
    "saccade.models.digit_strokes",
    "saccade.models.backgrounds",
    *_PIXELS,
)
_METRIC = (
    "saccade.export.qualification.accuracy",
    "saccade.export.qualification.evidence",
    "saccade.export.qualification.detection_evidence",
    "saccade.export.qualification.bootstrap",
    "saccade.models.metrics",
    "saccade.models.specs",
)
_HEADS = (
    "saccade.export.answer_heads",
    "saccade.export.detection_heads",
    "saccade.export.suppression",
    "saccade.export.normalisation",
    "saccade.export.padding",
    "saccade.models.specs",
)
_FOLDING = (
    "saccade.export.folding",
    "saccade.export.folding_hooks",
    "saccade.export.layer_pairs",
    "saccade.export.rewrites.torch_modules",
    "saccade.export.rewrites.cond_conv",
    "saccade.export.rewrites.standardised_conv",
)
_REWRITES = (
    "saccade.export.graph_rewrites",
    "saccade.export.rewrites.patches_to_image",
    "saccade.export.rewrites.fourier",
    "saccade.export.rewrites.antialiased_resize",
)
_MIXED = (
    "saccade.export.precision.mixed_precision",
    "saccade.export.precision.regions",
    "saccade.export.precision.casting",
    "saccade.export.precision.float_formats",
    "saccade.export.precision.effective_precision",
    "saccade.export.precision.concrete_shapes",
    "saccade.export.precision.emulation",
)
_WHOLE = ("wrap", "preprocess", "compress", "onnx_from_torch", "reference", "onnx_optimization", "calibrate", "targets")

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
        modules=("saccade.export.wrap", "saccade.export.trace", *_HEADS, *_FOLDING),
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
        modules=("saccade.export.preprocess_check", "saccade.export.fidelity", *_PIXELS),
        tools=("numpy", "pillow", "torch", "cykooz-resizer"),
    ),
    Step(
        "compress",
        run_compress,
        inputs=("wrap",),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels", "sparsity", "pruning"),
            "recovered": recovered_digest(loaded),
            "source": source_digest(loaded.network_request()),
        },
        modules=(
            "saccade.export.compression.compress",
            "saccade.export.compression.traced_network",
            "saccade.export.compression.recovery",
            "saccade.export.compression.recovery_loss",
            "saccade.export.compression.recovery_images",
            "saccade.export.pruning.budget",
            "saccade.export.pruning.channels",
            "saccade.export.pruning.costs",
            "saccade.export.pruning.narrowing",
            "saccade.export.pruning.prune",
            "saccade.export.pruning.selection",
            "saccade.export.sparsity.channel_elements",
            "saccade.export.sparsity.channel_groups",
            "saccade.export.sparsity.channel_rules",
            "saccade.export.sparsity.eligibility",
            "saccade.export.sparsity.masks",
            "saccade.export.sparsity.permutation",
            "saccade.export.sparsity.second_order",
            "saccade.export.sparsity.sparsify",
            *_DATA,
        ),
        tools=("torch", "numpy", "pillow", "simplejpeg"),
        scope="form",
        skips_dense=True,
    ),
    Step(
        "onnx_from_torch",
        run_onnx_from_torch,
        inputs=("wrap",),
        config=lambda loaded: (
            _parts(loaded, "onnx", "preprocess") | {"batch_error": loaded.recipe.gate.max_batch_error}
        ),
        modules=(
            "saccade.export.onnx_from_torch",
            "saccade.export.onnx_graph",
            "saccade.export.conversion_proof",
            "saccade.export.large_files",
            "saccade.export.layer_names",
            "saccade.export.splice",
            "saccade.export.suppression",
        ),
        tools=("torch", "onnx", "onnxscript", "onnxruntime"),
        scope="form",
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
        modules=("saccade.export.reference", "saccade.export.plain_answers", *_HEADS, *_DATA, *_METRIC),
        tools=("torch", "numpy", "pillow", "simplejpeg"),
    ),
    Step(
        "onnx_optimization",
        run_onnx_optimization,
        inputs=("onnx_from_torch",),
        config=lambda loaded: _parts(loaded, "task", "preprocess", "extra_outputs"),
        modules=(
            "saccade.export.onnx_optimization",
            "saccade.export.onnx_graph",
            "saccade.export.large_files",
            *_REWRITES,
        ),
        tools=("onnx", "onnxslim", "onnxruntime"),
        scope="form",
    ),
    Step(
        "calibrate",
        run_calibrate,
        inputs=("onnx_optimization",),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "data", "labels"),
            "min_images": loaded.recipe.calibration.min_images,
            "forms": calibrated_forms(loaded),
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        modules=(
            "saccade.export.quantization.calibrate",
            "saccade.export.quantization.calibration",
            "saccade.export.quantization.qdq",
            "saccade.export.onnx_graph",
            "saccade.export.graph_rewrites",
            *_DATA,
        ),
        tools=("onnx", "onnxruntime", "numpy", "pillow", "simplejpeg"),
        scope="form",
    ),
    Step(
        "targets",
        run_targets,
        inputs=("onnx_optimization",),
        config=lambda loaded: {"tensorrt": installed_tensorrt()},
        modules=(
            "saccade.export.targets",
            "saccade.export.operator_support",
            "saccade.export.tensorrt_from_onnx",
            "saccade.export.plans.network",
            "saccade.export.plans.build_log",
            "saccade.export.rewrites.byte_input",
            "saccade.export.rewrites.suppression_for_tensorrt",
        ),
        tools=("onnx",),
    ),
    Step(
        "precision",
        run_precision,
        inputs=("onnx_optimization", "calibrate"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "extra_outputs", "data", "labels", "calibration"),
            "batch": loaded.recipe.qualify.evaluate_batch_size,
        },
        modules=(
            "saccade.export.precision.make",
            "saccade.export.precision.files",
            "saccade.export.quantization.quantize",
            "saccade.export.quantization.candidates",
            "saccade.export.quantization.sensitivity",
            "saccade.export.quantization.accuracy_control",
            "saccade.export.quantization.policy_search",
            "saccade.export.quantization.policy_measurement",
            "saccade.export.quantization.equal_scales",
            "saccade.export.rewrites.layer_norm_scales",
            "saccade.export.quantization.qdq",
            "saccade.export.quantization.schemes",
            "saccade.export.quantization.qdq_trt",
            "saccade.export.quantization.placement_trt",
            "saccade.export.quantization.calibration",
            "saccade.export.quantization.thresholds",
            "saccade.export.onnx_graph",
            "saccade.export.graph_rewrites",
            "saccade.export.qualification.bare_graph",
            "saccade.export.large_files",
            *_MIXED,
            *_DATA,
            *_METRIC,
        ),
        tools=("onnx", "onnxruntime", "numpy", "ml-dtypes", "pillow", "simplejpeg"),
        scope="variant",
    ),
    Step(
        "qualify",
        run_qualify,
        inputs=("reference", "compress", "onnx_from_torch", "precision"),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "data", "labels", "qualify", "allowed_batch_sizes"),
            "tensorrt": installed_tensorrt(),
        },
        modules=(
            "saccade.export.qualification.qualify",
            "saccade.export.qualification.answer_measurements",
            "saccade.export.qualification.speed_measurements",
            "saccade.export.qualification.file_structure",
            "saccade.export.qualification.agreement",
            "saccade.export.precision.effective_precision",
            "saccade.export.precision.concrete_shapes",
            "saccade.export.precision.efficiency",
            "saccade.export.sparsity.mask_check",
            "saccade.export.tensorrt_from_onnx",
            "saccade.export.plans.network",
            "saccade.export.plans.build_log",
            "saccade.export.qualification.curves",
            "saccade.export.qualification.disagreements",
            "saccade.export.qualification.answer_pictures",
            "saccade.export.qualification.benchmark",
            "saccade.export.qualification.parity",
            "saccade.export.qualification.bare_graph",
            "saccade.export.serving",
            "saccade.export.precision.emulation",
            "saccade.service.backends.onnxruntime_backend",
            *_DATA,
            *_METRIC,
        ),
        tools=("onnxruntime", "numpy", "pillow", "simplejpeg"),
        scope="variant",
        is_measured=True,
    ),
    Step(
        "gate",
        run_gate,
        inputs=(*_WHOLE, "precision", "qualify"),
        config=lambda loaded: _parts(loaded, "gate", "variants"),
        modules=(
            "saccade.export.gate.decision",
            "saccade.export.gate.limits",
            "saccade.export.gate.checks.origin",
            "saccade.export.gate.checks.numbers",
            "saccade.export.gate.checks.structure",
            "saccade.export.gate.checks.answers",
            "saccade.export.gate.checks.speed",
        ),
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
        modules=("saccade.export.publish",),
        tools=(),
        is_reusable=False,
    ),
)


def _parts(loaded: LoadedRecipe, *names: str) -> dict[str, object]:
    """The named sections of a recipe, JSON-ready."""
    document = loaded.recipe.model_dump(mode="json")
    return {name: document[name] for name in names}
