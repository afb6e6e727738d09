"""Finds the mask prototypes among a file's outputs, and reads how dense outputs lie."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import are_whole
from saccade.export.sources.onnx_signs import FileSigns, OutputSign
from saccade.models.contract.specs import MaskSpec

_SKEW = 1.2  # of a cell's sides


def is_channels_last(signs: FileSigns, output: OutputSign) -> bool:
    """Whether a dense output is (h, w, channels): as the input is, unless only the other order fits the picture."""
    if len(output.shape) != 3:
        return False
    usual = signs.signature.layout == "nhwc"
    if None in output.shape:
        return usual
    first, second, third = (int(side or 0) for side in output.shape)
    fits = {True: has_proportions(signs, second, first), False: has_proportions(signs, third, second)}
    return usual if fits[usual] or not fits[not usual] else not usual


def has_proportions(signs: FileSigns, width: int, height: int) -> bool:
    """Whether a map of this size has the picture's proportions, nearly."""
    across, down = signs.probed[0] / width, signs.probed[1] / height
    return max(across, down) <= _SKEW * min(across, down)


def is_map_of_ids(signs: FileSigns, output: OutputSign, labels: int | None = None) -> bool:
    """Whether a dense output is a class number per pixel, (h, w) or with one channel, whole numbers in float too.

    Whole numbers of 0 and 1 in float are a foreground as well, which answers the same, unless there are more labels.
    """
    if len(output.shape) == 2:
        return True
    if len(output.shape) != 3 or output.shape[2 if is_channels_last(signs, output) else 0] != 1:
        return False
    if "int" in output.tensor.type or output.made_by == "ArgMax":
        return True
    values = output.values
    if values is None or not are_whole(values) or values.min(initial=0) < -1:
        return False
    return labels not in (None, 2) or bool(values.max(initial=0) > 1)


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
