"""Pictures that every other program opens: Pillow's pixels, whichever decoder reads them; work bounded beforehand."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.service.errors import BadImage, SettingsError, UnsupportedMedia
from saccade.service.vision.image_decoder import ImageLimits, decode_image, read_image, small_jpeg_header
from saccade.service.vision.jpeg_header import encoded_image
from saccade.service.vision.jpeg_segments import jpeg_segments, without_metadata
from saccade.service.vision.more_formats import opened_plugin
from tests.support.images import encoded
from tests.support.odd_pictures import (
    REFUSED,
    TAKEN,
    TURNED_XMP,
    after_start,
    app1,
    before,
    exif,
    grey16,
    jpeg,
    picture,
    pillow_pixels,
    with_chunk,
)

LIMITS = ImageLimits()
LEVELS = 2  # between two builds of the same library


@pytest.mark.parametrize("kind", TAKEN)
def test_odd_picture_has_pillows_pixels(kind: str) -> None:
    data, expected = TAKEN[kind]

    pixels = decode_image(data, LIMITS)

    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= LEVELS


@pytest.mark.parametrize("kind", REFUSED)
def test_picture_that_cannot_be_used_is_refused_in_plain_words(kind: str) -> None:
    data, words = REFUSED[kind]

    with pytest.raises(BadImage, match=words) as refused:
        decode_image(data, LIMITS)

    assert not {"<", ">", "object", "/"} & set(str(refused.value).split())


@pytest.mark.parametrize("kind", ["missing restart marker", "junk before restart marker"])
def test_lost_pixels_are_said(kind: str) -> None:
    assert "parts of the picture may be lost" in read_image(TAKEN[kind][0], LIMITS).damage


@pytest.mark.parametrize("kind", ["sampled 4x1", "junk before DQT", "CMYK", "XMP only", "PNG with a long text"])
def test_whole_pictures_come_without_a_warning(kind: str) -> None:
    assert read_image(TAKEN[kind][0], LIMITS).damage == ""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", ["fast path", "fallback", "GPU path"])
def test_orientation_is_the_same_on_every_path(orientation: int, place: str) -> None:
    turned = after_start(jpeg(), b"\xff\xff", app1(b"Exif\x00\x00" + exif(orientation)[6:]))

    if place == "GPU path":
        found = encoded_image(turned, LIMITS)
        assert found is not None
        assert found.orientation == orientation
        return
    data = turned if place == "fast path" else before(turned, 0xDB, b"\x00")
    assert np.array_equal(decode_image(data, LIMITS), pillow_pixels(turned))


def test_gpu_path_reads_orientation_in_xmp() -> None:
    found = encoded_image(TURNED_XMP, LIMITS)

    assert found is not None
    assert found.orientation == 6


@pytest.mark.parametrize("kind", [kind for kind in TAKEN if not kind.startswith(("PNG", "WebP"))])
def test_gpu_path_takes_what_turbo_reads_and_leaves_the_rest_to_the_cpu(kind: str) -> None:
    data, expected = TAKEN[kind]

    found = encoded_image(data, LIMITS)

    assert found is None or (found.upright_size == (expected.shape[1], expected.shape[0]))


# 16-bit greys


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_16_bits_keeps_the_highest_bits_that_it_uses(bits: int) -> None:
    pixels = decode_image(grey16(bits), LIMITS)

    assert (pixels.min(), pixels.max()) == (0, 255)


def test_file_that_says_how_many_bits_are_significant_is_believed() -> None:
    dark = with_chunk(grey16(8), b"sBIT", bytes((12,)))

    assert decode_image(dark, LIMITS).max() == 255 >> 4


def test_samples_beyond_the_bits_that_a_file_names_are_not_wrapped() -> None:
    assert decode_image(with_chunk(grey16(16), b"sBIT", bytes((8,))), LIMITS).max() == 255


# Other formats


@pytest.mark.parametrize(("name", "image_format"), [("gif", "GIF"), ("tiff", "TIFF"), ("avif", "AVIF")])
def test_format_is_read_where_the_setting_allows_it(name: str, image_format: str) -> None:
    data = encoded(picture(), image_format)

    with pytest.raises(UnsupportedMedia, match=f"SACCADE_IMAGE_FORMATS={name}"):
        decode_image(data, LIMITS)
    assert np.array_equal(decode_image(data, ImageLimits(more_formats=frozenset({name}))), pillow_pixels(data))


def test_turned_tiff_is_turned_once() -> None:
    data = encoded(picture(), "TIFF", tiffinfo={0x0112: 6})

    assert np.array_equal(decode_image(data, ImageLimits(more_formats=frozenset({"tiff"}))), pillow_pixels(data))
    assert pillow_pixels(data).shape == (128, 96, 3)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(20), "heif"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00avifmif1" + bytes(20), "avif"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(20), "jxl"),
        (b"\xff\x0a" + bytes(20), "jxl"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(20), "jpeg2000"),
    ],
)
def test_format_that_is_not_taken_is_named_with_its_setting(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedMedia, match=f"SACCADE_IMAGE_FORMATS={name}"):
        decode_image(data, LIMITS)


def test_format_whose_package_is_missing_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    opened_plugin.cache_clear()

    with pytest.raises(SettingsError, match="heif needs the package pillow-heif"):
        opened_plugin("heif")


# Work is bounded before it is done


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = jpeg(progressive=True)
    last = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def test_jpeg_of_thousands_of_scans_is_refused_before_decoding() -> None:
    assert decode_image(jpeg(progressive=True), LIMITS).shape == (96, 128, 3)
    with pytest.raises(BadImage, match="scans, at most 100"):
        decode_image(with_scans(3_000), LIMITS)
    with pytest.raises(BadImage, match="scans, at most 100"):
        decode_image(before(with_scans(3_000), 0xDB, b"\x00"), LIMITS)  # by the other decoder


def test_large_jpeg_may_have_the_scans_that_writers_make() -> None:
    data = bytearray(with_scans(15))
    frame = data.index(b"\xff\xc2")
    struct.pack_into(">HH", data, frame + 5, 8_500, 8_500)

    with pytest.raises(BadImage, match="scans, at most 20"):
        decode_image(bytes(data), ImageLimits(max_pixels=90_000_000))


def test_only_one_scan_and_few_bytes_are_decoded_by_the_event_loop() -> None:
    plain = jpeg()

    assert small_jpeg_header(plain, 128 * 96) is not None
    assert small_jpeg_header(jpeg(progressive=True), 128 * 96) is None
    assert small_jpeg_header(after_start(plain, app1(bytes(60_000))), 128 * 96) is None
    assert small_jpeg_header(plain, 0) is None


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xff\xd8\xff" + b"\x00" * 4_000_000,
        b"\xff\xd8" + b"\xff" * 4_000_000,
        b"\xff\xd8" + b"\xff\x00" * 2_000_000,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000,
        after_start(jpeg(), b"\x00", *([app1(exif(6))] * 100_000)),
    ],
    ids=["zeros", "fill bytes", "coded FF", "comments", "EXIF segments"],
)
@pytest.mark.timeout(5)  # a decoder that goes through them in Python takes ten times as long
def test_hostile_header_costs_little(hostile: bytes) -> None:
    with pytest.raises(BadImage):
        decode_image(hostile, LIMITS)


@pytest.mark.timeout(5)
def test_png_that_does_not_begin_with_its_one_header_is_refused() -> None:
    """Its memory is reckoned by the first bytes, and Pillow would go by the last header."""
    data, small = (encoded(Image.new("RGB", (side, side)), "PNG") for side in (40, 8))
    header = slice(8, 33)
    text = b"\0\0\0\3tEXta\0b" + zlib.crc32(b"tEXta\0b").to_bytes(4, "big")

    for odd in (small[header] + data[header], data[header] + small[header], text + data[header], b""):
        with pytest.raises(BadImage, match="does not begin with its one header"):
            decode_image(data[:8] + odd + data[33:], LIMITS)


def test_png_of_endless_chunks_is_refused() -> None:
    png = encoded(picture(), "PNG")
    chunk = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))

    with pytest.raises(BadImage, match="too many chunks"):
        decode_image(png[:33] + chunk * 500_000 + png[33:], LIMITS)


def test_run_length_coded_bmp_is_bounded() -> None:
    header = struct.pack("<IIiiHHIIiiII", 0, 40, 10, 10, 1, 8, 1, 0, 0, 0, 0, 0)

    with pytest.raises(BadImage, match="run-length coded"):
        decode_image(b"BM" + bytes(8) + header + bytes(2_000_000), LIMITS)


_SAMPLES = [data for data, _ in TAKEN.values()] + [data for data, _ in REFUSED.values()] + [grey16(12)]


@settings(max_examples=200, deadline=None)
@given(
    data=st.sampled_from(_SAMPLES),
    changes=st.lists(st.tuples(st.integers(2, 60_000), st.integers(0, 255)), min_size=1, max_size=4),
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_picture_gives_pixels_or_a_bad_image(data: bytes, changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(data)
    for position, value in changes:
        mutated[position % len(mutated)] = value
    try:
        pixels = decode_image(bytes(mutated), ImageLimits(max_pixels=100_000))
    except (BadImage, UnsupportedMedia):
        return
    assert pixels.shape[2] == 3


@given(st.binary(max_size=300))
def test_any_bytes_have_segments(data: bytes) -> None:
    assert jpeg_segments(data).orientation in range(10)
    assert without_metadata(b"\xff\xd8" + data).startswith(b"\xff\xd8")


def test_metadata_is_left_out_and_pixels_stay() -> None:
    data = jpeg(exif=exif(1), comment=b"a comment", icc_profile=bytes(1000))

    bare = without_metadata(data)

    assert len(bare) < len(data) - 1000
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(data))))
