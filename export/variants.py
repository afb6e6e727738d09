"""Lists the variants that a recipe may ask for; a variant is a form of the weights in a precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Form = Literal["dense", "sparse24", "pruned"]
"""The form of the weights before precision: unchanged, 2:4 structured sparsity, or whole channels removed."""

FORMS: tuple[Form, ...] = get_args(Form)
VariantKind = Literal[
    "fp32",
    "fp32-openvino",
    "fp16",
    "bf16",
    "bf16-cpu",
    "int8-cpu",
    "int8-openvino",
    "int8-trt",
    "fp8-trt",
    "fp16-sparse24",
    "int8-trt-sparse24",
    "fp32-pruned",
    "fp16-pruned",
    "int8-cpu-pruned",
    "int8-trt-pruned",
]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Target = Literal["any", "cpu", "gpu", "trt", "openvino"]


@dataclass(frozen=True, slots=True)
class VariantTraits:
    """The meaning of a variant's name."""

    precision: Precision
    target: Target  # as in the manifest
    form: Form = "dense"

    @property
    def needs_gpu(self) -> bool:
        return self.target in ("gpu", "trt")

    @property
    def is_openvino(self) -> bool:
        return self.target == "openvino"

    @property
    def is_calibrated(self) -> bool:
        """Whether the file holds narrower numbers than fp32; OpenVINO computes bf16 from the file of fp32."""
        return self.precision != "fp32" and not (self.is_openvino and self.precision == "bf16")


# 2:4 needs tensor cores; CPUs gain nothing from it, so fp32 and int8-cpu have no row of that form.
TRAITS: dict[VariantKind, VariantTraits] = {
    "fp32": VariantTraits("fp32", "any"),
    "fp32-openvino": VariantTraits("fp32", "openvino"),
    "fp16": VariantTraits("fp16", "gpu"),
    "bf16": VariantTraits("bf16", "gpu"),
    "bf16-cpu": VariantTraits("bf16", "openvino"),
    "int8-cpu": VariantTraits("int8", "cpu"),
    "int8-openvino": VariantTraits("int8", "openvino"),
    "int8-trt": VariantTraits("int8", "trt"),
    "fp8-trt": VariantTraits("fp8", "trt"),
    "fp16-sparse24": VariantTraits("fp16", "gpu", "sparse24"),
    "int8-trt-sparse24": VariantTraits("int8", "trt", "sparse24"),
    "fp32-pruned": VariantTraits("fp32", "any", "pruned"),
    "fp16-pruned": VariantTraits("fp16", "gpu", "pruned"),
    "int8-cpu-pruned": VariantTraits("int8", "cpu", "pruned"),
    "int8-trt-pruned": VariantTraits("int8", "trt", "pruned"),
}


def forms_of(variants: tuple[VariantKind, ...]) -> tuple[Form, ...]:
    """Returns the forms that these variants need, dense always and first, because the others are made from it."""
    used = dict.fromkeys(TRAITS[variant].form for variant in variants)
    return ("dense", *(form for form in used if form != "dense"))
