"""Compares answers of the converted deploy graph, as it would serve, with those of another library.

The other answers come from the library itself, in an environment that has it, or from a file that an older pipeline
wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from saccade.export.convert.padding import plain_input
from saccade.export.data.coco_boxes import found_coco
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import pictures_below
from saccade.export.errors import DataRefused, RecipeError
from saccade.export.gate.limits import LibraryName
from saccade.export.graph.large_files import plain_session
from saccade.export.qualification.picture_answers import (
    MadePicture,
    PictureAnswer,
    PictureBoxes,
    PictureClass,
    PictureDifference,
    PictureLabels,
    PictureMask,
    PictureVector,
    difference,
    picture_boxes,
    read_answers,
)
from saccade.export.qualification.plain_answers import plain_answer
from saccade.export.recipe import FolderData, LoadedRecipe
from saccade.export.sources import library_transform, load_network
from saccade.models.contract.instance_masks import mask_windows
from saccade.models.contract.preprocessing import (
    Geometry,
    boxes_to_source,
    geometry_of,
    mask_to_source,
    model_positions,
    preprocess_into,
)
from saccade.models.contract.run_lengths import MaskWindow, RunLengths
from saccade.models.contract.specs import Task, output_tensors
from saccade.service.vision.image_decoder import USUAL_LIMITS, decode_image

_ULTRALYTICS_TASKS = {
    Task.DETECT: "detect",
    Task.CLASSIFY: "classify",
    Task.SEGMENT: "semantic",
    Task.INSTANCES: "segment",
}
Theirs = Callable[[Path], PictureAnswer | None]


def compared(
    loaded: LoadedRecipe, graph: Path, theirs: Theirs, pictures: list[Path], threshold: float
) -> Iterator[PictureDifference]:
    """Yields one difference per answered picture. Raises DataRefused for answers to another task.

    graph: the deploy graph of the float network.
    """
    answer = _ours(loaded, graph)
    for picture in pictures:
        expected = theirs(picture)
        if expected is not None:
            yield difference(picture.name, answer(picture), expected, threshold)


def pictures_of(loaded: LoadedRecipe, most: int) -> list[Path]:
    """Returns the first pictures of the recipe's folder, by name. Raises RecipeError when its data is no folder."""
    if not isinstance(loaded.recipe.data, FolderData):
        raise RecipeError("compare needs `data:` to be a folder of pictures, which the other library can read too")
    root = loaded.beside(loaded.recipe.data.path)
    return pictures_below(root, Findings())[:most]


def answers_from_file(loaded: LoadedRecipe, path: Path, most: int) -> Theirs:
    """Reads answers from a file. Raises DataRefused when it cannot be read, or names none of the pictures."""
    if loaded.recipe.task.task is Task.IMAGE:
        raise RecipeError(
            "a file of answers holds no pictures: compare with the library, or make an old pipeline's pictures the "
            "targets (`data:` with input/ and target/), and the report has their PSNR and similarity"
        )
    names, ids = _coco_names(pictures_of(loaded, 1), loaded)
    has_masks = loaded.recipe.task.masks is not None
    answers = read_answers(path, names, ids, loaded.recipe.labels, has_masks=has_masks)
    known = {picture.name for picture in pictures_of(loaded, most)}
    if not known & answers.keys():
        raise DataRefused(
            f"{path} answers {next(iter(answers), 'nothing')!r}, which is no picture of the recipe's data"
        )
    return lambda picture: answers.get(picture.name)


def answers_of_library(loaded: LoadedRecipe, library: LibraryName, threshold: float) -> Theirs:
    """Runs the library. Raises RecipeError when it is not installed, or the recipe's network is not from it."""
    if library == "ultralytics":
        return _ultralytics(loaded, threshold)
    kind = loaded.recipe.source.kind
    if kind != library:
        raise RecipeError(f"`with` {library} needs a network of {library}; the recipe's source is {kind}")
    return _source_s_own(loaded)


def _ultralytics(loaded: LoadedRecipe, threshold: float) -> Theirs:
    """Runs the library's predictor, which reads files itself and does its own decoding, letterbox and suppression."""
    try:
        from ultralytics import YOLO  # type: ignore[import-not-found]  # never a dependency: the user's environment has it
    except ImportError as error:
        raise RecipeError(
            "`with` ultralytics needs that library: run this command in an environment that has it beside saccade"
        ) from error
    recipe = loaded.recipe
    if recipe.task.task not in _ULTRALYTICS_TASKS:
        raise RecipeError(f"`with` ultralytics has no task {recipe.task.task}: ask the network's own library")
    network = YOLO(str(loaded.weights_path), task=_ULTRALYTICS_TASKS[recipe.task.task])
    size = [recipe.preprocess.height, recipe.preprocess.width]

    def answer(picture: Path) -> PictureAnswer:
        (result,) = network.predict(
            str(picture),
            verbose=False,
            conf=threshold,
            max_det=recipe.task.max_detections or 300,
            rect=False,
            imgsz=size,
        )
        if result.probs is not None:
            return PictureClass(int(result.probs.top1), float(result.probs.top1conf))
        mask = getattr(result, "semantic_mask", None)
        if mask is not None:
            ids: PictureMask = np.asarray(mask.data.cpu()).squeeze().astype(np.uint8)
            return ids
        if result.boxes is None:
            raise RecipeError(
                "`with` ultralytics compares boxes, classes and class masks; this network answers none of them"
            )
        boxes = result.boxes
        rows = zip(boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True)
        masks = None if recipe.task.masks is None else _library_masks(result, loaded)
        return picture_boxes([(box, score, int(class_id)) for box, score, class_id in rows], masks)

    return answer


