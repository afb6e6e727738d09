"""TensorRT plans of one graph. Promises: one per compute capability, built without a GPU, or what stops them."""

from __future__ import annotations

import re
from pathlib import Path

from saccade.export.errors import ExportError
from saccade.export.plans.tensorrt_from_onnx import DEFAULT_CAPABILITIES, ParserError, build_plan
from tests.matrix.documents import ALLOWED_BATCH_SIZES
from tests.matrix.rows import Plan, has_plan_tool

_RUNTIME = "tensorrt_rtx"
_LONGEST_REASON = 240  # characters
# TensorRT's internal errors say what happened between the failed assertion and the place in its own source.
_ASSERTION = re.compile(r"Assertion .*? failed\. (?P<what>.+?)(?= In \w+ at |\)|$)")


def plans_of(graph: Path) -> tuple[tuple[Plan, ...], str]:
    """Sizes and times of the plans, which are not kept, and the first reason why one could not be built."""
    if not has_plan_tool():
        return (), "TensorRT for RTX is not installed here: install the `rtx` extra"
    plans: list[Plan] = []
    for capability in DEFAULT_CAPABILITIES:
        try:
            report = build_plan(graph, (capability,), ALLOWED_BATCH_SIZES, _RUNTIME)
        except ExportError as error:
            return tuple(plans), f"{capability}: {error}"
        if report.errors:
            return tuple(plans), "; ".join(dict.fromkeys(map(problem_text, report.errors)))[:_LONGEST_REASON]
        seconds = round(report.seconds, 2)
        plans.append(Plan(capability=capability, megabytes=round(report.plan_bytes / 1e6, 2), seconds=seconds))
    return tuple(plans), ""


def problem_text(error: ParserError) -> str:
    """`Col2Im in layer network.0.attn: no such operator`."""
    where = f" in layer {error.layer}" if error.layer else f" at {error.node}" if error.node else ""
    reason = " ".join(error.reason.split())
    assertion = _ASSERTION.search(reason)
    return f"{error.operator or 'builder'}{where}: {assertion['what'] if assertion else reason}"
