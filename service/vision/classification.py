"""Classifier answers: at most `top_k` classes, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def classes_json(
    scores: NDArray[np.float32], class_ids: NDArray[np.int32], labels: Sequence[str], top_k: int
) -> dict[str, Any]:
    """The answer's JSON. `scores` and `class_ids` are (k,), best first as the graph gives them."""
    pairs = zip(class_ids[:top_k].tolist(), scores[:top_k].tolist(), strict=True)
    return {
        "classes": [
            {"label": labels[class_id], "class_id": class_id, "score": round(score, 6)} for class_id, score in pairs
        ]
    }
