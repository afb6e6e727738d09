"""Answers whose body is the picture itself: task `image`, one picture per request, asked for by `Accept`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from saccade.models.contract.specs import Task
from saccade.service.api.catalog import ServingTarget
from saccade.service.api.predictor import ImageAnswer
from saccade.service.errors import BadParameter
from saccade.service.vision.parameters import Parameters
from saccade.service.vision.produced import ImageFormat, Produced

PICTURE_TYPES: Mapping[bytes, ImageFormat] = {
    b"image/png": "png",
    b"image/webp": "webp",
    b"application/octet-stream": "raw",
}
_JSON_TYPES = (b"application/json", b"application/*", b"*/*")
_ANY_IMAGE = (b"image/png", b"image/webp")
_QUALITY = re.compile(rb"[01](\.\d{0,3})?")


def accepted_picture(accept: bytes, task: Task) -> ImageFormat | None:
    """The format that `Accept` (RFC 9110, 12.5.1) likes best, of equals the first; None for JSON and other tasks.

    What is not answered is skipped. `image/*` is a PNG, or a WebP for who refuses that.
    """
    if task is not Task.IMAGE or not accept:
        return None
    named = [_kind_and_quality(each) for each in accept.split(b",")]
    refused = {kind for kind, quality in named if quality <= 0}
    for kind, quality in sorted(named, key=lambda each: -each[1]):
        if quality > 0 and kind in _JSON_TYPES:
            return None
        kinds = _ANY_IMAGE if kind == b"image/*" else (kind,)
        taken = next((PICTURE_TYPES[each] for each in kinds if each in PICTURE_TYPES and each not in refused), None)
        if quality > 0 and taken is not None:
            return taken
    return None


def _kind_and_quality(entry: bytes) -> tuple[bytes, float]:
    """A media type in small letters, and its weight; 1 where it has none that can be read."""
    kind, *parameters = (part.strip().lower() for part in entry.split(b";"))
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name == b"q" and _QUALITY.fullmatch(value):
            return kind, float(value)
    return kind, 1.0


def as_accepted(accepted: ImageFormat, parameters: Parameters, images: int) -> Parameters:
    """Raises BadParameter for several pictures."""
    if images > 1:
        raise BadParameter(f"{images} pictures, and an answer that is a picture holds one: accept application/json")
    return replace(parameters, image_format=accepted)


def picture_type(picture: Produced) -> bytes:
    return next(kind for kind, form in PICTURE_TYPES.items() if form == picture.format)


def picture_headers(picture: Produced, answer: ImageAnswer, target: ServingTarget) -> list[tuple[bytes, bytes]]:
    """What the JSON answer says beside the picture."""
    named = {
        "model": target.key.model,
        "version": str(target.key.version),
        "variant": answer.variant,
        "image-size": f"{picture.width}x{picture.height}",
        "image-dtype": picture.dtype,
        "depth-scale": picture.scale,
        "depth-offset": picture.offset,
        "warning": answer.warning,
    }
    return [
        (f"x-saccade-{name}".encode(), str(value).encode("latin-1", "replace"))
        for name, value in named.items()
        if value not in (None, "")
    ]
