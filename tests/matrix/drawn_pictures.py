"""Draws labelled pictures for trained files: pages and lines of text, upright or turned, and objects on a ground."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from tests.matrix.trained import TrainedFile

_SPLITS = ("calibration", "tuning", "test")
_TEST_PICTURES = 10  # the fewest whose answers the gate compares
_WORDS = ("served", "answers", "equal", "those", "of", "the", "file", "that", "other", "people", "trained", "here")
_TURNS = {"0": 0, "90": 270, "180": 180, "270": 90}  # label: degrees against the clock


def write_pictures(trained: TrainedFile, folder: Path) -> None:
    """Side effect: writes one folder per split, in the layout of the task."""
    for number, split in enumerate(_SPLITS):
        rng = np.random.default_rng(number)
        for index in range(max(trained.images, _TEST_PICTURES) if split == "test" else trained.images):
            for path, picture in _pictures(trained, rng, folder / split, f"{index:02d}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path, quality=92)


def _pictures(trained: TrainedFile, rng: Generator, folder: Path, name: str) -> Iterator[tuple[Path, Image.Image]]:
    label = trained.labels[int(name) % len(trained.labels)]
    match trained.pictures:
        case "pages" if "background" not in trained.labels:
            yield folder / f"{name}.jpg", _page(rng)[0]
        case "pages":
            picture, mask = _page(rng)
            yield folder / "images" / f"{name}.jpg", picture
            yield folder / "masks" / f"{name}.png", mask
        case "turned pages":
            yield folder / label / f"{name}.jpg", _page(rng)[0].rotate(_TURNS[label], expand=True)
        case "lines":
            yield folder / label / f"{name}.jpg", _line(rng).rotate(_TURNS[label])
        case "objects" if "background" in trained.labels:
            picture, mask = _object(rng)
            yield folder / "images" / f"{name}.jpg", picture
            yield folder / "masks" / f"{name}.png", mask
        case "objects":
            # No truth: what the network says of such pictures is compared, not whether it is right.
            yield folder / label / f"{name}.jpg", _object(rng)[0]


def _page(rng: Generator) -> tuple[Image.Image, Image.Image]:
    """Returns a page with lines of text, and where they stand."""
    picture, mask = _ground(rng, 640, 480), Image.new("L", (640, 480))
    pen, marker = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    top = 20
    while top < 420:
        size = int(rng.integers(16, 40))
        place = (int(rng.integers(10, 120)), top)
        font, text = ImageFont.load_default(size), _text(rng, 4)
        pen.text(place, text, fill=tuple(int(each) for each in rng.integers(0, 70, 3)), font=font)
        marker.rectangle(pen.textbbox(place, text, font=font), fill=1)
        top += int(size * 1.8)
    return picture, mask


def _line(rng: Generator) -> Image.Image:
    picture = _ground(rng, 192, 48)
    ImageDraw.Draw(picture).text((4, 10), _text(rng, 3), fill=(20, 20, 30), font=ImageFont.load_default(22))
    return picture


def _object(rng: Generator) -> tuple[Image.Image, Image.Image]:
    """Returns one thing with a shaded body, and its mask."""
    picture, mask = _ground(rng, 480, 400), Image.new("L", (480, 400))
    left, top = int(rng.integers(60, 160)), int(rng.integers(40, 120))
    box = (left, top, left + int(rng.integers(160, 240)), top + int(rng.integers(160, 240)))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    colours = rng.integers(0, 256, (2, 3))
    shade = np.linspace(0, 1, 480)[None, :, None]
    body = (colours[0] * (1 - shade) + colours[1] * shade).repeat(400, 0).astype(np.uint8)
    picture.paste(Image.fromarray(body), mask=mask.point(lambda value: 255 * value))
    return picture, mask


def _ground(rng: Generator, width: int, height: int) -> Image.Image:
    """Bright blurred noise, as paper or a wall in uneven light."""
    coarse = rng.integers(150, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _text(rng: Generator, words: int) -> str:
    return " ".join(rng.choice(_WORDS, words))
