"""How near two pictures are, or two maps of depth; numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import TaskSpec

_NEAR = 2.0 / 255.0  # of the range: two levels of a picture, which nobody sees
_LEAST_ERROR = 1e-10  # mean square; equal pictures have 100 dB
_LEAST_KNOWN = 100  # pixels; two numbers are fitted to them, and any answer fits two pixels


def near_levels(found: NDArray[Any], expected: NDArray[Any], task: TaskSpec) -> float:
    """The share of numbers that differ by two 255ths of the range at most: 0 to 1, or that of the expected depths."""
    span = float(np.ptp(expected)) if task.picture == "depth" else 1.0
    return float((np.abs(found - expected) <= _NEAR * span).mean())


def psnr(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The peak signal-to-noise ratio in dB of pictures from 0 to 1; at most 100."""
    square = float(np.square(found.astype(np.float64) - expected).mean())
    return -10.0 * float(np.log10(max(square, _LEAST_ERROR)))


def can_judge_depth(expected: NDArray[Any]) -> bool:
    """Tells whether a true depth says anything: enough pixels are known, which is above 0, and not all are equal."""
    known = expected[expected > 0]
    return known.size >= _LEAST_KNOWN and float(np.ptp(known)) > 0.0


def absolute_relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Mean of |found - expected| / expected where the depth is known, for depths that can be judged.

    Networks of one picture do not know its scale: what was found is first brought to the truth by the factor and the
    offset of least squares, as in Ranftl et al., Towards Robust Monocular Depth Estimation, arXiv 1907.01341. A factor
    below 0 would exchange near and far, so 0 stands for it: the best constant depth is compared.
    """
    known = expected > 0
    depths, truth = found[known].astype(np.float64), expected[known].astype(np.float64)
    spread = depths - depths.mean()
    factor = max(0.0, float(spread @ truth)) / max(float(spread @ spread), 1e-12)
    aligned = truth.mean() + factor * spread
    return float((np.abs(aligned - truth) / truth).mean())
