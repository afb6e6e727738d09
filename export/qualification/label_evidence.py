"""Computes mean average precision per label of multi-label classifiers, for any weighting of images.

A label's average precision is scikit-learn's `average_precision_score`: the sum of precision times the gain in recall
over all different scores, without interpolation. The metric is the mean over labels that some image shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.evidence import Weights, mean_of_classes
from saccade.models.contract.manifest import MetricName

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LabelEvidence:
    scores: FloatArray  # (n, labels); minus infinity where a label is not answered
    truth: BoolArray  # (n, labels)
    metric: MetricName = "label_map"

    @property
    def images(self) -> int:
        return len(self.truth)

    def values(self, weights: Weights) -> FloatArray:
        return mean_of_classes(self.class_values(weights))

    def per_class(self) -> FloatArray:
        figures: FloatArray = self.class_values(np.ones((1, self.images), np.int64))[0]
        return figures

    def class_images(self) -> NDArray[np.int64]:
        return np.asarray(self.truth.sum(0))

    def class_values(self, weights: Weights) -> FloatArray:
        columns = [_average_precision(*pair, weights) for pair in zip(self.scores.T, self.truth.T, strict=True)]
        return np.stack(columns, axis=1)

    def part(self, rows: NDArray[np.int64]) -> LabelEvidence:
        return replace(self, scores=self.scores[rows], truth=self.truth[rows])

    def from_score(self, threshold: float) -> LabelEvidence:
        """Returns the evidence of the labels that reach the threshold."""
        return LabelEvidence(np.where(self.scores >= threshold, self.scores, -np.inf), self.truth)


def _average_precision(scores: FloatArray, truth: BoolArray, weights: Weights) -> FloatArray:
    """Returns a label's average precision (resamples,); NaN where the drawn images do not show it."""
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    drawn = weights[:, order].astype(np.float64)
    wanted = weights @ truth.astype(np.float64)
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last image of each different score
    hits = np.cumsum(drawn * truth[order], axis=1)[:, ends]
    precision = hits / np.maximum(np.cumsum(drawn, axis=1)[:, ends], 1.0)
    area = (np.diff(hits, axis=1, prepend=0.0) * precision).sum(1)
    return np.where(wanted > 0, area / np.maximum(wanted, 1.0), np.nan)
