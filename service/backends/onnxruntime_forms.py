"""How ONNX Runtime's CUDA provider may run a file: pure functions list the forms to try and choose the fastest.

fp32 has one form. ONNX Runtime's convolution asks cuDNN for a plan without tensor cores when `use_tf32` is 0; where
cuDNN has none, as for bias fused into an fp32 convolution, it takes TensorFloat-32 after all and says so only in its
log. Files of reduced precision need tensor cores, and with `use_tf32` at 0 they would lose the fused plans; what they
keep in fp32 depends on NVIDIA_TF32_OVERRIDE, which the backend sets for its process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saccade.service.errors import PlanRefused

_REDUCED_PRECISIONS = ("fp16", "bf16")
_WORTH_IT = 1.03  # another form must be that many times as fast as plain; less is noise
# cuDNN's heuristics open faster than its exhaustive search and chose kernels as fast on an H200.
_ALWAYS = {"cudnn_conv_algo_search": "HEURISTIC"}


@dataclass(frozen=True, slots=True)
class ProviderForm:
    """Options of the CUDA provider under one name."""

    name: str
    options: Mapping[str, str]


PLAIN = ProviderForm("plain", _ALWAYS)
NHWC_FUSED = ProviderForm("nhwc_fused", {**_ALWAYS, "prefer_nhwc": "1", "fuse_conv_bias": "1"})


@dataclass(frozen=True, slots=True)
class MeasuredForm:
    """How fast a form ran the largest batch, or why it could not."""

    form: ProviderForm
    images_per_s: float = 0.0
    failure: str = ""


def form_bytes(form: ProviderForm) -> bytes:
    """What a plan of ONNX Runtime holds, see `models/contract/plans.py`."""
    return form.name.encode()


def form_from(plan: bytes, precision: str) -> ProviderForm:
    """The form that a plan names. Raises PlanRefused where a file of this precision has no such form."""
    for form in forms_for(precision):
        if form_bytes(form) == plan:
            return form
    known = ", ".join(form.name for form in forms_for(precision))
    raise PlanRefused(f"the plan names no form of {precision} files; they have {known}")


def forms_for(precision: str) -> tuple[ProviderForm, ...]:
    """The forms that may serve a file of this precision, the plain one first."""
    return (PLAIN, NHWC_FUSED) if precision in _REDUCED_PRECISIONS else (PLAIN,)


def tf32_option(precision: str) -> str:
    """The value of `use_tf32` that makes a variant compute in the precision it is named after."""
    return "1" if precision in _REDUCED_PRECISIONS else "0"


def fastest(measured: Sequence[MeasuredForm]) -> ProviderForm:
    """Plain unless another form ran and is clearly faster. Where plain failed, the fastest of the others."""
    ran = [each for each in measured if not each.failure]
    plain = next((each for each in ran if each.form == PLAIN), None)
    best = max(ran, key=lambda each: each.images_per_s, default=None)
    if best is None:
        return PLAIN
    if plain is not None and best.images_per_s < _WORTH_IT * plain.images_per_s:
        return PLAIN
    return best.form
