"""Pictures that are foreign to most networks, and usual damage to pictures; always the same, and without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pictures = NDArray[np.uint8]  # (n, height, width, 3)

_PER_KIND = 60
_BLUR, _NOISE, _CONTRAST = 1 / 32, 50.0, 0.3  # of the shorter side; levels; share of the contrast that is left


def foreign_pictures(height: int, width: int) -> Mapping[str, Pictures]:
    """Crops of three photographs that come with libraries, drawn textures, and noise."""
    rng = np.random.default_rng(0)
    draw: dict[str, Callable[[], Pictures]] = {
        "photographs": lambda: np.stack([_crop(photo, rng, height, width) for photo in _photographs() * 20]),
        "textures": lambda: np.stack([_texture(rng, height, width) for _ in range(_PER_KIND)]),
        "noise": lambda: rng.integers(0, 256, (_PER_KIND, height, width, 3), np.uint8),
    }
    return {name: drawn() for name, drawn in draw.items()}


def damaged(pictures: Pictures) -> Mapping[str, Pictures]:
    """The same pictures blurred, with noise, and with little contrast."""
    rng = np.random.default_rng(0)
    blur = ImageFilter.GaussianBlur(min(pictures.shape[1:3]) * _BLUR)
    levels = pictures.astype(np.float32)
    return {
        "blur": np.stack([np.asarray(Image.fromarray(picture).filter(blur)) for picture in pictures]),
        "added noise": _bytes(levels + rng.normal(0, _NOISE, levels.shape)),
        "low contrast": _bytes(levels * _CONTRAST + 128 * (1 - _CONTRAST)),
    }


def _photographs() -> list[Pictures]:
    import matplotlib as mpl  # with scikit-learn, heavy, and only this needs their pictures
    from sklearn.datasets import load_sample_images

    with Image.open(Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")) as portrait:
        return [*load_sample_images().images, np.asarray(portrait.convert("RGB"))]


def _crop(photo: Pictures, rng: Generator, height: int, width: int) -> Pictures:
    side = int(rng.integers(min(photo.shape[:2]) // 3, min(photo.shape[:2])))
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    square = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(square.resize((width, height), Image.Resampling.BILINEAR))


def _texture(rng: Generator, height: int, width: int) -> Pictures:
    """Clouds or tiles of a few random colours."""
    cells = int(rng.integers(3, 24))
    resample = Image.Resampling.NEAREST if rng.random() < 0.5 else Image.Resampling.BICUBIC
    colours = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    return np.asarray(colours.resize((width, height), resample))


def _bytes(levels: NDArray[np.floating]) -> Pictures:
    pixels: Pictures = np.clip(levels, 0, 255).astype(np.uint8)
    return pixels
