"""Pictures as callers have them: every form gives the same pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.service.client.pictures import encoded, opened

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_pixels_are_sent_without_loss() -> None:
    assert (pixels_of(encoded(PIXELS)) == PIXELS).all()
    assert (pixels_of(encoded(PIXELS[:, ::-1])) == PIXELS[:, ::-1]).all()
    assert (pixels_of(encoded(Image.fromarray(PIXELS))) == PIXELS).all()


def test_a_mode_that_png_lacks_becomes_rgb() -> None:
    assert pixels_of(encoded(Image.new("CMYK", (2, 3)))).shape == (3, 2, 3)


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"whatever")

    assert {encoded(item) for item in (path, str(path), b"whatever", bytearray(b"whatever"))} == {b"whatever"}
    with path.open("rb") as file:
        assert encoded(file) == b"whatever"
    with path.open() as text, pytest.raises(ValueError, match="binary"):
        encoded(text)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        encoded(tmp_path / "nothing")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 4), (2, 5, 7, 3), (0, 7, 3)])
def test_other_arrays_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="height, width, 3"):
        encoded(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float64"):
        encoded(np.zeros((5, 7, 3)))


def test_a_picture_is_opened_upright_and_the_callers_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", exif=exif)

    assert opened(buffer.getvalue(), (5, 7)).size == (5, 7)
    assert opened(PIXELS, (7, 5)).size == (7, 5)
    given = Image.fromarray(PIXELS)
    assert opened(given, (7, 5)) is not given


def test_a_picture_is_as_stored_where_the_answer_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", exif=exif)

    assert (np.asarray(opened(buffer.getvalue(), (7, 5))) == PIXELS).all()
