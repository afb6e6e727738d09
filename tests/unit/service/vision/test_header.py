"""Which JPEGs go to a device: decided per file by its header, on files that Pillow wrote."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.export.data.fidelity import photograph
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from saccade.service.vision.jpeg_header import encoded_image
from saccade.service.vision.jpeg_segments import jpeg_segments

LIMITS = ImageLimits()


def is_baseline(data: bytes) -> bool:
    return jpeg_segments(data).is_baseline


def jpeg(width: int = 90, height: int = 61, mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = io.BytesIO()
    Image.fromarray(photograph(width, height, 3)).convert(mode).save(encoded, "JPEG", exif=exif, **options)
    return encoded.getvalue()


BASELINE = {
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "4:2:0": jpeg(subsampling=2),
    "grey": jpeg(mode="L"),
    "optimised tables": jpeg(optimize=True),
    "restart markers": jpeg(restart_marker_rows=1),
    "small": jpeg(3, 2),
    "with a comment, a profile and a resolution": jpeg(
        comment=b"\xff\xc2", icc_profile=b"\xff\xc2" * 900, dpi=(72, 72)
    ),
    **{f"EXIF orientation {turn}": jpeg(orientation=turn) for turn in range(1, 9)},
}
PROGRESSIVE = {
    "4:4:4": jpeg(subsampling=0, progressive=True),
    "4:2:0": jpeg(subsampling=2, progressive=True),
    "grey": jpeg(mode="L", progressive=True),
    "small": jpeg(3, 2, progressive=True),
    "turned": jpeg(orientation=6, progressive=True),
}


def with_frame(marker: int) -> bytes:
    """The header of a file of another kind: of most of them Pillow writes none."""
    return BASELINE["4:2:0"].replace(b"\xff\xc0", bytes((0xFF, marker)), 1)


def with_chroma(luma: int) -> bytes:
    """The file says that its luma has other sampling factors."""
    data = bytearray(BASELINE["4:2:0"])
    data[data.index(b"\xff\xc0") + 11] = luma
    return bytes(data)


def of_one_scan_per_component() -> bytes:
    """The first scan has the first component only."""
    data = bytearray(BASELINE["4:2:0"])
    scan = data.index(b"\xff\xda")
    data[scan : scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")] = (
        b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    )
    return bytes(data)


@pytest.mark.parametrize("kind", BASELINE)
def test_baseline_goes_to_the_device(kind: str) -> None:
    assert is_baseline(BASELINE[kind])
    assert encoded_image(BASELINE[kind], LIMITS) is not None


@pytest.mark.parametrize("kind", PROGRESSIVE)
def test_progressive_stays_with_the_cpu_which_decodes_it(kind: str) -> None:
    assert not is_baseline(PROGRESSIVE[kind])
    assert encoded_image(PROGRESSIVE[kind], LIMITS) is None
    assert decode_image(PROGRESSIVE[kind], LIMITS).any()


@pytest.mark.parametrize("marker", [0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_extended_lossless_and_arithmetic_frames_are_not_baseline(marker: int) -> None:
    assert not is_baseline(with_frame(marker))


def test_components_in_scans_of_their_own_are_not_for_hardware() -> None:
    assert not is_baseline(of_one_scan_per_component())


@pytest.mark.parametrize("luma", [pytest.param(0x12, id="4:4:0"), pytest.param(0x41, id="4:1:1")])
def test_chroma_that_the_self_check_does_not_measure_stays_with_the_cpu(luma: int) -> None:
    assert is_baseline(with_chroma(luma))
    assert encoded_image(with_chroma(luma), LIMITS) is None


def test_fill_bytes_before_a_marker_are_passed() -> None:
    assert is_baseline(BASELINE["4:2:0"].replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1))
    assert not is_baseline(PROGRESSIVE["4:2:0"].replace(b"\xff\xc2", b"\xff\xff\xff\xc2", 1))


@pytest.mark.parametrize("data", [BASELINE["4:2:0"], BASELINE["with a comment, a profile and a resolution"]])
def test_file_that_ends_before_its_scan_is_not_baseline(data: bytes) -> None:
    scan = data.rindex(b"\xff\xda")

    assert not any(is_baseline(data[:end]) for end in range(scan + 5))
    assert is_baseline(data[: scan + 5])


@given(st.binary(max_size=400))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert is_baseline(b"\xff\xd8" + data) in (True, False)


def test_device_does_not_turn_the_jpegs_of_a_network_that_ignores_exif() -> None:
    spec = PreprocessSpec(width=8, height=8, fit="stretch", exif="as stored")

    found = encoded_image(jpeg(90, 61, orientation=6), LIMITS.for_network(spec))

    assert found is not None
    assert found.upright_size == (90, 61)
