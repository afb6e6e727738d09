"""Reads where the network looked, from either form of an answer, as one map over the picture that was sent."""

from __future__ import annotations

import binascii
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from saccade.service.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    HeatMap: TypeAlias = NDArray[np.uint8]


def heat_from(document: Mapping[str, Any], width: int, height: int) -> HeatMap:
    """(height, width), 255 where it looked most; `document` is an answer's `explanation`. Raises UnexpectedAnswer."""
    import numpy as np
    from PIL import Image

    size = (width, height)
    try:
        if "png" in document:
            drawn = Image.open(io.BytesIO(binascii.a2b_base64(document["png"]))).convert("L")
            return np.array(drawn.resize(size, Image.Resampling.BILINEAR))
        shape = (document["rows"], document["columns"])
        grid = np.frombuffer(binascii.a2b_base64(document["grid"]), np.uint8).reshape(shape)
        left, top, right, bottom = document["box"]
    except (KeyError, ValueError, OSError) as error:
        raise UnexpectedAnswer(f"the explanation is damaged: {error}") from error
    cell_width, cell_height = (right - left) / shape[1], (bottom - top) / shape[0]
    matrix = (1 / cell_width, 0.0, -left / cell_width, 0.0, 1 / cell_height, -top / cell_height)
    return np.array(
        Image.fromarray(grid).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=0)
    )
