"""The steps, as data. Promises: each says what decides its outcome, so that a change redoes it and nothing else."""

from __future__ import annotations

from export.compression.compress import recovered_digest, run_compress
from export.gate.judge import run_gate
from export.onnx_from_torch import run_onnx_from_torch
from export.onnx_optimization import run_onnx_optimization
from export.precision.make import run_precision
from export.preprocess_check import run_preprocess
from export.publish import run_publish
from export.qualification.qualify import run_qualify
from export.quantization.calibrate import calibrated_forms, run_calibrate
from export.recipe import LoadedRecipe
from export.reference import run_reference
from export.sources import source_digest
from export.steps import Step
from export.targets import installed_tensorrt, run_targets
from export.wrap import run_wrap

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
    "export.qualification.accuracy",
    "export.qualification.evidence",
    "export.qualification.detection_evidence",
    "export.qualification.bootstrap",
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
_MIXED = (
    "export.precision.mixed_precision",
    "export.precision.regions",
    "export.precision.casting",
    "export.precision.float_formats",
    "export.precision.effective_precision",
    "export.precision.concrete_shapes",
    "export.precision.emulation",
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
        "compress",
        run_compress,
        inputs=("wrap",),
        config=lambda loaded: {
            **_parts(loaded, "task", "preprocess", "normalisation", "data", "labels", "sparsity", "pruning"),
            "recovered": recovered_digest(loaded),
            "source": source_digest(loaded.network_request()),
        },
        modules=(
            "export.compression.compress",
            "export.compression.traced_network",
            "export.compression.recovery",
            "export.compression.recovery_loss",
            "export.compression.recovery_images",
            "export.pruning.budget",
            "export.pruning.channels",
            "export.pruning.costs",
            "export.pruning.narrowing",
            "export.pruning.prune",
            "export.pruning.selection",
            "export.sparsity.channel_elements",
            "export.sparsity.channel_groups",
            "export.sparsity.channel_rules",
            "export.sparsity.eligibility",
            "export.sparsity.masks",
            "export.sparsity.permutation",
            "export.sparsity.second_order",
            "export.sparsity.sparsify",
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
            "export.onnx_from_torch",
            "export.onnx_graph",
            "export.conversion_proof",
            "export.large_files",
            "export.layer_names",
            "export.splice",
            "export.suppression",
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
            "export.quantization.calibrate",
            "export.quantization.calibration",
            "export.quantization.qdq",
            "export.onnx_graph",
            "export.graph_rewrites",
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
            "export.targets",
            "export.operator_support",
            "export.tensorrt_from_onnx",
            "export.plans.network",
            "export.plans.build_log",
            "export.rewrites.byte_input",
            "export.rewrites.suppression_for_tensorrt",
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
            "export.precision.make",
            "export.precision.files",
            "export.quantization.quantize",
            "export.quantization.candidates",
            "export.quantization.sensitivity",
            "export.quantization.accuracy_control",
            "export.quantization.policy_search",
            "export.quantization.policy_measurement",
            "export.quantization.equal_scales",
            "export.rewrites.layer_norm_scales",
            "export.quantization.qdq",
            "export.quantization.schemes",
            "export.quantization.qdq_trt",
            "export.quantization.placement_trt",
            "export.quantization.calibration",
            "export.quantization.thresholds",
            "export.onnx_graph",
            "export.graph_rewrites",
            "export.qualification.bare_graph",
            "export.large_files",
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
            "export.qualification.qualify",
            "export.qualification.answer_measurements",
            "export.qualification.speed_measurements",
            "export.qualification.file_structure",
            "export.qualification.agreement",
            "export.precision.effective_precision",
            "export.precision.concrete_shapes",
            "export.precision.efficiency",
            "export.sparsity.mask_check",
            "export.tensorrt_from_onnx",
            "export.plans.network",
            "export.plans.build_log",
            "export.qualification.curves",
            "export.qualification.disagreements",
            "export.qualification.answer_pictures",
            "export.qualification.benchmark",
            "export.qualification.parity",
            "export.qualification.bare_graph",
            "export.serving",
            "export.precision.emulation",
            "service.backends.onnxruntime_backend",
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
            "export.gate.decision",
            "export.gate.limits",
            "export.gate.checks.origin",
            "export.gate.checks.numbers",
            "export.gate.checks.structure",
            "export.gate.checks.answers",
            "export.gate.checks.speed",
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
        modules=("export.publish",),
        tools=(),
        is_reusable=False,
    ),
)


def _parts(loaded: LoadedRecipe, *names: str) -> dict[str, object]:
    """The named sections of a recipe, JSON-ready."""
    document = loaded.recipe.model_dump(mode="json")
    return {name: document[name] for name in names}
