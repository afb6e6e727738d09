"""Finds the mask prototypes among a file's outputs."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_signs import OutputSign
from saccade.models.contract.specs import MaskSpec


def prototypes_of(outputs: tuple[OutputSign, ...]) -> OutputSign | None:
    """The output of mask prototypes (channels, h, w), beside one of rows."""
    wide = [output for output in outputs if len(output.shape) == 3]
    return wide[0] if len(outputs) == 2 and len(wide) == 1 else None


def mask_spec(file: str, outputs: tuple[OutputSign, ...], prototypes: OutputSign | None) -> MaskSpec:
    """Raises SourceError where there are no prototypes of a known shape."""
    if prototypes is None:
        raise SourceError(
            f"{file}: task segment-instances needs rows of boxes with mask coefficients, and prototypes "
            f"(batch, coefficients, h, w); found {'; '.join(str(output) for output in outputs)}"
        )
    if None in prototypes.shape:
        raise SourceError(f"{file} leaves the shape of {prototypes} open; write width and height in `preprocess`")
    channels, height, width = (int(side or 0) for side in prototypes.shape)
    return MaskSpec(form="prototypes", channels=channels, height=height, width=width)
