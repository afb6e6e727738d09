"""Draws answers over pictures with Pillow, in the playground's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_COLOURS = (
    *("#ff6b6b", "#4cc38a", "#ffc53d", "#5b9bff", "#c98bf7", "#2fd3d3"),
    *("#ff9650", "#f983c2", "#a9d83b", "#a698fb", "#7cc7ff", "#dfb088"),
)
_INK = (16, 18, 20)
_MASK_OPACITY = 0.5
_SHOWN_CLASSES = 3
_HEAT_OPACITY = 0.75  # where the heat is highest


class _Scored(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def class_id(self) -> int: ...
    @property
    def score(self) -> float: ...


class _Boxed(_Scored, Protocol):
    @property
    def box(self) -> tuple[float, float, float, float]: ...


class _Masked(Protocol):
    @property
    def class_id(self) -> int: ...
    @property
    def mask(self) -> NDArray[np.bool_]: ...


def drawn_classes(image: Image.Image, classes: Sequence[_Scored]) -> Image.Image:
    """Draws the best labels into the upper left corner of `image` and returns it."""
    top = 0.0
    for item in classes[:_SHOWN_CLASSES]:
        top = _draw_label(image, f"{item.label} {item.score:.2f}", 0.0, top, _colour(item.class_id))
    return image


def drawn_objects(image: Image.Image, objects: Sequence[_Boxed]) -> Image.Image:
    """Draws boxes into `image` and returns it; the best one lies on top."""
    from PIL import ImageDraw

    canvas = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 400))
    for item in reversed(objects):
        x1, y1, x2, y2 = item.box
        colour = _colour(item.class_id)
        canvas.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colour, width=width)
        _draw_label(image, f"{item.label} {item.score:.2f}", x1, y1, colour)
    return image


def drawn_segments(image: Image.Image, segments: Sequence[_Masked]) -> Image.Image:
    """A new image with each mask in its class's colour. Raises ValueError for a picture of another size."""
    import numpy as np
    from PIL import Image

    pixels = np.array(image)
    for segment in segments:
        mask = segment.mask
        if mask.shape != pixels.shape[:2]:
            raise ValueError(f"the answer is of a picture {mask.shape[::-1]}, this one is {image.size}")
        colour = np.array(_colour(segment.class_id))
        pixels[mask] = (1 - _MASK_OPACITY) * pixels[mask] + _MASK_OPACITY * colour
    return Image.fromarray(pixels)


def drawn_heat(image: Image.Image, heat: NDArray[np.uint8]) -> Image.Image:
    """A new image that glows where `heat` (height, width) is high, red to yellow."""
    import numpy as np
    from PIL import Image

    share = (heat / np.float32(255))[..., np.newaxis]
    glow = np.concatenate([np.full_like(share, 255), 255 * share, np.zeros_like(share)], axis=2)
    opacity = _HEAT_OPACITY * share
    pixels = (1 - opacity) * np.array(image.convert("RGB"), np.float32) + opacity * glow
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _colour(class_id: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(_COLOURS[class_id % len(_COLOURS)][1:])
    return red, green, blue


def _draw_label(image: Image.Image, text: str, left: float, top: float, colour: tuple[int, int, int]) -> float:
    """Draws dark text on its colour, moved into the image, and returns its lower edge."""
    from PIL import ImageDraw, ImageFont

    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(10, round(max(image.size) / 50)))
    x1, y1, x2, y2 = canvas.textbbox((0, 0), text, font=font)
    left = max(0.0, min(left, image.width - x2 - 4))
    top = max(0.0, min(top, image.height - y2 - 4))
    canvas.rectangle((left, top, left + x2 - min(0, x1) + 4, top + y2 - min(0, y1) + 4), fill=colour)
    canvas.text((left + 2, top + 2), text, fill=_INK, font=font)
    return top + y2 + 4
