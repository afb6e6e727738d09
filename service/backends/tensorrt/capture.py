"""Decides which batch sizes run as CUDA graphs. Promises: pure; whatever is not captured has a reason to show."""

from __future__ import annotations

from dataclasses import dataclass

CAPTURED = "captured"


@dataclass(frozen=True, slots=True)
class CaptureFacts:
    """What is known of one batch size once it has run."""

    is_wanted: bool  # setting cuda_graphs
    sized_by_data: tuple[str, ...]  # outputs whose shape the data decides: their memory can move between runs
    is_capturable: bool | None  # as TensorRT says of the context and stream; None where this TensorRT cannot say


def capture_refusal(facts: CaptureFacts) -> str | None:
    """Why not; None when it should be tried."""
    if not facts.is_wanted:
        return "SACCADE_CUDA_GRAPHS is false"
    if facts.sized_by_data:
        return f"the data decides the shape of {', '.join(facts.sized_by_data)}"
    if facts.is_capturable is False:
        return "TensorRT says that this engine cannot be captured"
    return None
