"""Digit scenes in YOLO's layout with an outline per digit: what two networks are trained and judged on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import contourpy
import numpy as np
import yaml
from numpy.typing import NDArray

from saccade.models.digits.digit_scenes import CLASS_NAMES, SCENE_SIZE, SceneSample, Split, scene_samples

SEED = 20
COUNTS = {Split.TRAIN: 480, Split.TUNING: 60, Split.TEST: 200}
_FOLDERS = {Split.TRAIN: "train", Split.TUNING: "val", Split.TEST: "test"}
_LEAST_POINTS = 3


def write_scenes(folder: Path) -> Path:
    """Returns data.yaml; side effect: writes pictures and labels of all splits unless they are there."""
    described = folder / "data.yaml"
    if described.exists():
        return described
    for split, count in COUNTS.items():
        pictures, labels = folder / "images" / _FOLDERS[split], folder / "labels" / _FOLDERS[split]
        pictures.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for number, scene in enumerate(scene_samples(split, SEED, count)):
            (pictures / f"scene-{number:04}.jpg").write_bytes(scene.jpeg)
            (labels / f"scene-{number:04}.txt").write_text("".join(label_lines(scene)))
    places = {_FOLDERS[split]: f"images/{_FOLDERS[split]}" for split in COUNTS}
    names = dict(enumerate(CLASS_NAMES))
    described.write_text(yaml.safe_dump({"path": str(folder.absolute()), **places, "names": names}, sort_keys=False))
    return described


def label_lines(scene: SceneSample) -> Iterator[str]:
    """One line per digit: its class, then its outline in shares of the picture."""
    for place, class_id in enumerate(scene.class_ids.tolist(), start=1):
        ring = outline_of(scene.owners == place)
        if len(ring) >= _LEAST_POINTS:
            yield " ".join([str(class_id), *(f"{value:.5f}" for value in (ring / SCENE_SIZE).ravel())]) + "\n"


def outline_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, 2) x y of the longest outline, in pixels from the upper left corner; holes are filled, as YOLO's lines do."""
    rings = contourpy.contour_generator(z=np.pad(mask, 1).astype(np.float64)).lines(0.5)
    longest = max((np.asarray(ring) for ring in rings), key=len, default=np.zeros((0, 2)))
    outline: NDArray[np.float64] = np.clip(longest - 0.5, 0, mask.shape[0])  # from centres of padded pixels
    return outline
