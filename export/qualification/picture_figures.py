"""What is measured of networks whose answer is a picture: how near each is to its target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.manifest import MetricName
from saccade.models.contract.specs import Frozen


class PictureFigure(Frozen):
    """Means over the test pictures. Pictures have psnr and ssim, depths the error."""

    psnr: float | None = None  # dB
    ssim: float | None = None
    absolute_relative_error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PictureEvidence:
    """How near each picture is to its target, 0 to 1; all pictures are one class."""

    scores: NDArray[np.float64]  # (n,)
    metric: MetricName

    @property
    def images(self) -> int:
        return len(self.scores)

    def values(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = weights @ self.scores / weights.sum(1)
        return result

    def class_values(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.values(weights)[:, None]

    def per_class(self) -> NDArray[np.float64]:
        return self.values(np.ones((1, self.images), np.int64))

    def class_images(self) -> NDArray[np.int64]:
        return np.array([self.images])

    def part(self, rows: NDArray[np.int64]) -> PictureEvidence:
        return replace(self, scores=self.scores[rows])
