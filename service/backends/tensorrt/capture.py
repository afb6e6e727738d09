"""Decides which batch sizes run as CUDA graphs: a pure function that gives a reason for each size that does not."""

from __future__ import annotations

from dataclasses import dataclass

CAPTURED = "captured"


@dataclass(frozen=True, slots=True)
class CaptureFacts:
    """What is known about one batch size once it has run."""

    is_wanted: bool  # the setting cuda_graphs
    sized_by_data: tuple[str, ...]  # outputs whose shape the data decides: their memory can move between runs
    is_capturable: bool | None  # TensorRT's answer for the context and stream; None where this version has none


def capture_refusal(facts: CaptureFacts) -> str | None:
    """Why this size should run without a graph; None when a capture should be tried."""
    if not facts.is_wanted:
        return "SACCADE_CUDA_GRAPHS is false"
    if facts.sized_by_data:
        return f"the data decides the shape of {', '.join(facts.sized_by_data)}"
    if facts.is_capturable is False:
        return "TensorRT says that this engine cannot be captured"
    return None
