"""Decoding on a device: the decoder's own code and kernels on host memory, against the CPU path."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.export.data.fidelity import photograph
from saccade.models.contract.preprocessing import UInt8Array, preprocess
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import BadImage, RuntimeMissing
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from saccade.service.vision.jpeg_header import MAX_GPU_PIXELS, EncodedImage, encoded_image
from saccade.service.worker.gpu_jpeg.decoder import (
    GROUP_BYTES,
    Codec,
    DeviceJpegDecoder,
    GpuJpegDecoder,
    device_bytes,
    groups,
)
from saccade.service.worker.gpu_jpeg.nvimagecodec import ON_CPU, NvImageCodec
from tests.support.host_device import HostCodec, HostDriver, HostLauncher
from tests.support.host_kernels import COMPILER, NO_COMPILER

needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

SHARE = 0.999  # of pixels within one level: the bound on preprocessing everywhere in this project
LIMITS = ImageLimits()
SPEC = PreprocessSpec(width=64, height=48, fit="letterbox")


def jpeg(width: int, height: int, seed: int = 0, mode: str = "RGB", **options: Any) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(photograph(width, height, seed)).convert(mode).save(encoded, "JPEG", **options)
    return encoded.getvalue()


def turned_jpeg(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(90, 61, seed=orientation, exif=exif)


def opened(data: bytes) -> EncodedImage:
    image = encoded_image(data, LIMITS)
    assert image is not None
    return image


def broken_scan() -> bytes:
    """A JPEG with a whole header and an end, and half of its scan gone."""
    data = jpeg(200, 150)
    return data[: len(data) // 2] + b"\xff\xd9"


def share_within_one_level(ours: UInt8Array, theirs: UInt8Array) -> float:
    """Of all pixels; a pixel's worst channel counts."""
    return float((np.abs(ours.astype(np.int16) - theirs).max(axis=2) <= 1).mean())


def on_cpu_path(data: bytes, spec: PreprocessSpec) -> UInt8Array:
    return preprocess(decode_image(data, LIMITS), spec)


def nvimagecodec_without_a_device() -> Codec:
    try:
        return NvImageCodec(ON_CPU, None, threads=1)
    except RuntimeMissing as error:
        pytest.skip(str(error))


@pytest.fixture(params=["libjpeg-turbo", "nvImageCodec's host decoder"])
def decoder(request: pytest.FixtureRequest) -> GpuJpegDecoder:
    codec = HostCodec() if request.param == "libjpeg-turbo" else nvimagecodec_without_a_device()
    return DeviceJpegDecoder("host", codec, HostDriver(), 0, HostLauncher())  # type: ignore[arg-type]


KINDS = {
    "4:4:4": jpeg(121, 83, subsampling=0),
    "4:2:2": jpeg(122, 83, subsampling=1),
    "4:2:0": jpeg(123, 85, subsampling=2),
    "grey": jpeg(97, 161, mode="L"),
    "tiny": jpeg(3, 2),
    "large": jpeg(901, 677),
    **{f"EXIF {orientation}": turned_jpeg(orientation) for orientation in range(1, 9)},
}


@needs_compiler
def test_images_of_every_kind_come_out_as_on_the_cpu_path(decoder: GpuJpegDecoder) -> None:
    images = [opened(data) for data in KINDS.values()]
    rows = np.full((len(images), 48, 64, 3), 55, np.uint8)

    done = decoder.decode_into(images, SPEC, list(rows))

    assert all(done)
    for name, image, row in zip(KINDS, images, rows, strict=True):
        assert share_within_one_level(row, on_cpu_path(image.data, SPEC)) >= SHARE, name


@needs_compiler
def test_bad_image_is_refused_alone() -> None:
    codec = HostCodec()
    decoder = DeviceJpegDecoder("host", codec, HostDriver(), 0, HostLauncher())  # type: ignore[arg-type]
    good = [jpeg(90, 70, seed) for seed in range(3)]
    images = [opened(data) for data in (good[0], broken_scan(), good[1], good[2])]
    rows = np.zeros((4, 48, 64, 3), np.uint8)

    done = decoder.decode_into(images, SPEC, list(rows))

    assert done == [True, False, True, True]
    alone = np.zeros((3, 48, 64, 3), np.uint8)
    decoder.decode_into([opened(data) for data in good], SPEC, list(alone))
    assert np.array_equal(rows[[0, 2, 3]], alone)


@needs_compiler
def test_garbage_behind_a_jpeg_header_is_refused_alone(decoder: GpuJpegDecoder) -> None:
    good = opened(jpeg(90, 70))
    garbage = EncodedImage(b"\xff\xd8\xff\xe0garbage\xff\xd9", 90, 70, 1)
    rows = np.zeros((2, 48, 64, 3), np.uint8)

    assert decoder.decode_into([garbage, good], SPEC, list(rows)) == [False, True]
    assert rows[1].any()


@needs_compiler
def test_image_of_another_size_than_its_header_says_is_refused(decoder: GpuJpegDecoder) -> None:
    image = replace(opened(jpeg(90, 70)), width=91)

    assert decoder.decode_into([image], SPEC, [np.zeros((48, 64, 3), np.uint8)]) == [False]


