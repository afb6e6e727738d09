"""Makes clean pictures worse, as networks that restore them are trained and measured: noisy, or smaller."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8Array = NDArray[np.uint8]


def worse_picture(clean: UInt8Array, scale: int, noise: float, key: bytes) -> UInt8Array:
    """(h / scale, w / scale, 3) of `clean` (h, w, 3): reduced by Pillow's bicubic filter, then with noise.

    noise: standard deviation in levels. key: equal keys give equal noise, so that a file is always made worse alike.
    """
    height, width = clean.shape[:2]
    image = Image.fromarray(clean)
    small = image.resize((width // scale, height // scale), Image.Resampling.BICUBIC) if scale > 1 else image
    pixels = np.asarray(small)
    if not noise:
        return pixels
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))
    noisy = pixels + rng.standard_normal(pixels.shape, np.float32) * np.float32(noise)
    rounded: UInt8Array = noisy.round().clip(0, 255).astype(np.uint8)
    return rounded
