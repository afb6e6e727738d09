"""Times one photograph's resize and its distance from Pillow: `python -m tests.load.resize`.

Pillow's pixels are what torchvision and timm feed on PIL images; torch's are what transformers feeds. kornia_rs and
pyvips are measured where they are installed; the project needs neither. Pin it to one core to compare figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.fidelity import SIZES, photograph
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import PreprocessSpec, Resample

UInt8Array = NDArray[np.uint8]
Resize = Callable[[UInt8Array, Resample], UInt8Array]

SIDE = 224
FILTERS: tuple[Resample, ...] = ("bilinear", "bicubic")
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_REPEATS = 100


def main() -> None:
    """Prints a Markdown table."""
    pictures = [photograph(width, height, seed) for seed, (width, height) in enumerate(SIZES)]
    timed = photograph(500, 375, seed=0)
    print(f"500x375 to {SIDE}x{SIDE}, median of {_REPEATS}; differences over {len(pictures)} images, in levels\n")
    print("| resize | filter | ms | largest difference from Pillow | pixels beyond one level |")
    print("|---|---|---|---|---|")
    for name, resize in candidates():
        for resample in FILTERS:
            levels = [_difference(resize(picture, resample), by_pillow(picture, resample)) for picture in pictures]
            every = np.concatenate([level.ravel() for level in levels])
            row = (name, resample, f"{_median_ms(resize, timed, resample):.2f}", str(every.max()))
            print(f"| {' | '.join(row)} | {(every > 1).mean():.4%} |", flush=True)


def candidates() -> Iterator[tuple[str, Resize]]:
    """Name and function of what is installed."""
    yield "saccade", by_saccade
    yield "Pillow", by_pillow
    for module, resize in (("torch", by_torch), ("kornia_rs", by_kornia), ("pyvips", by_vips)):
        if find_spec(module) is not None:
            yield module, resize


def by_saccade(picture: UInt8Array, resample: Resample) -> UInt8Array:
    return preprocess(picture, PreprocessSpec(width=SIDE, height=SIDE, fit="stretch", resample=resample))


def by_pillow(picture: UInt8Array, resample: Resample) -> UInt8Array:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), _PILLOW[resample]))


def by_torch(picture: UInt8Array, resample: Resample) -> UInt8Array:
    import torch  # seconds; only where it is measured

    torch.set_num_threads(1)
    planes = torch.from_numpy(picture).permute(2, 0, 1).contiguous()[None]
    resized = torch.nn.functional.interpolate(planes, (SIDE, SIDE), mode=resample, align_corners=False, antialias=True)
    pixels: UInt8Array = resized[0].permute(1, 2, 0).numpy()
    return pixels


def by_kornia(picture: UInt8Array, resample: Resample) -> UInt8Array:
    import kornia_rs

    place = getattr(kornia_rs, "imgproc", kornia_rs)  # a module of its own since 0.2
    return np.asarray(place.resize(picture, (SIDE, SIDE), resample))


def by_vips(picture: UInt8Array, resample: Resample) -> UInt8Array:
    import pyvips

    height, width = picture.shape[:2]
    image = pyvips.Image.new_from_memory(picture.data, width, height, 3, "uchar")
    kernel = {"bilinear": "linear", "bicubic": "cubic"}[resample]
    resized = image.resize(SIDE / width, vscale=SIDE / height, kernel=kernel, gap=0)
    return np.ndarray((SIDE, SIDE, 3), np.uint8, resized.write_to_memory())


def _difference(ours: UInt8Array, theirs: UInt8Array) -> NDArray[np.int16]:
    """(h, w): the largest of the channels."""
    difference: NDArray[np.int16] = np.abs(ours.astype(np.int16) - theirs.astype(np.int16)).max(axis=2)
    return difference


def _median_ms(resize: Resize, picture: UInt8Array, resample: Resample) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        resize(picture, resample)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


if __name__ == "__main__":
    main()
