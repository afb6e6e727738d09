"""How good a picture is, beside those that its network was made with: sharpness, exposure, size.

They are measured on the network's input, where the picture covers it. Sharpness is the standard deviation of the
Laplacian (its square is Pech-Pacheco et al., ICPR 2000), exposure the share of pixels that are neither black nor
white, size the shorter side of the picture as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import Geometry, UInt8Array
from saccade.models.contract.quality_ranges import MeasureRange, QualityRanges

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BLACK, _WHITE = 6.0, 249.0
_LOWEST_PERCENT = 1.0 / 3.0  # of each of three measures, so that together they find fault with one picture in a hundred
_FAULTS = {
    "sharpness": "blurred: its edges have {value:.3g}, and the network's own pictures {lowest:.3g} or more",
    "exposure": "badly exposed: {value:.1%} of it is neither black nor white, and of the network's own pictures "
    "{lowest:.1%} or more",
    "size": "small: its shorter side has {value:.0f} pixels, and the network's own pictures have {lowest:.0f} or more",
}


class Quality(NamedTuple):
    """`score` is 0 to 1: the measure that lies lowest, as a share of what is usual. No reasons: as good as usual."""

    score: float
    reasons: tuple[str, ...]


def ranges_of(images: Iterable[UInt8Array], geometries: Iterable[Geometry]) -> QualityRanges:
    """Learns what is usual from pictures as the network gets them."""
    measured = [measures_of(image, geometry) for image, geometry in zip(images, geometries, strict=True)]

    def learned(name: str) -> MeasureRange:
        values = [each[name] for each in measured]
        lowest, usual = np.percentile(values, [_LOWEST_PERCENT, 50.0])
        return MeasureRange(usual=float(usual), lowest=float(lowest))

    return QualityRanges(
        pictures=len(measured), sharpness=learned("sharpness"), exposure=learned("exposure"), size=learned("size")
    )


def quality_of(image: UInt8Array, geometry: Geometry, ranges: QualityRanges) -> Quality:
    """Measures one picture of the network's input, (height, width, 3)."""
    shares, reasons = [1.0], []
    for name, value in measures_of(image, geometry).items():
        usual: MeasureRange = getattr(ranges, name)
        shares.append(value / usual.usual if usual.usual else 1.0)
        if value < usual.lowest:
            reasons.append(_FAULTS[name].format(value=value, lowest=usual.lowest))
    return Quality(round(min(shares), 4), tuple(reasons))


def measures_of(image: UInt8Array, geometry: Geometry) -> Mapping[str, float]:
    left, top = max(0, geometry.left), max(0, geometry.top)
    shown = image[top : geometry.top + geometry.height, left : geometry.left + geometry.width]
    grey: NDArray[np.float32] = shown.astype(np.float32) @ _LUMINANCE
    edges = 4.0 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return {
        "sharpness": float(edges.std()) if edges.size else 0.0,
        "exposure": float(((grey > _BLACK) & (grey < _WHITE)).mean()),
        "size": float(min(geometry.source_width, geometry.source_height)),
    }
