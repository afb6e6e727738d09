"""The narrow float types that variants multiply in. Promises: their limits are those of the types, read from numpy."""

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
    """One narrow float type."""

    precision: NarrowPrecision
    element_type: int  # of ONNX
    onnx_type: str  # as operator schemas write it
    largest: float
    smallest_normal: float  # below it, digits are lost
    smallest: float  # below half of it, numbers become zero
    roundoff: float  # largest relative error of rounding a normal number
    min_opset: int  # the first whose convolutions take it

    @property
    def dtype(self) -> np.dtype[Any]:
        return helper.tensor_dtype_to_np_dtype(self.element_type)

    def rounded(self, values: NDArray[Any]) -> NDArray[Any]:
        """The nearest numbers of this type; those beyond its range become infinite."""
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
