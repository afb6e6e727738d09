"""Writes an embedder's vector as JSON numbers, or as base64 of its bytes, which are a third as long and exact."""

from __future__ import annotations

import binascii
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

VectorEncoding = Literal["json", "base64"]
VectorType = Literal["float32", "float16"]

_LEAST_SQUARE = 0.25  # the graph gives vectors of length 1 or of length 0; half precision rounds neither to the other
_BYTES_OF = {"float32": "<f4", "float16": "<f2"}  # little-endian, whatever the server's processor is


def embedding_json(vector: NDArray[Any], encoding: VectorEncoding, dtype: VectorType) -> dict[str, Any]:
    """The field `embedding` of an answer; vector: (dim,) float32, which is copied.

    `values` is an array, of which orjson writes each number in the fewest digits that give it back.
    """
    numbers = vector.astype(_BYTES_OF[dtype])
    described = {"dim": len(numbers), "dtype": dtype}
    if encoding == "base64":
        return {"embedding": {**described, "base64": binascii.b2a_base64(numbers.tobytes(), newline=False).decode()}}
    return {"embedding": {**described, "values": numbers}}


def is_zero(vector: NDArray[Any]) -> bool:
    """Whether a vector has no direction."""
    return float(np.dot(vector, vector)) < _LEAST_SQUARE
