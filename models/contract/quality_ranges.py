"""What sharpness, exposure and size are among a network's own pictures; `quality.py` measures them."""

from __future__ import annotations

from pydantic import Field

from saccade.models.contract.specs import Frozen


class MeasureRange(Frozen):
    """What a measure is among the network's own pictures."""

    usual: float = Field(ge=0)  # the median
    lowest: float = Field(ge=0)  # all but a third of a per cent have more


class QualityRanges(Frozen):
    pictures: int = Field(ge=1)
    sharpness: MeasureRange
    exposure: MeasureRange
    size: MeasureRange
