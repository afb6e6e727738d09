"""Pairs of pictures, and clean ones that are made worse. Promises: what does not fit is named with both sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from saccade.export.data.check import check_data
from saccade.export.data.data_report import DataReport
from saccade.export.data.data_table import print_data
from saccade.export.data.datasets import labelled_images
from saccade.export.data.labelled_images import ImageSample
from saccade.export.data.picture_pairs import PairTruth, target_of
from saccade.export.errors import DataRefused
from saccade.models.contract.specs import Task, TaskSpec
from saccade.service.vision.image_decoder import USUAL_LIMITS, ImageLimits, decode_image
from tests.support.data_folders import encoded, picture, recipe_of, save

RGB = TaskSpec(task=Task.IMAGE, picture="rgb")
SPLITS = ("calibration", "tuning", "test")


def pairs(root: Path, scale: int = 1, mode: str = "RGB") -> None:
    for number, split in enumerate(SPLITS):
        for index in range(4):
            small = picture(100 * number + index)
            large = small.resize((small.width * scale, small.height * scale)).convert(mode)
            save(root / split / "input" / f"{index}.png", encoded(small))
            save(root / split / "target" / f"{index}.png", encoded(large))


def test_pairs_belong_together_by_name(tmp_path: Path) -> None:
    pairs(tmp_path)

    samples = labelled_images(recipe_of(tmp_path, Task.IMAGE, ["pictures"]), "test")

    assert len(samples) == 4
    for sample in samples:
        assert isinstance(sample, ImageSample)
        assert target_of(sample, RGB, USUAL_LIMITS).shape == (36, 48, 3)


def test_clean_pictures_get_the_stated_noise(tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        for index in range(4):
            flat = Image.new("RGB", (80, 80), (10 * index + 100, 100 + number, 120))
            save(tmp_path / split / f"{index}.png", encoded(flat))

    (sample, *_) = labelled_images(recipe_of(tmp_path, Task.IMAGE, ["pictures"], noise=20), "test")

    assert isinstance(sample, ImageSample)
    noisy = np.asarray(Image.open(io.BytesIO(sample.encoded)), np.float32)
    assert float((noisy - 255 * target_of(sample, RGB, USUAL_LIMITS)).std()) == pytest.approx(20, rel=0.05)


def complaints(root: Path, **data: object) -> str:
    from tests.support.data_folders import checked

    return " ".join(checked(root, Task.IMAGE, ["pictures"], **data).complaints)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    pairs(tmp_path / "large", scale=2)
    assert "is 96x72 and its picture" in complaints(tmp_path / "large")
    pairs(tmp_path / "lost")
    (tmp_path / "lost" / "test" / "target" / "0.png").unlink()
    assert "0.png has no target: save it as" in complaints(tmp_path / "lost")
    pairs(tmp_path / "noisy")
    assert "data.noise is for clean pictures" in complaints(tmp_path / "noisy", noise=10)
    for split in SPLITS:
        save(tmp_path / "clean" / split / "0.png", encoded(picture(1)))
    assert "which adds noise of 25 levels" in complaints(tmp_path / "clean")


@pytest.mark.parametrize("size", [(40, 40), (48, 36)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("limits", [ImageLimits(), ImageLimits(ignores_exif=True)])
@pytest.mark.parametrize("bits", [0, 8, 10, 12, 14, 16])
def test_a_picture_that_is_its_own_target_differs_nowhere(
    tmp_path: Path, size: tuple[int, int], orientation: int, limits: ImageLimits, bits: int
) -> None:
    """0 bits: a picture of colours."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = picture(3, *size)
    if bits:
        pixels = Image.fromarray((np.asarray(pixels.convert("L")).astype(np.uint16) << 8) >> (16 - bits))
    path = save(tmp_path / "same.png", encoded(pixels, exif=exif))
    spec = TaskSpec(task=Task.IMAGE, picture="grey" if bits else "rgb")
    seen = decode_image(path.read_bytes(), limits)

    sample = PairTruth(spec, path).sample(path, path.read_bytes(), (seen.shape[1], seen.shape[0]), limits)

    target = target_of(sample, spec, limits)
    assert np.array_equal(np.rint(255 * target), seen[..., 0] if bits else seen)
    assert target.max() > 0.8


