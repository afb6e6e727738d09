"""Step `calibrate`: observes one form's activations once, on images that calibration may use.

The histograms cover every float activation of the network, so that variants with different placement share one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from saccade.export.artifact import Artifact, Detail
from saccade.export.data.datasets import calibration_split
from saccade.export.errors import CalibrationTooSmall, GraphError
from saccade.export.graph.large_files import whole_graph
from saccade.export.graph.onnx_graph import MODEL_FILE, network_nodes
from saccade.export.precision.quantization.calibration import LARGEST_BATCH, observe
from saccade.export.precision.quantization.qdq import float_tensors
from saccade.export.precision.quantization.thresholds import Histogram
from saccade.export.recipe import LoadedRecipe
from saccade.export.steps import StepContext
from saccade.export.variants import TRAITS, Form

REFUSAL_FILE = "refused.txt"  # present instead, where there are too few images
HISTOGRAMS_FILE = "histograms.npz"  # absent when no variant of the form needs it
_CALIBRATED = frozenset({"int8", "fp8"})


def run_calibrate(context: StepContext) -> Detail:
    """Writes histograms of all activations, or why there are too few images for them.

    Raises DataRefused when the images must not be used for calibration.
    """
    if context.form not in calibrated_forms(context.loaded):
        return {"observed_tensors": 0}
    recipe = context.recipe
    try:
        calibration = calibration_split(context.data, context.loaded)
    except CalibrationTooSmall as error:
        (context.out / REFUSAL_FILE).write_text(str(error))
        return {"observed_tensors": 0, "calibration_images": 0}
    model = whole_graph(context.inputs["onnx_optimization"].file(MODEL_FILE), "int8 or fp8")
    context.note("observing activations")
    largest_batch = min(LARGEST_BATCH, recipe.qualify.evaluate_batch_size)
    histograms = observe(model, activations(model), calibration.images, largest_batch)
    write_histograms(histograms, context.out / HISTOGRAMS_FILE)
    return {
        "observed_tensors": len(histograms),
        "calibration_images": len(calibration.samples),
        "calibration_sha256": calibration.sha256,
    }


def calibrated_forms(loaded: LoadedRecipe) -> tuple[Form, ...]:
    """Returns the forms of the weights that some variant quantizes; none where the weights are int8 already."""
    if loaded.quantized:
        return ()
    traits = [TRAITS[variant] for variant in loaded.recipe.variants]
    return tuple(dict.fromkeys(each.form for each in traits if each.precision in _CALIBRATED))


def activations(model: onnx.ModelProto) -> list[str]:
    """Returns the float tensors that the network computes, in graph order, without those of the answer head."""
    floats = float_tensors(model) - {tensor.name for tensor in model.graph.initializer}
    return [name for node in network_nodes(model) for name in node.output if name in floats]


def read_histograms(artifact: Artifact) -> dict[str, Histogram]:
    """Returns histograms by tensor name. Raises GraphError when the step observed nothing, with its reason."""
    file, refusal = artifact.file(HISTOGRAMS_FILE), artifact.file(REFUSAL_FILE)
    if refusal.exists():
        raise GraphError(refusal.read_text())
    if not file.exists():
        raise GraphError(f"{file} is missing: no variant of this form asked for calibration when the step ran")
    with np.load(file) as stored:
        columns = (stored[key] for key in ("names", "lows", "highs", "counts"))
        return {
            str(name): Histogram(float(low), float(high), counts)
            for name, low, high, counts in zip(*columns, strict=True)
        }


def write_histograms(histograms: Mapping[str, Histogram], file: Path) -> None:
    np.savez_compressed(
        file,
        names=np.array(list(histograms), np.str_),
        lows=np.array([each.low for each in histograms.values()], np.float64),
        highs=np.array([each.high for each in histograms.values()], np.float64),
        counts=np.stack([each.counts for each in histograms.values()]),
    )
