"""Names the files that step `precision` leaves, the same for every variant."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx

from saccade.export.errors import GraphError
from saccade.export.graph.large_files import WEIGHTS_SUFFIX, save_graph
from saccade.export.qualification.bare_graph import bare_graph
from saccade.export.variants import VariantKind

BARE_FILE = "bare.onnx"  # the same variant without deploy wrapping; absent when the front has no such form
# written for quantized variants: every candidate calibrator and the metric it reached
CALIBRATION_FILE = "calibration.json"
POLICY_FILE = "policy.json"  # written when a policy was searched: blocks, measured policies and the winner
# written for quantized variants: every weighted layer, whether it is quantized, and its sensitivity
LAYERS_FILE = "layers.json"


def write_bare(model: onnx.ModelProto, directory: Path) -> None:
    """Writes the bare form of a model; writes nothing, and no speed ratio is measured, when its front has none."""
    with contextlib.suppress(GraphError):
        save_graph(bare_graph(model), directory / BARE_FILE)


def weights_name(variant: VariantKind) -> str:
    """Names a variant's weights file; published variants share one directory, so each has its own name."""
    return f"{variant}.onnx{WEIGHTS_SUFFIX}"
