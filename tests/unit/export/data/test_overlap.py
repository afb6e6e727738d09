"""Pictures in two splits. Promises: copies are found whatever was done to the file, and different pictures are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from saccade.export.data.reading import PictureFacts, read_pictures
from saccade.models.contract.specs import Task
from saccade.service.vision.image_decoder import ImageLimits
from tests.support.data_folders import checked, encoded, only_complaint, split_folders

Disguise = Callable[[Path], bytes]


def _mirrored(path: Path) -> bytes:
    return encoded(ImageOps.mirror(Image.open(path)))


def _saved_again(path: Path) -> bytes:
    return encoded(Image.open(path), "JPEG", quality=75)


def _mirrored_and_saved_again(path: Path) -> bytes:
    return encoded(ImageOps.mirror(Image.open(path)), "JPEG", quality=85)


def _upside_down(path: Path) -> bytes:
    return encoded(ImageOps.flip(Image.open(path)), "JPEG", quality=90)


def _turned_by_half(path: Path) -> bytes:
    return encoded(Image.open(path).rotate(180), "JPEG", quality=90)


def _turned_by_a_quarter(path: Path) -> bytes:
    return encoded(Image.open(path).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=85)


def _mirrored_and_turned(path: Path) -> bytes:
    return encoded(Image.open(path).transpose(Image.Transpose.TRANSVERSE), "JPEG", quality=85)


def _darker(path: Path) -> bytes:
    return encoded(ImageEnhance.Brightness(Image.open(path)).enhance(0.7), "JPEG", quality=85)


def _brighter(path: Path) -> bytes:
    return encoded(ImageEnhance.Brightness(Image.open(path)).enhance(1.3), "JPEG", quality=85)


def _of_less_contrast(path: Path) -> bytes:
    return encoded(ImageEnhance.Contrast(Image.open(path)).enhance(0.6).rotate(180), "JPEG", quality=85)


def replace_split(root: Path, name: str, source: str, disguise: Disguise) -> None:
    """Makes split `name` of the pictures of `source`."""
    shutil.rmtree(root / name)
    for path in sorted((root / source).rglob("*.png")):
        copy = root / name / path.relative_to(root / source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(disguise(path))


@pytest.mark.parametrize(
    "pair", [("tuning", "test"), ("calibration", "test"), ("calibration", "tuning"), ("train", "test")]
)
@pytest.mark.parametrize(
    "disguise", [Path.read_bytes, lambda path: path.read_bytes() + b"\0"], ids=["copy", "one byte more"]
)
def test_equal_pictures_are_refused_in_every_pair_of_splits(
    tmp_path: Path, pair: tuple[str, str], disguise: Disguise
) -> None:
    split_folders(tmp_path, ["train", "calibration", "tuning", "test"])
    replace_split(tmp_path, *pair, disguise)

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert "12 pictures (100.0%)" in complaint
    assert "pixel for pixel" in complaint
    assert str(tmp_path / pair[0]) in complaint
    assert str(tmp_path / pair[1]) in complaint


@pytest.mark.parametrize(
    "disguise",
    [
        _mirrored,
        _saved_again,
        _mirrored_and_saved_again,
        _upside_down,
        _turned_by_half,
        _turned_by_a_quarter,
        _mirrored_and_turned,
        _darker,
        _brighter,
        _of_less_contrast,
    ],
)
def test_copies_in_disguise_are_refused(tmp_path: Path, disguise: Disguise) -> None:
    split_folders(tmp_path, each=8)
    replace_split(tmp_path, "calibration", "test", disguise)

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert "24 pictures (100.0%) of split 'calibration' also in split 'test', saved again, mirrored" in complaint
    assert "max_near" in complaint


def test_a_single_equal_picture_is_refused_and_a_recipe_may_allow_it(tmp_path: Path) -> None:
    split_folders(tmp_path, each=8)
    first = next((tmp_path / "test").rglob("*.png"))
    shutil.copy(first, tmp_path / "tuning" / "red" / "copy.png")

    assert "1 picture (4.2%) of split" in only_complaint(checked(tmp_path, Task.CLASSIFY))
    report = checked(tmp_path, Task.CLASSIFY, limits={"max_shared": 0.05})
    assert report.complaints == ()
    assert [pair.equal for pair in report.pairs] == [0, 0, 1]


def test_few_near_copies_are_shown_with_their_share(tmp_path: Path) -> None:
    split_folders(tmp_path, each=8)
    first = next((tmp_path / "test").rglob("*.png"))
    (tmp_path / "calibration" / "red" / "copy.jpg").write_bytes(_saved_again(first))

    report = checked(tmp_path, Task.CLASSIFY)

    pair = next(pair for pair in report.pairs if {pair.smaller, pair.larger} == {"calibration", "test"})
    assert report.complaints == ()
    assert (pair.equal, pair.near) == (0, 1)
    assert pair.near_share == pytest.approx(1 / 24)
    assert pair.near_example is not None


@pytest.mark.parametrize("disguise", [_saved_again, _mirrored_and_turned, _darker])
def test_copies_inside_the_test_split_are_counted(tmp_path: Path, disguise: Disguise) -> None:
    split_folders(tmp_path, each=8)
    first, second, *_ = sorted((tmp_path / "test" / "red").rglob("*.png"))
    (tmp_path / "test" / "red" / "again.jpg").write_bytes(disguise(first))
    (tmp_path / "test" / "red" / "copy.png").write_bytes(second.read_bytes())

    report = checked(tmp_path, Task.CLASSIFY)

    split = next(split for split in report.splits if split.name == "test")
    assert (split.repeated, split.near_repeats) == (1, 2)
    assert any(f"nearly repeat others, such as {tmp_path}" in note and first.name in note for note in report.notes)
    assert all(other.near_repeats == 0 for other in report.splits if other.name != "test")


def test_noise_of_one_colour_is_no_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("calibration", "tuning", "test"):
        for number in range(30):
            base = np.zeros((40, 40, 3)) + np.array([200, 40, 40])[np.roll(np.arange(3), number % 3)]
            pixels = (base + rng.normal(0, 40, base.shape)).clip(0, 255).astype(np.uint8)
            path = tmp_path / name / ("red", "green", "blue")[number % 3] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(Image.fromarray(pixels), "JPEG", quality=75))

    report = checked(tmp_path, Task.CLASSIFY)

    assert report.complaints == ()
    assert sum(pair.near for pair in report.pairs) == 0


def test_pictures_that_are_twice_in_one_split_are_said(tmp_path: Path) -> None:
    split_folders(tmp_path)
    first = next((tmp_path / "test").rglob("*.png"))
    shutil.copy(first, first.with_name("copy.png"))

    assert "split 'test' has 1 picture twice, pixel for pixel" in checked(tmp_path, Task.CLASSIFY).notes


def test_decoded_pictures_do_not_pile_up(tmp_path: Path) -> None:
    split_folders(tmp_path, ["test"], each=40)
    from saccade.export.data.pictures import ClassTruth, Picture

    started = 0

    def pictures():  # type: ignore[no-untyped-def]  # a generator that counts what was asked of it
        nonlocal started
        for path in sorted((tmp_path / "test").rglob("*.png")):
            started += 1
            yield Picture(path, ClassTruth(0))

    reading = read_pictures(pictures(), ImageLimits())
    first = next(reading)

    assert isinstance(first, PictureFacts)
    assert started < 60  # of 120: the rest waits until facts are taken
    assert len(list(reading)) == 119
