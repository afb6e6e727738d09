"""Defines the limits of the recipe's section `data`: how much of a folder may be wrong."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from saccade.models.contract.specs import Frozen

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class DataLimits(Frozen):
    """How much of a folder may be wrong before it is refused; smaller faults are only reported."""

    max_bad_boxes: Share = 0.001  # share of all boxes that are null, smaller than a pixel, outside, or repeated
    max_shared: Share = 0.0  # share of a split's pictures that occur in another split with equal pixels
    # share of a split's pictures that occur in another split saved again, mirrored, turned or brightened
    max_near: Share = 0.05
    # share of a split's pictures without any object; labels that were lost on the way look like that
    max_empty: Share = 0.5
