"""Bounds what a JSON body may hold before it is parsed, because objects in memory are many times as large as text."""

from __future__ import annotations

from saccade.service.errors import BadRequest

Scalar = str | int | float | bool | None  # the values of parameters
_PARAMETERS = 64  # objects and texts beside those of the images


def ensure_few_entries(body: bytes, images: int) -> None:
    """Raises BadRequest for more objects or texts than so many images and their parameters need."""
    objects, quotes = images + _PARAMETERS, 2 * (4 * images + 4 * _PARAMETERS)
    if body.count(b"{") > objects or body.count(b'"') > quotes:
        raise BadRequest(f"the JSON body has more entries than {images} images need, the most in one request")
