"""How many times as fast a variant is as another, from rounds in which both took turns; pure.

Other work on a machine slows both runs of a round alike, so the ratio within a round says more than two separate
figures do. The interval is that of the sign test: order statistics of the rounds' log ratios, which cover their median
at the stated rate whatever the distribution is (Conover 1999, Practical Nonparametric Statistics, 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from pydantic import Field

from saccade.models.contract.specs import Frozen, VariantName

CONFIDENCE = 0.95
MIN_ROUNDS = 6  # fewer rounds give no interval at 95 %


@dataclass(frozen=True, slots=True)
class MedianInterval:
    """A median with the interval that covers it."""

    value: float
    low: float
    high: float


class PairedSpeed(Frozen):
    """A variant's speed over another's: geometric mean over batch sizes, median over rounds."""

    against: VariantName
    device_kind: Literal["cpu", "cuda"]
    ratio: float = Field(gt=0)  # above 1: faster than `against`
    ci_low: float = Field(gt=0)
    ci_high: float = Field(gt=0)
    confidence: float = CONFIDENCE
    rounds: int = Field(ge=1)
    batch_sizes: tuple[int, ...]

    @property
    def is_faster(self) -> bool:
        """Whether the interval excludes that both are equally fast, or that this one is slower."""
        return self.ci_low > 1.0

    @property
    def interval(self) -> str:
        return f"{self.confidence:.0%} interval {self.ci_low:.2f} to {self.ci_high:.2f}"

    @property
    def text(self) -> str:
        """The comparison in words, with its interval."""
        if self.is_faster:
            return f"{self.ratio:.2f} times as fast as {self.against} ({self.interval})"
        word = "slower" if self.ci_high < 1.0 else "not surely faster"
        return f"{word} than {self.against} here ({self.ratio:.2f} times as fast, {self.interval})"

    def inverted(self, name: str) -> PairedSpeed:
        """The same comparison seen from `against`; `name` is the variant that this one belongs to."""
        turned = {"against": name, "ratio": 1 / self.ratio, "ci_low": 1 / self.ci_high, "ci_high": 1 / self.ci_low}
        return self.model_copy(update=turned)


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> MedianInterval | None:
    """The median with its interval; None when there are too few values for this confidence."""
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0  # `rank` values may be left out at either end
    while rank < count and 2 * (outside + math.comb(count, rank) / 2**count) <= 1 - confidence:
        outside += math.comb(count, rank) / 2**count
        rank += 1
    return MedianInterval(median(ordered), ordered[rank - 1], ordered[count - rank]) if rank else None


def paired_speed(
    mine: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    *,
    against: str,
    device_kind: Literal["cpu", "cuda"],
    batch_sizes: tuple[int, ...],
    confidence: float = CONFIDENCE,
) -> PairedSpeed | None:
    """Compares seconds by round and batch size of two variants; None when there are too few rounds for an interval."""
    logs = [
        fmean(math.log(their_s / my_s) for my_s, their_s in zip(my_round, their_round, strict=True))
        for my_round, their_round in zip(mine, theirs, strict=False)  # one may have ended earlier
    ]
    found = median_interval(logs, confidence)
    if found is None:
        return None
    return PairedSpeed(
        against=against,
        device_kind=device_kind,
        ratio=round(math.exp(found.value), 4),
        ci_low=round(math.exp(found.low), 4),
        ci_high=round(math.exp(found.high), 4),
        confidence=confidence,
        rounds=len(logs),
        batch_sizes=batch_sizes,
    )
