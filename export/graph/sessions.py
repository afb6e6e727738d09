"""Opens the exporter's own sessions of ONNX Runtime; they print nothing, because every error is raised as well."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime

_FATAL = 4  # of ONNX Runtime's severities


def quiet_options() -> onnxruntime.SessionOptions:
    """Returns options of a session that prints nothing: a warning about a user's graph is not theirs to act on."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    return options


def plain_options() -> onnxruntime.SessionOptions:
    """Returns options of a quiet session without int8 kernels, so that a quantized file is its own float reference."""
    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options


def cpu_session(
    model: str | bytes | Path, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """Opens a file, or a model's bytes, on the CPU; without options the session is quiet."""
    given = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(given, options or quiet_options(), providers=["CPUExecutionProvider"])