def test_greys_of_another_range_than_their_input_are_refused(tmp_path: Path) -> None:
    grey = np.asarray(picture(1).convert("L")).astype(np.uint16)
    dark = save(tmp_path / "input.png", encoded(Image.fromarray(grey << 2)))
    bright = save(tmp_path / "target.png", encoded(Image.fromarray(grey << 4)))

    with pytest.raises(DataRefused, match=r"uses 12 bits per sample and its input 10.*save both with 8 bits"):
        PairTruth(TaskSpec(task=Task.IMAGE, picture="grey"), bright).sample(dark, dark.read_bytes(), (48, 36))


def depth_pairs(root: Path, unknown: int) -> None:
    """Ten pictures per split; of so many, one pixel is known."""
    for number, split in enumerate(SPLITS):
        for index in range(10):
            small = picture(100 * number + index)
            depth = np.asarray(small.convert("L")).astype(np.uint16) + 1
            if index < unknown:
                depth[:] = 0
                depth[5, 5] = 700
            save(root / split / "input" / f"{index}.png", encoded(small))
            save(root / split / "target" / f"{index}.png", encoded(Image.fromarray(depth)))


def depth_report(root: Path) -> DataReport:
    loaded = recipe_of(root, Task.IMAGE, ["pictures"])
    task = TaskSpec(task=Task.IMAGE, picture="depth")
    recipe = loaded.recipe.model_copy(update={"task": task})
    return check_data(loaded.model_copy(update={"recipe": recipe}), lambda read, total: None)


def test_depths_that_say_nothing_are_counted_and_too_many_are_refused(tmp_path: Path) -> None:
    depth_pairs(tmp_path / "all", 0)
    assert "do not count" not in " ".join(depth_report(tmp_path / "all").notes)
    depth_pairs(tmp_path / "some", 3)
    some = depth_report(tmp_path / "some")
    assert not some.complaints
    assert "3 pictures of split 'test' do not count: hardly a depth is known" in " ".join(some.notes)
    depth_pairs(tmp_path / "most", 6)
    assert "6 pictures (60.0%) of split 'test'" in " ".join(depth_report(tmp_path / "most").complaints)
    depth_pairs(tmp_path / "none", 10)
    assert "has no target to judge by" in " ".join(depth_report(tmp_path / "none").complaints)


@pytest.mark.parametrize(
    ("orientation", "size", "is_told"), [(1, (48, 36), False), (3, (48, 36), True), (6, (48, 48), True)]
)
def test_a_turn_that_sizes_do_not_tell_is_noted(
    tmp_path: Path, orientation: int, size: tuple[int, int], is_told: bool
) -> None:
    """A depth is usually written for the upright picture, so this refuses nothing."""
    depth_pairs(tmp_path, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "test" / "input" / "3.png").unlink()
    (tmp_path / "test" / "input" / "3.jpg").write_bytes(encoded(picture(999, *size), "JPEG", exif=exif))
    depth = Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[::-1]) + 1)
    (tmp_path / "test" / "target" / "3.png").write_bytes(encoded(depth))

    report = depth_report(tmp_path)

    assert not report.complaints
    assert ("3.jpg is turned by EXIF and its target is not" in " ".join(report.notes)) == is_told


def test_check_shows_no_labels_of_pictures(tmp_path: Path) -> None:
    pairs(tmp_path)
    written = io.StringIO()

    print_data(
        Console(file=written, width=100), check_data(recipe_of(tmp_path, Task.IMAGE, ["pictures"]), lambda *_: None)
    )

    assert "(image, 12 images" in written.getvalue()
    assert " labels" not in written.getvalue()
    assert "Labels (" not in written.getvalue()
