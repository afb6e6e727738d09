"""Compares the pixels that the server feeds a network with those of the library that trained it.

The images are generated, so no files are needed. They resemble photographs (slow colour changes, hard edges, noise) and
have common and odd sizes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from saccade.export.network import LibraryTransform
from saccade.models.contract.preprocessing import Geometry, UInt8Array, preprocess_into
from saccade.models.contract.specs import Frozen, Normalisation, PreprocessSpec
from saccade.service.vision.image_decoder import ImageLimits, decode_image

Levels = NDArray[np.float32]

SIZES = (  # (width, height) of common photographs, odd sizes, extreme shapes, tiny and large images
    *((500, 375), (375, 500), (640, 480), (427, 640), (333, 500), (1023, 683), (683, 1021), (1281, 719)),
    *((225, 225), (301, 257), (255, 289), (321, 305), (97, 161), (193, 167), (449, 447), (799, 801)),
    *((31, 47), (63, 41), (19, 17), (224, 96), (73, 224), (1201, 301), (257, 903), (901, 67)),
    *((59, 701), (1201, 899), (899, 1203), (1599, 1065)),
)
_ONE_LEVEL = 1.01  # converting float32 to levels and back is exact to a thousandth of a level


class FidelityReport(Frozen):
    """How far the model input is from the library's over all compared images, in levels of 0..255."""

    transform: str
    images: int  # number of compared images
    share_within_one_level: float = Field(ge=0, le=1)  # share of all pixels, judged by each pixel's worst channel
    worst_image_share: float = Field(ge=0, le=1)  # the same share in the image where it is smallest
    worst_image: str  # width x height of that image
    max_difference: float
    failures: tuple[str, ...] = ()  # reasons for images that could not be compared
    beyond_canvas: tuple[str, ...] = ()  # images that the library would resize beyond the graph's fixed input

    def reaches(self, share: float) -> bool:
        """Tells whether every image could be compared and at least `share` of all pixels lies within one level."""
        return not self.failures and self.images > 0 and self.share_within_one_level >= share


@dataclass(frozen=True, slots=True)
class _Difference:
    """The largest difference among the channels of each compared pixel of one image."""

    name: str
    levels: Levels

    @property
    def share(self) -> float:
        return float((self.levels <= _ONE_LEVEL).mean())


class _NotComparableError(Exception):
    """The library's output has another size; the message names both."""


class _BeyondCanvasError(_NotComparableError):
    """The library's output is larger than the graph's input can be."""


