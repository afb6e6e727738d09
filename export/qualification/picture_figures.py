"""What is measured of networks whose answer is a picture: how near each is to its target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.manifest import MetricName
from saccade.models.contract.specs import Frozen

FEWEST_FOR_A_SHIFT = 11  # pictures; of fewer, chance alone may have all answers fit better once they are moved


class PictureFigure(Frozen):
    """Means over the test pictures. Pictures have psnr and ssim, depths the error."""

    psnr: float | None = None  # dB
    ssim: float | None = None
    absolute_relative_error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PictureEvidence:
    """How near each picture is to its target, 0 to 1; all pictures are one class."""

    scores: NDArray[np.float64]  # (n,); NaN: the target says nothing, so the picture does not count
    errors: NDArray[np.float64]  # (n,) PSNR in dB, of depths the relative error; NaN: there is nothing to measure
    metric: MetricName

    @property
    def images(self) -> int:
        return len(self.scores)

    @property
    def counted(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.scores)

    def values(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """0 where no drawn picture counts."""
        drawn = weights[:, self.counted]
        result: NDArray[np.float64] = drawn @ self.scores[self.counted] / np.maximum(drawn.sum(1), 1)
        return result

    def class_values(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.values(weights)[:, None]

    def per_class(self) -> NDArray[np.float64]:
        return self.values(np.ones((1, self.images), np.int64))

    def class_images(self) -> NDArray[np.int64]:
        return np.array([self.counted.sum()])

    def part(self, rows: NDArray[np.int64]) -> PictureEvidence:
        return replace(self, scores=self.scores[rows], errors=self.errors[rows])


def picture_figure(evidence: object) -> PictureFigure | None:
    """The means; None for the evidence of other tasks, and where no picture has a target that says something."""
    if not isinstance(evidence, PictureEvidence) or np.isnan(evidence.errors).all():
        return None
    told = ~np.isnan(evidence.errors)
    error = float(evidence.errors[told].mean())
    if evidence.metric == "depth_accuracy":
        return PictureFigure(absolute_relative_error=error)
    return PictureFigure(psnr=error, ssim=float(evidence.scores[told].mean()))
