"""Writes the picture that a network of task `image` answers: PNG, WebP, or the numbers' bytes."""

from __future__ import annotations

import binascii
import io
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import TaskSpec
from saccade.service.errors import BadParameter, Unprocessable

ImageFormat = Literal["png", "webp", "raw"]
FloatArray = NDArray[np.float32]

_WEBP_MAX_SIDE = 16_383
_TOP = 65_535  # the largest sample of a 16-bit PNG
_PNG_LEVEL = 1  # level 6 takes three times as long and saves a tenth


class Produced(msgspec.Struct, frozen=True, eq=False):
    """A written picture. Depth in a PNG is `offset + scale * sample`."""

    kind: Literal["image", "depth"]
    width: int
    height: int
    format: ImageFormat
    data: bytes
    dtype: str  # of `data` where the format is raw: uint8 or float32 (little-endian), rows first, colours last
    shape: tuple[int, ...]
    scale: float | None = None
    offset: float | None = None

    def json(self) -> dict[str, Any]:
        """The answer's field."""
        text = binascii.b2a_base64(self.data, newline=False).decode()
        entry: dict[str, Any] = {"width": self.width, "height": self.height, "format": self.format, "base64": text}
        if self.format == "raw":
            entry |= {"dtype": self.dtype, "shape": list(self.shape)}
        if self.scale is not None:
            entry |= {"scale": self.scale, "offset": self.offset}
        return {self.kind: entry}


def whole_answer(outputs: Sequence[NDArray[Any]], place: Geometry, spec: TaskSpec) -> FloatArray:
    """The answer to a picture that was resized to the input, at `spec.scale` times the picture's size; bars are cut.

    It may be a view of `outputs`.
    """
    (answer,) = outputs
    k = spec.scale
    rows = slice(place.top * k, (place.top + place.height) * k)
    seen = answer[rows, place.left * k : (place.left + place.width) * k]
    size = (place.source_width * k, place.source_height * k)
    if size == seen.shape[1::-1]:
        return seen
    planes = [seen] if seen.ndim == 2 else [seen[..., channel] for channel in range(seen.shape[2])]
    resized = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in planes]
    return resized[0] if seen.ndim == 2 else np.stack(resized, axis=-1)


def levels(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers from 0 to 1 as bytes."""
    return np.rint(picture.clip(0.0, 1.0) * 255.0).astype(np.uint8)


def produced(picture: FloatArray, spec: TaskSpec, form: ImageFormat) -> Produced:
    """Raises BadParameter for a format that cannot hold the picture. Slow: use a thread."""
    height, width = picture.shape[:2]
    if spec.picture == "depth":
        return _depth(picture, form)
    pixels = levels(picture)
    if form == "raw":
        data = pixels.tobytes()
    elif form == "webp":
        if max(width, height) > _WEBP_MAX_SIDE:
            raise BadParameter(f"the answer is {width}x{height}, and WebP ends at {_WEBP_MAX_SIDE}: ask for png or raw")
        data = _written(Image.fromarray(pixels), "WEBP", lossless=True, method=0)
    else:
        data = _written(Image.fromarray(pixels), "PNG", compress_level=_PNG_LEVEL)
    return Produced("image", width, height, form, data, "uint8", pixels.shape)


def _depth(picture: FloatArray, form: ImageFormat) -> Produced:
    height, width = picture.shape
    if form == "raw":
        return Produced("depth", width, height, form, picture.astype("<f4").tobytes(), "float32", picture.shape)
    if form == "webp":
        raise BadParameter("WebP has 8 bits per sample, which is too few for depth: ask for png or raw")
    least, most = float(picture.min()), float(picture.max())
    scale = (most - least) / _TOP
    if not np.isfinite(scale):
        raise Unprocessable("the depth of this picture spans more than a number can hold")
    samples = np.rint((picture - least) / (scale or 1.0)).astype(np.uint16)
    data = _written(Image.fromarray(samples), "PNG", compress_level=_PNG_LEVEL)
    return Produced("depth", width, height, form, data, "uint16", samples.shape, scale, least)


def _written(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
