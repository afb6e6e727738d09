"""Classifier answers: at most `top_k` classes, best first; with several labels those from a threshold on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def classes_json(
    scores: NDArray[np.float32], class_ids: NDArray[np.int32], labels: Sequence[str], top_k: int, least: float = 0.0
) -> dict[str, Any]:
    """The answer's JSON. `scores` and `class_ids` are (k,), best first; lower scores than `least` are left out."""
    pairs = zip(class_ids[:top_k].tolist(), scores[:top_k].tolist(), strict=True)
    return {
        "classes": [
            {"label": labels[class_id], "class_id": class_id, "score": round(score, 6)}
            for class_id, score in pairs
            if score >= least
        ]
    }
