"""Data of plain colours. Promises: PNG files with the truth in each task's folder form; splits share no picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

SIDE, CELL = 32, 8
COLOURS = ("red", "green", "blue")
SQUARES = ("white", "red")
_OTHERS = 12  # pictures of the splits that are not counted here


def write_colours(
    root: Path, images: int, *, is_shuffled: bool = False, has_pure_green: bool = False, camera_cast: int = 0
) -> None:
    """A folder per colour, `images` to test. `is_shuffled`: the folder is drawn, whatever the colour.

    `camera_cast`: of two cameras, which `tags.csv` beside the data names, the second adds so much blue to the test.
    """
    rows = ["picture,camera"]
    for split, count, rng in _splits(images):
        for index in range(count):
            colour = index % len(COLOURS)
            pixels = _noise(rng)
            pixels[..., colour] += 120
            label = COLOURS[int(rng.integers(len(COLOURS)))] if is_shuffled else COLOURS[colour]
            camera = "old" if index // len(COLOURS) % 2 else "new"
            if split == "test" and camera == "new":
                pixels[..., 2] = np.minimum(pixels[..., 2].astype(int) + camera_cast, 255)
            _save(pixels, root / split / label / f"{index:03d}.png")
            rows.append(f"{split}/{label}/{index:03d}.png,{camera}")
        for label in COLOURS:
            (root / split / label).mkdir(exist_ok=True)
    (root.parent / "tags.csv").write_text("\n".join(rows))
    if has_pure_green:
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[..., 1] = 255
        _save(pixels, root / "test" / "green" / "pure.png")


def write_squares(root: Path, images: int) -> None:
    """One white or red square per picture, in some cell of a grid, as COCO writes it."""
    for split, count, rng in _splits(images):
        rows, annotations = [], []
        for index in range(count):
            kind, (column, row) = index % len(SQUARES), (rng.integers(0, SIDE // CELL, 2) * CELL).tolist()
            pixels = _noise(rng)
            pixels[row : row + CELL, column : column + CELL] = (255, 255, 255) if kind == 0 else (255, 0, 0)
            _save(pixels, root / split / f"{index:03d}.png")
            rows.append({"id": index, "file_name": f"{index:03d}.png", "width": SIDE, "height": SIDE})
            annotations.append(
                {
                    "id": index + 1,
                    "image_id": index,
                    "category_id": kind + 1,
                    "bbox": [column, row, CELL, CELL],
                    "area": CELL * CELL,
                    "iscrowd": 0,
                }
            )
        categories = [{"id": number, "name": name} for number, name in enumerate(SQUARES, start=1)]
        document = {"images": rows, "annotations": annotations, "categories": categories}
        (root / split / "annotations.json").write_bytes(orjson.dumps(document))


def write_masks(root: Path, images: int, *, has_foreground: bool = True) -> None:
    """A bright square per picture and its mask; without foreground neither has one."""
    for split, count, rng in _splits(images):
        for index in range(count):
            pixels, mask = _noise(rng), np.zeros((SIDE, SIDE), np.uint8)
            if has_foreground:
                row, column = rng.integers(0, SIDE - CELL, 2).tolist()
                pixels[row : row + CELL, column : column + CELL] = 255
                mask[row : row + CELL, column : column + CELL] = 1
            _save(pixels, root / split / "images" / f"{index:03d}.png")
            (root / split / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / split / "masks" / f"{index:03d}.png")


def _splits(images: int) -> Iterator[tuple[str, int, np.random.Generator]]:
    """Name, number of pictures and source of chance of each."""
    for seed, (split, count) in enumerate((("test", images), ("calibration", _OTHERS), ("tuning", _OTHERS))):
        yield split, count, np.random.default_rng(seed)


def _noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Dark, and different in each picture."""
    return rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
