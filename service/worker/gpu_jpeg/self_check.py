"""Compares a device's decoder with the CPU path before it serves, by the code that serves requests.

Every image is drawn and encoded here, so the check needs no files. The images cover the kinds of JPEG that
`jpeg_header.py` lets a device decode (chroma, grey, odd sides, EXIF orientations). The check also makes sure that a bad
image does not change the other images of its batch.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from saccade.models.contract.preprocessing import preprocess_into
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from saccade.service.vision.jpeg_header import EncodedImage, encoded_image
from saccade.service.worker.gpu_jpeg.choice import FAITHFUL_SHARE, Fidelity
from saccade.service.worker.gpu_jpeg.decoder import GpuJpegDecoder

UInt8Array = NDArray[np.uint8]
Exclusive = Callable[[], AbstractContextManager[object]]

_PHOTOGRAPH = (500, 375)  # the size that the project's other decoding figures are measured with
_SPEED_BATCH = 32
_CPU_SECONDS = 0.3  # about a thousand images on two cores
_DEVICE_BATCHES = 8  # each holds the device for one batch, and traffic runs in between
_LIMITS = ImageLimits()


@lru_cache(1)
def check_images() -> dict[str, EncodedImage]:
    """Returns an image of every kind that a device may decode, by name."""
    kinds = {
        "4:4:4": _encoded(501, 377, subsampling=0),
        "4:2:2": _encoded(333, 500, subsampling=1),
        "4:2:0": _encoded(640, 481, subsampling=2),
        "4:2:0, high quality": _encoded(427, 640, subsampling=2, quality=97),
        "grey": _encoded(299, 301, mode="L"),
        "small": _encoded(37, 23),
        "large": _encoded(1281, 961),
        **{f"EXIF orientation {turn}": _encoded(201 + turn, 150, orientation=turn) for turn in (2, 3, 4, 5, 6, 7, 8)},
    }
    return {name: _opened(data) for name, data in kinds.items()}


@lru_cache(1)
def photograph() -> bytes:
    """Returns a usual JPEG: baseline, 4:2:0, of the size that speed is measured with."""
    return _encoded(*_PHOTOGRAPH)


def fidelity_of(decoder: GpuJpegDecoder, spec: PreprocessSpec, exclusive: Exclusive) -> Fidelity:
    """Compares the decoder's pixels under `spec` with the CPU path's, and checks how it handles bad images."""
    images = check_images()
    with exclusive():
        rows, done = _decoded(decoder, list(images.values()), spec)
    refused = [name for name, is_done in zip(images, done, strict=True) if not is_done]
    if refused:
        return Fidelity(0.0, refused[0], f"cannot decode {', '.join(refused)}")
    shares = {
        name: _share_within_one_level(row, on_cpu(image, spec))
        for (name, image), row in zip(images.items(), rows, strict=True)
    }
    worst = min(shares, key=lambda name: shares[name])
    with exclusive():
        problem = _problem_with_bad_images(decoder, list(images.values())[:2], list(rows[:2]), spec)
    return Fidelity(shares[worst], worst, problem)


def on_cpu(image: EncodedImage, spec: PreprocessSpec) -> UInt8Array:
    """Returns the pixels (spec.height, spec.width, 3) that an API process would write."""
    out = np.empty((spec.height, spec.width, 3), np.uint8)
    preprocess_into(decode_image(image.data, _LIMITS), spec, out)
    return out


def cpu_images_per_s(spec: PreprocessSpec, threads: int) -> float:
    """Measures the speed of `threads` image threads together, for about a third of a second."""
    image = _opened(photograph())
    on_cpu(image, spec)
    until_s = time.perf_counter() + _CPU_SECONDS

    def work(_: int) -> int:
        count = 0
        while time.perf_counter() < until_s:
            on_cpu(image, spec)
            count += 1
        return count

    start_s = time.perf_counter()
    with ThreadPoolExecutor(threads, "jpeg-measure") as pool:
        total = sum(pool.map(work, range(threads)))
    return total / (time.perf_counter() - start_s)


def device_images_per_s(decoder: GpuJpegDecoder, spec: PreprocessSpec, exclusive: Exclusive) -> float:
    """Measures the speed by the median batch, with all steps of serving except the network."""
    images = [_opened(photograph())] * _SPEED_BATCH
    seconds = []
    for _ in range(_DEVICE_BATCHES + 1):
        with exclusive():
            start_s = time.perf_counter()
            _decoded(decoder, images, spec)
            seconds.append(time.perf_counter() - start_s)
    return _SPEED_BATCH / float(np.median(seconds[1:]))  # the first batch allocates memory


def _problem_with_bad_images(
    decoder: GpuJpegDecoder, good: Sequence[EncodedImage], expected: Sequence[UInt8Array], spec: PreprocessSpec
) -> str:
    """Returns what goes wrong in a batch with bad images; empty when nothing does."""
    first, second = good
    half = first.data[: len(first.data) // 2] + b"\xff\xd9"  # may be decoded, with the missing part grey
    noise = np.random.default_rng(0).bytes(2000)
    bad = [
        EncodedImage(half, first.width, first.height, 1),
        EncodedImage(b"\xff\xd8\xff\xe0" + noise + b"\xff\xd9", 64, 64, 1),
    ]
    rows, done = _decoded(decoder, [first, *bad, second], spec)
    if done[2]:
        return "takes noise for an image"
    if not (done[0] and done[3]):
        return "refuses good images beside bad ones"
    # The pixels need not be equal bit by bit: a device may decode the same image differently in another batch.
    beside = [_share_within_one_level(row, alone) for row, alone in zip((rows[0], rows[3]), expected, strict=True)]
    if min(beside) < FAITHFUL_SHARE:
        return "gives other pixels beside bad images"
    return ""


def _decoded(
    decoder: GpuJpegDecoder, images: Sequence[EncodedImage], spec: PreprocessSpec
) -> tuple[UInt8Array, list[bool]]:
    rows = np.zeros((len(images), spec.height, spec.width, 3), np.uint8)
    return rows, decoder.decode_into(images, spec, list(rows))


def _share_within_one_level(ours: UInt8Array, theirs: UInt8Array) -> float:
    """Returns the share of pixels whose channels all differ by at most one level."""
    return float((np.abs(ours.astype(np.int16) - theirs).max(axis=2) <= 1).mean())


def _opened(data: bytes) -> EncodedImage:
    image = encoded_image(data, _LIMITS)
    assert image is not None  # the image was drawn here, within all limits
    return image


def _encoded(
    width: int,
    height: int,
    mode: str = "RGB",
    subsampling: int = 2,
    quality: int = 90,
    orientation: int = 1,
) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image = Image.fromarray(_drawn(width, height)).convert(mode)
    chroma = {} if mode == "L" else {"subsampling": subsampling}
    image.save(buffer, "JPEG", quality=quality, exif=exif, **chroma)
    return buffer.getvalue()


def _drawn(width: int, height: int) -> UInt8Array:
    """Draws gradients, fine texture, hard edges and noise, on which decoders and resizes differ."""
    random = np.random.default_rng(width * height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / (9 + 4 * channel)) + np.cos(y / (7 + 3 * channel) - channel) for channel in range(3)]
    picture = 128 + 40 * np.stack(waves, axis=2)
    for _ in range(8):
        left, top = random.integers(0, width), random.integers(0, height)
        picture[top : top + height // 5 + 1, left : left + width // 6 + 1] = random.integers(0, 256, 3)
    picture += random.standard_normal((height, width, 1), np.float32) * 6
    pixels: UInt8Array = picture.round().clip(0, 255).astype(np.uint8)
    return pixels
