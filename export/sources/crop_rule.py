"""Keeps the share of the picture that a library's crop shows when a recipe changes the size."""

from __future__ import annotations

import math
from typing import Any

from saccade.models.contract.specs import PreprocessSpec


def crop_at_size(known: PreprocessSpec, crop_share: float | None, width: int, height: int) -> dict[str, Any]:
    """The fields that make `known`, a crop, fit another size; timm's arithmetic for squares and for other shapes.

    crop_share: what the library says the cut keeps of the shortest edge; None: as in `known`.
    """
    edge = known.shortest_edge or min(known.cover or known.resize_to or (known.width, known.height))
    share = crop_share or min(known.width, known.height) / edge
    before = (_before_cut(width, share), _before_cut(height, share))
    if known.resize_to is not None:
        return {"resize_to": before}
    if width == height:
        return {"shortest_edge": before[0], "cover": None, "rounding": "floor"}
    return {"cover": before, "shortest_edge": None, "rounding": "round"}


def _before_cut(side: int, share: float) -> int:
    return math.floor(side / share + 1e-9)  # 224 / (224 / 232) must stay 232
