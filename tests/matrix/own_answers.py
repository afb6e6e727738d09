"""Holds a published file to the trained file that it was made from: same pixels, ONNX Runtime alone, plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import preprocess_into
from saccade.models.contract.specs import Task
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.matrix.own_boxes import compared, decoded
from tests.matrix.rows import OwnAnswers
from tests.matrix.served import compared_variant
from tests.matrix.trained import TrainedFile

LEAST_PIXELS = 0.999  # share of pixels that have the class of the trained file
MOST_SCORE = 1e-3  # difference of a score


def own_answers(
    trained: TrainedFile, file: Path, repository: Path, manifest: Manifest, paths: Sequence[Path]
) -> OwnAnswers:
    """Compares the answers to all pictures."""
    published = repository / manifest.model / str(manifest.version) / compared_variant(manifest).file
    ours, theirs = _session(published), _session(file)
    spec = manifest.preprocess
    names = [output.name for output in manifest.outputs]
    pixels, score = [], 0.0
    for path in paths:
        image = np.empty((1, spec.height, spec.width, 3), np.uint8)
        preprocess_into(decode_image(path.read_bytes(), ImageLimits()), spec, image[0])
        found = dict(zip(names, ours.run(names, {manifest.input.name: image}), strict=True))
        expected = _answer(theirs, trained, image)
        if trained.decoding is not None:
            boxes = decoded(expected[0], trained.decoding, (spec.width, spec.height))
            share, difference = compared(found, boxes, trained.decoding.threshold)
            pixels.append(share)
            score = max(score, difference)
        elif manifest.task.task is Task.SEGMENT:
            mask = expected[0, 0] > trained.words["outputs"]["threshold"]
            pixels.append(float((found["mask"][0] == mask).mean()))
        else:
            of_class = expected[0][found["class_ids"][0]]
            score = max(score, float(np.abs(found["scores"][0] - of_class).max()))
            pixels.append(float(found["class_ids"][0, 0] == expected[0].argmax()))
    least = min(pixels)
    problem = f"scores differ by {score:.2g} from the trained file's" if score > MOST_SCORE else ""
    if least < (LEAST_PIXELS if manifest.task.task is Task.SEGMENT else 1.0):
        problem = f"only {least:.4f} of a picture's answer is the trained file's"
    return OwnAnswers(images=len(paths), least_equal=least, largest_difference=score, problem=problem)


def _answer(session: onnxruntime.InferenceSession, trained: TrainedFile, image: NDArray[np.uint8]) -> NDArray[Any]:
    """The output that counts, for pixels (1, h, w, 3) as the maker's own code would scale them."""
    mean, std = _normalisation(trained)
    values = ((image.astype(np.float32) / 255 - mean) / std).astype(np.float32)
    (entry,) = session.get_inputs()
    if entry.shape[3] != 3:
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    output: NDArray[Any] = session.run(trained.words.get("outputs", {}).get("names"), {entry.name: values})[0]
    if output.ndim == 2 and abs(float(output.sum()) - 1.0) > MOST_SCORE:
        output = np.exp(output - output.max()) / np.exp(output - output.max()).sum()
    return output


def _normalisation(trained: TrainedFile) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if "normalisation" in trained.sections:
        given = trained.sections["normalisation"]
        return np.array(given["mean"], np.float32), np.array(given["std"], np.float32)
    low, high = trained.words.get("value_range", (0, 255) if _counts_from_cells(trained) else (0, 1))
    return np.float32(-low / (high - low)) * np.ones(3, np.float32), np.full(3, 1 / (high - low), np.float32)


def _counts_from_cells(trained: TrainedFile) -> bool:
    """Whether it is a YOLOX, whose programs leave pixels as they are."""
    return trained.decoding is not None and trained.decoding.layout == "yolox"


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
