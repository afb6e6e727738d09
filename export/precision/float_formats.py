"""Describes the narrow float types that variants multiply in; their limits are read from numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

NarrowPrecision = Literal["fp16", "bf16"]
_ELEMENT_TYPES: dict[NarrowPrecision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """One narrow float type and its limits."""

    precision: NarrowPrecision
    element_type: int  # number of the type in ONNX
    onnx_type: str  # name of the type in operator schemas
    largest: float
    smallest_normal: float  # smaller numbers lose digits
    smallest: float  # numbers below half of this become zero
    roundoff: float  # largest relative error of rounding a normal number
    min_opset: int  # first opset whose convolutions take the type

    @property
    def dtype(self) -> np.dtype[Any]:
        return helper.tensor_dtype_to_np_dtype(self.element_type)

    def rounded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rounds to the nearest numbers of this type; values beyond its range become infinite."""
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(self.dtype)


def float_format(precision: NarrowPrecision) -> FloatFormat:
    element_type = _ELEMENT_TYPES[precision]
    limits = ml_dtypes.finfo(helper.tensor_dtype_to_np_dtype(element_type))  # type: ignore[no-untyped-call]  # as it is
    return FloatFormat(
        precision=precision,
        element_type=element_type,
        onnx_type={"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}[precision],
        largest=float(limits.max),
        smallest_normal=float(limits.smallest_normal),
        smallest=float(limits.smallest_subnormal),
        roundoff=float(limits.eps) / 2,
        min_opset={"fp16": 13, "bf16": 22}[precision],
    )


NARROW_TYPES = frozenset(_ELEMENT_TYPES.values())
