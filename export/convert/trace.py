"""Traces the deploy module with a dynamic batch, or with a batch of one when the network does not allow more.

A network that fixes the batch while it is traced (a Python loop over images, a size read as a number) still serves, one
image at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.sources.trace_errors import describe_trace_failure, specialisations_noted

_EXAMPLE_BATCH = 2  # torch.export would treat a batch of one as a constant
_LARGEST_BATCH = 1024  # also the most that a recipe may allow


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced module, its answers to the example, and why it takes one image only (empty: it batches)."""

    program: Any  # torch.export.ExportedProgram
    outputs: Sequence[Tensor]
    not_batchable_reason: str


def traced(module: nn.Module, image: Tensor, not_batchable_reason: str = "") -> Trace:
    """Traces with a dynamic batch, or with one image when that fails or `not_batchable_reason` is given.

    `image` is one example (1, height, width, 3). Raises SourceError naming the line that no tracer can follow.
    """
    if not not_batchable_reason:
        examples = torch.cat([image] * _EXAMPLE_BATCH)
        batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
        try:
            with specialisations_noted(), _quiet_tracer():
                program = torch.export.export(module, (examples,), dynamic_shapes=({0: batch},), strict=False)
        except Exception as error:  # torch documents no common class for what a trace may raise
            not_batchable_reason = describe_trace_failure(error)
        else:
            return Trace(program, module(examples), "")
    try:
        with _quiet_tracer():
            program = torch.export.export(module, (image,), strict=False)
    except Exception as error:  # as above
        raise SourceError(f"the network cannot be traced: {describe_trace_failure(error)}") from error
    return Trace(program, module(image), not_batchable_reason)


@contextmanager
def _quiet_tracer() -> Iterator[None]:
    """Silences what torch says of tensors that a module keeps from one call to the next: the proof compares answers."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"The tensor attributes? .* assigned during export", category=UserWarning
        )
        yield
