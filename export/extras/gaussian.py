"""Fits Gaussians to features, with the shrinkage of Ledoit and Wolf, in the form that a graph can compute cheaply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_MOST_DIRECTIONS = 256  # a distance costs features x directions multiplications and weights; others share one variance
_LEAST_DISTANCE = 1e-6  # squared, of a position: keeps its logarithm finite
_LEAST_SPREAD = 0.01  # of the mean spread: a feature that hardly varies must not outweigh all others


class ConstantFeatures(Exception):
    """All samples are the same, or are not finite: nothing can be told from them."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """The squared distance of x is |x · weights + bias|²; it is about 1 for samples like those that were fitted."""

    weights: FloatArray  # (features, directions)
    bias: FloatArray  # (directions,)

    def distances(self, samples: FloatArray) -> FloatArray:
        """Of samples (n, features), (n,)."""
        lengths: FloatArray = np.linalg.norm(samples @ self.weights + self.bias, axis=1)
        return lengths

    def divided(self, unit: float) -> Whitening:
        """The same, with distances in this unit."""
        return Whitening(self.weights / unit, self.bias / unit)


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The squared distance of x is `spherical` · |z|² - |z · directions|², where z = (x - mean) · scale.

    All directions but the widest share one variance, as in the probabilistic principal component analysis of Tipping
    and Bishop (1999).
    """

    mean: FloatArray  # (features,)
    scale: FloatArray  # (features,)
    directions: FloatArray  # (features, directions)
    spherical: float

    def distances(self, samples: FloatArray) -> FloatArray:
        """Of samples (n, features), (n,)."""
        scaled = (samples - self.mean) * self.scale
        whole, along = self.spherical * (scaled**2).sum(1), ((scaled @ self.directions) ** 2).sum(1)
        lengths: FloatArray = np.sqrt(np.maximum(whole - along, 0.0))
        return lengths

    def divided(self, unit: float) -> LowRank:
        """The same, with distances in this unit."""
        return LowRank(self.mean, self.scale, self.directions / unit, self.spherical / unit**2)


def fit_vectors(samples: FloatArray) -> Whitening | LowRank:
    """Fits samples (n, features), which may be fewer than features. Raises ConstantFeatures."""
    _ensure_varied(samples)
    mean, spread, features = samples.mean(0), samples.std(0), samples.shape[1]
    scale = 1.0 / (spread + _LEAST_SPREAD * spread.mean())
    values, vectors = _axes((samples - mean) * scale)
    if features <= _MOST_DIRECTIONS:
        weights = scale[:, None] * vectors / np.sqrt(values * features)
        return Whitening(weights, -mean @ weights)
    others = float(values[_MOST_DIRECTIONS:].mean())
    directions = vectors * np.sqrt(np.maximum(1.0 / others - 1.0 / values, 0.0) / features)
    return LowRank(mean, scale, directions[:, :_MOST_DIRECTIONS], 1.0 / others / features)


def fit_positions(samples: FloatArray) -> Whitening:
    """Fits samples (n, features), many more than features, along their widest directions. Raises ConstantFeatures.

    One direction more is the same for all, so that no distance is 0.
    """
    _ensure_varied(samples)
    mean = samples.mean(0)
    values, vectors = _axes(samples - mean)
    kept = min(len(values), _MOST_DIRECTIONS)
    weights = np.pad(vectors[:, :kept] / np.sqrt(values[:kept] * kept), ((0, 0), (0, 1)))
    return Whitening(weights, np.append(-mean @ weights[:, :-1], np.sqrt(_LEAST_DISTANCE)))


def _ensure_varied(samples: FloatArray) -> None:
    if not (np.isfinite(samples).all() and samples.std(0).max() > 0.0):
        raise ConstantFeatures("its features are the same for every calibration picture, or not finite")


def _axes(centred: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Variances, the largest first, and directions (features, features) of the shrunk covariance, never singular."""
    from sklearn.covariance import ledoit_wolf  # takes a second to import, and only this step needs it

    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    least = values[-1] * 1e-6  # rounding of numbers of four bytes in the graph
    return np.maximum(values[::-1], least), vectors[:, ::-1]