@needs_compiler
def test_batch_of_bad_images_only_writes_nothing(decoder: GpuJpegDecoder) -> None:
    rows = np.full((1, 48, 64, 3), 9, np.uint8)

    done = decoder.decode_into([EncodedImage(b"\xff\xd8\xff\xe0x\xff\xd9", 9, 9, 1)], SPEC, list(rows))

    assert done == [False]
    assert (rows == 9).all()


@needs_compiler
def test_batches_of_changing_sizes_do_not_mix(decoder: GpuJpegDecoder) -> None:
    # given buffers that grow, and that hold the last batch's images
    for count in (1, 5, 2, 6):
        images = [opened(jpeg(40 + 30 * index, 60, seed=count * 10 + index)) for index in range(count)]
        rows = np.zeros((count, 48, 64, 3), np.uint8)

        assert all(decoder.decode_into(images, SPEC, list(rows)))

        for image, row in zip(images, rows, strict=True):
            assert share_within_one_level(row, on_cpu_path(image.data, SPEC)) >= SHARE


@needs_compiler
def test_too_little_device_memory_leaves_images_to_the_cpu() -> None:
    decoder = DeviceJpegDecoder("host", HostCodec(), HostDriver(memory_bytes=1000), 0, HostLauncher())  # type: ignore[arg-type]
    rows = np.zeros((1, 48, 64, 3), np.uint8)

    assert decoder.decode_into([opened(jpeg(90, 70))], SPEC, list(rows)) == [False]


@needs_compiler
def test_closed_decoder_holds_no_memory_and_no_stream() -> None:
    driver = HostDriver()
    decoder = DeviceJpegDecoder("host", HostCodec(), driver, 0, HostLauncher())  # type: ignore[arg-type]
    decoder.decode_into([opened(jpeg(90, 70))], SPEC, [np.zeros((48, 64, 3), np.uint8)])

    decoder.close()

    assert (driver.open_blocks, driver.open_streams) == (0, 0)


@needs_compiler
def test_large_images_are_decoded_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "saccade.service.worker.gpu_jpeg.decoder.GROUP_BYTES", 2 * device_bytes(opened(jpeg(90, 70)), SPEC)
    )
    codec = HostCodec()
    decoder = DeviceJpegDecoder("host", codec, HostDriver(), 0, HostLauncher())  # type: ignore[arg-type]
    images = [opened(jpeg(90, 70, seed)) for seed in range(5)]
    rows = np.zeros((5, 48, 64, 3), np.uint8)

    assert decoder.decode_into(images, SPEC, list(rows)) == [True] * 5
    assert codec.calls == [2, 2, 1]


def test_groups_hold_what_fits_in_order() -> None:
    assert groups([5, 5, 11, 1, 9, 1], 10) == [[0, 1], [3, 4], [5]]
    assert groups([11], 10) == groups([], 10) == []


@needs_compiler
def test_image_that_would_fill_the_device_is_refused_alone() -> None:
    # given a high strip, which has few pixels and many lines
    strip, usual = EncodedImage(jpeg(9, 7), 2, 65_000, 1), opened(jpeg(90, 70))
    spec = PreprocessSpec(width=512, height=8, fit="stretch")
    decoder = DeviceJpegDecoder("host", HostCodec(), HostDriver(), 0, HostLauncher())  # type: ignore[arg-type]

    assert device_bytes(strip, spec) > GROUP_BYTES
    assert decoder.decode_into([strip, usual], spec, list(np.zeros((2, 8, 512, 3), np.uint8))) == [False, True]


# What an API process sends to a device at all


def test_header_gives_the_upright_size() -> None:
    image = opened(turned_jpeg(6))

    assert (image.width, image.height, image.orientation) == (90, 61, 6)
    assert image.upright_size == (61, 90)
    assert decode_image(image.data, LIMITS).shape == (90, 61, 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x89PNG\r\n\x1a\n", id="another format"),
        pytest.param(jpeg(90, 70, mode="CMYK"), id="CMYK"),
        pytest.param(jpeg(90, 70)[:-40], id="no end"),
        pytest.param(jpeg(90, 70, keep_rgb=True), id="plain RGB"),
    ],
)
def test_what_a_device_might_read_otherwise_stays_with_the_cpu(data: bytes) -> None:
    assert encoded_image(data, LIMITS) is None


def test_large_image_stays_with_the_cpu() -> None:
    wide = opened(jpeg(40, 30))
    frame = wide.data.index(b"\xff\xc0")  # height and width follow behind length and precision
    data = bytearray(wide.data)
    data[frame + 5 : frame + 9] = (4001).to_bytes(2, "big") + (4000).to_bytes(2, "big")

    assert MAX_GPU_PIXELS < 4001 * 4000 <= LIMITS.max_pixels
    assert encoded_image(bytes(data), LIMITS) is None


def test_too_many_pixels_are_refused_before_decoding() -> None:
    with pytest.raises(BadImage, match="90x70"):
        encoded_image(jpeg(90, 70), ImageLimits(max_pixels=90 * 70 - 1))


def test_damaged_header_is_left_to_the_cpu_path() -> None:
    assert encoded_image(b"\xff\xd8\xff\xe0garbage\xff\xd9", LIMITS) is None
