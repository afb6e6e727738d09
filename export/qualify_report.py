"""What qualification measured. Promises: plain frozen values, readable back from report.json, no verdicts."""

from __future__ import annotations

from pydantic import Field

from export.curves import Curves
from export.disagreements import Disagreements
from models.manifest import Device, LatencyFigure, MetricFigure
from models.specs import Frozen, Sha256


class MetricDrop(Frozen):
    """Reference minus variant, with the paired bootstrap interval; negative means the variant is better."""

    value: float
    ci_low: float
    ci_high: float


class ParityFigure(Frozen):
    """Difference to the eager network at one batch size."""

    batch_size: int = Field(ge=1)
    relative_l2: float | None  # scores and boxes, worst tensor; None when not finite
    class_agreement: float  # share of equal class ids or mask pixels


class SpeedRatio(Frozen):
    """Deploy graph against bare graph, measured in turns; above 1 the deploy graph is faster."""

    batch_size: int = Field(ge=1)
    ratio: float
    ci_low: float
    ci_high: float
    deploy_images_per_s: float
    bare_images_per_s: float


class HostileFigure(Frozen):
    """What the variant answered to an input no camera makes."""

    name: str
    is_finite: bool
    is_in_range: bool


class BatchInvariance(Frozen):
    """The same image alone and within a batch, worst over all allowed batch sizes."""

    relative_l2: float | None
    id_disagreement: float  # share of differing class ids or mask pixels


class QualifyReport(Frozen):
    """All figures of one variant, measured on the file with this digest."""

    variant: str
    file_sha256: Sha256
    file_bytes: int  # with its external weights
    external_sha256: dict[str, Sha256] = Field(default_factory=dict)  # weight files beside it, by name
    metric: MetricFigure
    drop: MetricDrop
    per_class: tuple[float | None, ...]
    parity: tuple[ParityFigure, ...]
    batch_invariance: BatchInvariance
    hostile: tuple[HostileFigure, ...]
    is_deterministic: bool
    latency: tuple[LatencyFigure, ...]
    speed: tuple[SpeedRatio, ...]
    measured_on: Device
    detail: dict[str, str | float | int | bool]
    curves: Curves | None = None
    disagreements: Disagreements | None = None
