"""Outputs of a variant's file besides the answer, which are computed only for requests that ask for them.

Kinds travel between processes as bits of one number, the mask; a request's mask is 0 unless it asks for something.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from saccade.models.contract.specs import Frozen, TensorSpec

UNFAMILIAR_ABOVE = 1.0  # scores of trust are scaled so that 95 of 100 pictures like those of the export are below


class ExtraKind(StrEnum):
    EXPLAIN = "explain"  # where the network looked, a map over its input
    TRUST = "trust"  # how unlike the pictures of the export the image is

    @property
    def bit(self) -> int:
        return _BITS[self]

    @property
    def input(self) -> str:
        """The optional input of a file, one boolean, that asks for this kind."""
        return f"ask_{self}"


_BITS = {kind: 1 << index for index, kind in enumerate(ExtraKind)}
ALL_KINDS = (1 << len(_BITS)) - 1  # the mask of everything


class ExtraOutput(Frozen):
    """One such output of a file: which kind it is, its tensor, and how it is computed."""

    kind: ExtraKind
    output: TensorSpec
    method: str = Field(min_length=1, max_length=60)  # one of the kind's own words, as answers say it


def mask_of(extras: tuple[ExtraOutput, ...]) -> int:
    """The mask of what these outputs give."""
    return sum(extra.kind.bit for extra in extras)


def asked_for(extras: tuple[ExtraOutput, ...], mask: int) -> tuple[ExtraOutput, ...]:
    """The outputs that a mask asks for, in their order in the file."""
    return tuple(extra for extra in extras if extra.kind.bit & mask)