def _library_masks(result: Any, loaded: LoadedRecipe) -> list[RunLengths]:
    """Its masks lie on the network's input; each pixel of the picture gets what its centre shows there."""
    if result.masks is None:
        return []
    height, width = result.orig_shape
    place = geometry_of(width, height, loaded.recipe.preprocess)
    rows, columns = model_positions(height, place.height, place.top), model_positions(width, place.width, place.left)
    masks = np.asarray(result.masks.data.cpu()).astype(np.bool_)
    return [MaskWindow(0, 0, mask[np.ix_(rows, columns)]).run_lengths(height, width) for mask in masks]


def _source_s_own(loaded: LoadedRecipe) -> Theirs:
    """Runs the network in its own library, on its pixels when it has a transform, with a plain answer head."""
    recipe = loaded.recipe
    request = loaded.network_request()
    network, transform = load_network(request), library_transform(request)

    def answer(picture: Path) -> PictureAnswer:
        pixels, place = _prepared(picture, loaded)
        with torch.inference_mode():
            if transform is None or network.takes_padding_mask:
                inputs = plain_input(network, torch.from_numpy(pixels), recipe.normalisation, recipe.preprocess)
            else:
                with Image.open(picture) as image:
                    inputs = (torch.from_numpy(transform(image.convert("RGB"))[np.newaxis]),)
            outputs = plain_answer(network, recipe.task, recipe.preprocess, network.module(*inputs))
        return _picture_answer([tensor.numpy()[0] for tensor in outputs], place, loaded)

    return answer


def _ours(loaded: LoadedRecipe, graph: Path) -> Callable[[Path], PictureAnswer]:
    session = plain_session(graph)
    names = [spec.name for spec in output_tensors(loaded.recipe.task, loaded.recipe.preprocess)]

    def answer(picture: Path) -> PictureAnswer:
        pixels, place = _prepared(picture, loaded)
        outputs = session.run(names, {"images": pixels})
        return _picture_answer([array[0] for array in outputs], place, loaded)

    return answer


def _prepared(picture: Path, loaded: LoadedRecipe) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Geometry]:
    """Returns (1, height, width, 3) as served, and where the picture lies in it."""
    spec = loaded.recipe.preprocess
    pixels = np.empty((1, spec.height, spec.width, 3), np.uint8)
    decoded = decode_image(picture.read_bytes(), USUAL_LIMITS.for_network(spec))
    return pixels, preprocess_into(decoded, spec, pixels[0])


def _picture_answer(outputs: list[Any], place: Geometry, loaded: LoadedRecipe) -> PictureAnswer:
    match loaded.recipe.task.task:
        case Task.CLASSIFY if loaded.recipe.task.multi_label:
            scores, class_ids = outputs
            return PictureLabels(frozenset(class_ids[scores >= loaded.recipe.task.score_threshold].tolist()))
        case Task.CLASSIFY:
            scores, class_ids = outputs
            return PictureClass(int(class_ids[0]), float(scores[0]))
        case Task.EMBED:
            return PictureVector(outputs[0])
        case Task.IMAGE:
            return MadePicture(outputs[0], loaded.recipe.task)
        case Task.SEGMENT:
            return mask_to_source(outputs[0], place)
        case Task.DETECT | Task.INSTANCES:
            boxes, scores, class_ids, count = outputs[:4]
            rows = np.arange(int(count))
            cut_at = float(scores.min()) if len(rows) == len(scores) else 0.0
            spec, size = loaded.recipe.task.masks, (loaded.recipe.preprocess.width, loaded.recipe.preprocess.height)
            masks = None
            if spec is not None:
                windows = mask_windows(outputs, rows, spec, size, place)
                rows = rows[[bool(window.pixels.any()) for window in windows]]
                runs = (window.run_lengths(place.source_height, place.source_width) for window in windows)
                masks = tuple(each for each in runs if each.area)
            moved = boxes_to_source(boxes[rows], place).astype(np.float64)
            ids = class_ids[rows].astype(np.int64)
            return PictureBoxes(moved, scores[rows].astype(np.float64), ids, masks, cut_at)


def _coco_names(pictures: list[Path], loaded: LoadedRecipe) -> tuple[Mapping[int, str], Mapping[int, int]]:
    """Returns file names by image id and class ids by category id, from annotations.json beside the pictures."""
    labels = loaded.recipe.labels
    found = found_coco(folder for picture in pictures for folder in (picture.parent, picture.parent.parent))
    if found is None:
        return {}, {index: index for index in range(len(labels))}
    names = {image.id: image.file_name for image in found.images}
    return names, {each.id: labels.index(each.name) for each in found.categories if each.name in labels}
