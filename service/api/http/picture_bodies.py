"""Answers whose body is the picture itself: task `image`, one picture per request, asked for by `Accept`."""

from __future__ import annotations

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


def accepted_picture(accept: bytes, task: Task) -> ImageFormat | None:
    """The format that `Accept` names first; None for JSON, other types and other tasks."""
    if task is not Task.IMAGE:
        return None
    return PICTURE_TYPES.get(accept.partition(b",")[0].partition(b";")[0].strip().lower())


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
