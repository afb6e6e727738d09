"""Defines what was measured of a variant's unfamiliarity and confidence, as plain frozen values."""

from __future__ import annotations

from saccade.models.contract.specs import Frozen


class ForeignFigure(Frozen):
    """How pictures of one kind are told from test pictures; AUROC is 0.5 where they are not."""

    kind: str
    pictures: int
    auroc: float
    baseline_auroc: float | None  # of `TrustFigure.baseline`; None: there is none
    unfamiliar_share: float  # of them, by the threshold


class TrustFigure(Frozen):
    """The score on pictures that it was not fitted on."""

    pictures: int  # of the test split
    familiar_share: float  # of them
    foreign: ForeignFigure  # all kinds of foreign pictures together
    kinds: tuple[ForeignFigure, ...]
    damaged: tuple[ForeignFigure, ...]
    baseline: str
    baseline_gain: tuple[float, float] | None = None  # interval of what the baseline's AUROC of all foreign is above
    cost: float  # share of a plain answer's time at batch 1, in turns
    cost_high: float  # upper end of its interval


class ConfidenceFigure(Frozen):
    """Calibration errors on the test split, with the temperature that fits the tuning split best."""

    served_temperature: float  # in the graph
    served_error: float
    unscaled_error: float  # without any temperature
    fitted_temperature: float
    fitted_error: float
    images: int
