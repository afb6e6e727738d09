"""Writes and reads the test images that travel with a version, by which a device measures a plan without the recipe.

`evidence.npz` holds encoded images of the test split, their truth, and the answers of the eager float network to them.
The server's decoder reads the images again, so the whole way from bytes to answer is measured. The file holds arrays
only: reading it runs no code.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit, prepare_split
from saccade.export.data.labelled_images import (
    ClassSample,
    DetectSample,
    ImageSample,
    LabelsSample,
    Sample,
    SegmentSample,
)
from saccade.export.errors import DataRefused
from saccade.export.gate.device_figures import EvaluationData
from saccade.export.qualification.accuracy import Answer
from saccade.models.contract.run_lengths import RunLengths
from saccade.models.contract.specs import PreprocessSpec, Task

EVIDENCE_FILE = "evidence.npz"
_MIB = 1024 * 1024
Arrays = Mapping[str, NDArray[Any]]


def images_within(samples: Sequence[Sample], most_mib: float) -> int:
    """Returns how many of the first samples fit, by their encoded bytes."""
    sizes = itertools.accumulate(len(sample.encoded) for sample in samples)
    return sum(total <= most_mib * _MIB for total in sizes)


def write_evidence(path: Path, split: ImageSplit, expected: Answer, count: int) -> None:
    """Writes the first `count` images of a split with the answers to them."""
    samples = split.samples[:count]
    arrays: dict[str, NDArray[Any]] = {
        "encoded": np.frombuffer(b"".join(sample.encoded for sample in samples), np.uint8),
        "encoded_sizes": np.array([len(sample.encoded) for sample in samples], np.int64),
        **_truth_arrays(samples),
    }
    for index, answer in enumerate(expected):
        arrays[f"expected_{index}"] = answer[:count]
    with path.open("wb") as file:  # savez would add a suffix to a path
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no dict of arrays


def read_evidence(path: Path, task: Task, preprocess: PreprocessSpec) -> EvaluationData:
    """Reads the images. Raises DataRefused for a file that is damaged or of another task."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        samples = _samples(task, arrays)
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise DataRefused(f"{path.name} is damaged ({error}); publish the version again") from error
    expected = [arrays[f"expected_{index}"] for index in range(sum(name.startswith("expected_") for name in arrays))]
    if not samples or not expected or any(len(answer) != len(samples) for answer in expected):
        raise DataRefused(f"{path.name} does not hold one answer per image; publish the version again")
    return EvaluationData(prepare_split("test", samples, preprocess), expected)


def _truth_arrays(samples: Sequence[Sample]) -> dict[str, NDArray[Any]]:
    first = samples[0]
    if isinstance(first, ClassSample):
        return {"class_ids": np.array([each.class_id for each in samples if isinstance(each, ClassSample)], np.int64)}
    if isinstance(first, LabelsSample):
        shown = [each.class_ids for each in samples if isinstance(each, LabelsSample)]
        return {
            "class_ids": np.array([class_id for each in shown for class_id in each], np.int64),
            "label_counts": np.array([len(each) for each in shown], np.int64),
        }
    if isinstance(first, ImageSample):
        targets = [each.target for each in samples if isinstance(each, ImageSample)]
        sizes = np.array([len(target) for target in targets], np.int64)
        return {"targets": np.frombuffer(b"".join(targets), np.uint8), "target_sizes": sizes}
    if isinstance(first, DetectSample):
        scenes = [each for each in samples if isinstance(each, DetectSample)]
        return {
            "boxes": np.concatenate([each.boxes.reshape(-1, 4) for each in scenes]),
            "class_ids": np.concatenate([each.class_ids for each in scenes]),
            "is_crowd": np.concatenate([_crowds_of(each) for each in scenes]),
            "box_counts": np.array([len(each.class_ids) for each in scenes], np.int64),
            **_mask_arrays(scenes),
        }
    masks = [each.mask for each in samples if isinstance(each, SegmentSample)]
    return {
        "masks": np.concatenate([mask.ravel() for mask in masks]),
        "mask_sizes": np.array([mask.shape for mask in masks], np.int64),
    }


def _mask_arrays(scenes: Sequence[DetectSample]) -> dict[str, NDArray[Any]]:
    """Run lengths of all objects, one text each."""
    if scenes[0].masks is None:
        return {}
    return {"masks": np.array([mask.text for scene in scenes for mask in scene.masks or ()], np.bytes_)}


def _masks_of(arrays: Arrays) -> list[tuple[RunLengths, ...]]:
    """Returns the masks of each scene's objects."""
    scenes = _pieces(arrays["masks"], arrays["box_counts"])
    return [tuple(RunLengths.read(text) for text in scene.tolist()) for scene in scenes]


def _crowds_of(sample: DetectSample) -> NDArray[np.bool_]:
    return np.zeros(len(sample.class_ids), np.bool_) if sample.is_crowd is None else sample.is_crowd


def _samples(task: Task, arrays: Arrays) -> list[Sample]:
    encoded = [piece.tobytes() for piece in _pieces(arrays["encoded"], arrays["encoded_sizes"])]
    match task:
        case Task.CLASSIFY if "label_counts" in arrays:
            sets = _pieces(arrays["class_ids"], arrays["label_counts"])
            return [LabelsSample(image, tuple(ids.tolist())) for image, ids in zip(encoded, sets, strict=True)]
        case Task.CLASSIFY | Task.EMBED:
            ids = arrays["class_ids"].tolist()
            return [ClassSample(image, class_id) for image, class_id in zip(encoded, ids, strict=True)]
        case Task.IMAGE:
            targets = _pieces(arrays["targets"], arrays["target_sizes"])
            return [ImageSample(image, each.tobytes()) for image, each in zip(encoded, targets, strict=True)]
        case Task.DETECT | Task.INSTANCES:
            boxes = _pieces(arrays["boxes"], arrays["box_counts"])
            labels = _pieces(arrays["class_ids"], arrays["box_counts"])
            flags = arrays.get("is_crowd", np.zeros(len(arrays["class_ids"]), np.bool_))  # older versions have none
            crowds = _pieces(flags, arrays["box_counts"])
            masks = _masks_of(arrays) if task is Task.INSTANCES else [None] * len(encoded)
            return [DetectSample(*scene) for scene in zip(encoded, boxes, labels, crowds, masks, strict=True)]
        case Task.SEGMENT:
            sizes = arrays["mask_sizes"]
            flat = _pieces(arrays["masks"], sizes.prod(axis=1))
            return [
                SegmentSample(image, mask.reshape(size)) for image, mask, size in zip(encoded, flat, sizes, strict=True)
            ]


def _pieces(joined: NDArray[Any], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Splits joined bytes by size. Raises ValueError when the sizes do not add up."""
    if int(sizes.sum()) != len(joined) or (sizes < 0).any():
        raise ValueError("sizes do not add up")
    return np.split(joined, np.cumsum(sizes)[:-1])
