"""The files that step `precision` leaves. Promises: the same names for every variant, whoever made it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx

from saccade.export.errors import GraphError
from saccade.export.graph.large_files import WEIGHTS_SUFFIX, save_graph
from saccade.export.qualification.bare_graph import bare_graph
from saccade.export.variants import VariantKind

BARE_FILE = "bare.onnx"  # the same variant without deploy wrapping; absent where the front has no such form
CALIBRATION_FILE = "calibration.json"  # of quantized variants: every candidate and what it reached
POLICY_FILE = "policy.json"  # where a policy was searched: blocks, measured policies and the winner
LAYERS_FILE = "layers.json"  # of quantized variants: every weighted layer, quantized or why not, and its sensitivity


def write_bare(model: onnx.ModelProto, directory: Path) -> None:
    """No file when the front has no bare form: the speed ratio cannot be measured then."""
    with contextlib.suppress(GraphError):
        save_graph(bare_graph(model), directory / BARE_FILE)


def weights_name(variant: VariantKind) -> str:
    """Variants lie in one directory when published, so each names its own weights."""
    return f"{variant}.onnx{WEIGHTS_SUFFIX}"
