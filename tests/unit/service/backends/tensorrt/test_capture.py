"""Which batch sizes become CUDA graphs."""

from __future__ import annotations

import pytest

from saccade.service.backends.tensorrt.capture import CaptureFacts, capture_refusal


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (CaptureFacts(True, (), True), None),
        (CaptureFacts(True, (), None), None),  # this TensorRT cannot say: try
        (CaptureFacts(False, (), True), "SACCADE_CUDA_GRAPHS is false"),
        (CaptureFacts(True, ("boxes",), True), "the data decides the shape of boxes"),
        (CaptureFacts(True, (), False), "TensorRT says that this engine cannot be captured"),
    ],
)
def test_reason_is_given_for_what_is_not_captured(facts: CaptureFacts, reason: str | None) -> None:
    assert capture_refusal(facts) == reason
