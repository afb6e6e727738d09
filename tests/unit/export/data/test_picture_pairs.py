"""Pairs of pictures, and clean ones that are made worse. Promises: what does not fit is named with both sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.export.data.datasets import labelled_images
from saccade.export.data.labelled_images import ImageSample
from saccade.export.data.picture_pairs import target_of
from saccade.models.contract.specs import Task, TaskSpec
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
        assert target_of(sample, RGB).shape == (36, 48, 3)


def test_clean_pictures_get_the_stated_noise(tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        for index in range(4):
            flat = Image.new("RGB", (80, 80), (10 * index + 100, 100 + number, 120))
            save(tmp_path / split / f"{index}.png", encoded(flat))

    (sample, *_) = labelled_images(recipe_of(tmp_path, Task.IMAGE, ["pictures"], noise=20), "test")

    assert isinstance(sample, ImageSample)
    noisy = np.asarray(Image.open(io.BytesIO(sample.encoded)), np.float32)
    assert float((noisy - 255 * target_of(sample, RGB)).std()) == pytest.approx(20, rel=0.05)


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