def measure_fidelity(
    preprocess: PreprocessSpec,
    normalisation: Normalisation,
    transform: LibraryTransform,
    transform_name: str = "the library's transform",
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> FidelityReport:
    """Decodes and resizes as the server does, and compares with `transform` of the same image.

    For a letterbox only the area of the image itself is compared, because libraries leave bars out, pad to other sizes
    or pad after normalisation. All other rules are compared whole, including padding around small images.
    """
    compared: list[_Difference] = []
    failures: list[str] = []
    beyond: list[str] = []
    for seed, (width, height) in enumerate(sizes):
        picture = photograph(width, height, seed)
        name = f"{width}x{height}"
        try:
            compared.append(_Difference(name, _difference(picture, preprocess, normalisation, transform)))
        except _BeyondCanvasError as error:
            beyond.append(f"{name}: {error}")
        except Exception as error:  # A library's transform may raise anything; the report names the image.
            failures.append(f"{name}: {error}")
    worst = min(compared, key=lambda difference: difference.share, default=None)
    pixels = np.concatenate([difference.levels.ravel() for difference in compared] or [np.zeros(0, np.float32)])
    return FidelityReport(
        transform=transform_name,
        images=len(compared),
        share_within_one_level=float((pixels <= _ONE_LEVEL).mean()) if pixels.size else 0.0,
        worst_image_share=worst.share if worst else 0.0,
        worst_image=worst.name if worst else "none",
        max_difference=round(float(pixels.max(initial=0.0)), 3),
        failures=tuple(failures),
        beyond_canvas=tuple(beyond),
    )


def _difference(
    picture: UInt8Array, preprocess: PreprocessSpec, normalisation: Normalisation, transform: LibraryTransform
) -> Levels:
    served, place = _served_input(picture, preprocess)
    wanted = _levels(transform(Image.fromarray(picture)), normalisation)
    ours, theirs = _same_area(served, wanted, place, preprocess)
    difference: Levels = np.abs(ours.astype(np.float32) - theirs).max(axis=2)
    return difference


def _served_input(picture: UInt8Array, preprocess: PreprocessSpec) -> tuple[UInt8Array, Geometry]:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG", compress_level=0)
    pixels = decode_image(encoded.getvalue(), ImageLimits())
    out = np.empty((preprocess.height, preprocess.width, 3), np.uint8)
    return out, preprocess_into(pixels, preprocess, out)


def _levels(normalised: NDArray[np.float32], normalisation: Normalisation) -> Levels:
    """Converts normalised (3, h, w) network input back to (h, w, 3) levels in 0..255."""
    if normalised.ndim != 3 or normalised.shape[0] != 3:
        raise _NotComparableError(f"the library gives shape {normalised.shape}, not (3, height, width)")
    mean, std = np.array([normalisation.mean, normalisation.std], np.float32)
    levels: Levels = (normalised.transpose(1, 2, 0) * std + mean) * 255
    return levels


def _same_area(
    served: UInt8Array, wanted: Levels, place: Geometry, preprocess: PreprocessSpec
) -> tuple[UInt8Array, Levels]:
    """Cuts both arrays to the area that shows the same pixels. Raises _NotComparableError."""
    height, width = wanted.shape[:2]
    if preprocess.fit != "letterbox":
        if (height, width) != served.shape[:2]:
            raise _NotComparableError(f"the library gives {width}x{height}, we {served.shape[1]}x{served.shape[0]}")
        return served, wanted
    rows = slice(place.top, place.top + place.height)
    columns = slice(place.left, place.left + place.width)
    image = served[rows, columns]
    if (height, width) == served.shape[:2]:
        return image, wanted[rows, columns]
    if (height, width) == image.shape[:2]:
        return image, wanted
    if height > served.shape[0] or width > served.shape[1]:
        raise _BeyondCanvasError(
            f"the library gives {width}x{height}, the input of the graph is {served.shape[1]}x{served.shape[0]}"
        )
    if preprocess.anchor == "top_left" and _is_bar_beyond(wanted, place.width, place.height):
        return image, wanted[: place.height, : place.width]
    raise _NotComparableError(f"the library gives {width}x{height}, we {place.width}x{place.height}")


def _is_bar_beyond(levels: Levels, width: int, height: int) -> bool:
    """Tells whether `levels` is larger than width x height and has one colour right of or below that area."""
    if levels.shape[0] < height or levels.shape[1] < width:
        return False
    beyond = np.concatenate([levels[height:].reshape(-1, 3), levels[:, width:].reshape(-1, 3)])
    return beyond.size > 0 and bool((np.ptp(beyond, axis=0) == 0).all())


def photograph(width: int, height: int, seed: int) -> UInt8Array:
    """Draws (height, width, 3): colour waves from coarse to fine, blocks with hard edges, and sensor noise."""
    random = np.random.default_rng(seed)
    frequencies = random.uniform(-1, 1, (3, 2, 7)).astype(np.float32) * 2 ** np.arange(7, dtype=np.float32)
    phases = random.uniform(0, 2 * np.pi, (3, 7, 1)).astype(np.float32)
    across = np.sin(np.linspace(0, 2 * np.pi, width, dtype=np.float32) * frequencies[:, 0, :, np.newaxis] + phases)
    down = np.cos(np.linspace(0, 2 * np.pi, height, dtype=np.float32) * frequencies[:, 1, :, np.newaxis])
    strengths = 48 / 1.5 ** np.arange(7, dtype=np.float32)[:, np.newaxis]
    waves = (down * strengths).transpose(0, 2, 1) @ across
    picture = np.ascontiguousarray(128 + waves.transpose(1, 2, 0))
    for _ in range(12):
        left, top = random.integers(0, width), random.integers(0, height)
        picture[top : top + height // 5 + 1, left : left + width // 6 + 1] = random.integers(0, 256, 3)
    picture += random.standard_normal((height, width, 1), np.float32) * 6
    return picture.round().clip(0, 255).astype(np.uint8)
