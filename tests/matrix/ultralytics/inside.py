"""What runs in the library's own environment: `python -m tests.matrix.ultralytics.inside ENTRY FOLDER PICTURES`.

Makes FOLDER/network.pt (seeded, or trained on SCENES), exports it as the library does by itself, and writes what the
library's `predict` answers to every picture, in source pixels. What exists already is kept.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2  # type: ignore[import-not-found]  # only that environment has it
import numpy as np
import torch
from torch import Tensor

from tests.matrix.ultralytics.networks import FORMS, Entry, compared_pictures, entry_of
from tests.matrix.ultralytics.spread import give_spread

NETWORK, ANSWERS = "network.pt", "answers.json"
SEED = 20
# Minutes on two cores, from nothing: few pictures, so none are mixed or mirrored (a mirrored digit is another one).
_TRAINING = {"epochs": 16, "batch": 8, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1.0}
_AUGMENTATION = {"mosaic": 0.0, "fliplr": 0.0, "erasing": 0.0}
_STATISTICS = 12  # pictures that batch statistics are measured on
_PADDING = 114  # the grey that the library fills up with


def make(entry: Entry, folder: Path, pictures: Sequence[Path], scenes: Path) -> None:
    """Side effect: writes what is missing in `folder`."""
    from ultralytics import YOLO  # type: ignore[import-not-found]

    weights = folder / NETWORK
    if not weights.exists():
        network = trained(entry, folder, scenes) if entry.is_trained else seeded(entry, pictures)
        network.save(str(weights))
    for form in FORMS:
        if not (folder / f"{form}.onnx").exists():
            words = {"dynamic": True} if form == "dynamic" else {}
            made = Path(YOLO(str(weights)).export(format="onnx", **entry.words, **words))
            made.replace(folder / f"{form}.onnx")
    answered = folder / ANSWERS
    if not answered.exists():
        network = YOLO(str(weights))
        if entry.task == "classify":
            document: Any = {picture.name: class_of(network, entry, picture) for picture in pictures}
        else:
            document = [row for picture in pictures for row in rows_of(network, entry, picture)]
        answered.write_text(json.dumps(document))


def seeded(entry: Entry, pictures: Sequence[Path]) -> Any:
    from ultralytics import YOLO

    torch.manual_seed(SEED)
    network = YOLO(f"{entry.model.removesuffix('u')}.yaml")
    chosen = pictures[:: max(1, len(pictures) // _STATISTICS)][:_STATISTICS]
    give_spread(network.model, torch.stack([input_of(picture, entry.side) for picture in chosen]))
    return network


def trained(entry: Entry, folder: Path, scenes: Path) -> Any:
    from ultralytics import YOLO

    network = YOLO(f"{entry.model}.yaml")
    network.train(
        data=str(scenes / "data.yaml"),
        **_TRAINING,
        **_AUGMENTATION,
        imgsz=entry.side,
        seed=SEED,
        device="cpu",
        workers=0,
        plots=False,
        val=False,
        project=str(folder.absolute()),
        name="training",
        exist_ok=True,
    )
    return YOLO(str(folder / "training" / "weights" / "last.pt"))


def input_of(picture: Path, side: int) -> Tensor:
    """(3, side, side) RGB from 0 to 1, for batch statistics only: answers go through the library's own reading."""
    pixels = cv2.imread(str(picture))
    ratio = side / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=ratio, fy=ratio)[:side, :side, ::-1]
    filled = np.full((side, side, 3), _PADDING, np.uint8)
    filled[: small.shape[0], : small.shape[1]] = small
    return torch.from_numpy(filled).permute(2, 0, 1).float() / 255


def class_of(network: Any, entry: Entry, picture: Path) -> dict[str, Any]:
    (result,) = network.predict(str(picture), verbose=False, **entry.words)
    return {"label": int(result.probs.top1), "score": float(result.probs.top1conf)}


def rows_of(network: Any, entry: Entry, picture: Path) -> Iterator[dict[str, Any]]:
    """COCO results. `rect=False` gives the .pt the exported file's input instead of one cut to the picture's form."""
    (result,) = network.predict(str(picture), verbose=False, rect=False, **entry.words)
    boxes = result.boxes
    masks = None if result.masks is None else np.asarray(result.masks.data.cpu()).astype(bool)
    for place, (box, score, class_id) in enumerate(
        zip(boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True)
    ):
        x1, y1, x2, y2 = box
        row = {"file_name": picture.name, "category_id": int(class_id), "score": score}
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if masks is not None:
            row["segmentation"] = run_lengths(on_picture(masks[place], result.orig_shape))
        yield row


def on_picture(mask: np.ndarray[Any, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """A mask of the letterboxed input as one of the picture: each pixel gets what lies at its centre."""
    height, width = shape
    ratio = min(mask.shape[0] / height, mask.shape[1] / width)

    def positions(length: int, whole: int) -> np.ndarray[Any, Any]:
        inner = round(length * ratio)
        before = round((whole - inner) / 2 - 0.1)  # as the library's LetterBox rounds
        places: np.ndarray[Any, Any] = before + np.floor((np.arange(length) + 0.5) * inner / length).astype(int)
        return places

    moved: np.ndarray[Any, Any] = mask[np.ix_(positions(height, mask.shape[0]), positions(width, mask.shape[1]))]
    return moved


def run_lengths(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    """COCO's run lengths: down the columns, beginning with a run of zeros that may be empty."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *ends, mask.size]).tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("scenes", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count() or 1)
    entry = entry_of(given.entry)
    make(entry, given.folder, compared_pictures(entry, given.pictures, given.scenes), given.scenes)


if __name__ == "__main__":
    main()
