"""Draws answers onto their images as small JPEG files, with the reference's answer on the left."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import (
    IGNORED,
    ClassSample,
    DetectSample,
    ImageSample,
    LabelsSample,
    Sample,
)
from saccade.export.qualification.disagreements import (
    Answer,
    Disagreements,
    Example,
    ServedBoxes,
    amounts_of,
    boxes_of,
    measure_of,
    most_different,
    paired,
)
from saccade.export.qualification.neighbour_pictures import neighbours_strip, neighbours_text
from saccade.export.qualification.picture_strips import pair_strip, strip_text, visible
from saccade.models.contract.preprocessing import Geometry, boxes_to_source, mask_to_source
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.kept_answers import masks_of
from saccade.service.vision.image_decoder import decode_image

EXAMPLES = 3  # images per variant
_SHORTEST, _LONGEST = 160, 288  # limits of a drawn image's longer side, in pixels
_LONGEST_ALONE = 480  # of a picture with one answer
_GAP = 6
_JPEG_QUALITY = 82
_MOST_NAMES = 6
_LONGEST_LABEL = 14  # characters drawn into a picture
_TINT = 0.4  # share of an object's colour in its pixels
_LONE_WIDTH = 3  # width of lines around a box that only this answer has; others are one pixel wide
# These colours differ for most colour-blind readers (Okabe and Ito); shades of them follow.
_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    *((255, 255, 255), (128, 60, 0), (120, 220, 120), (160, 120, 255), (255, 120, 120)),
)


def write_examples(
    reference: Answer, found: Answer, split: ImageSplit, task: TaskSpec, labels: Sequence[str], directory: Path
) -> Disagreements:
    """Draws the images on which the answers differ most as `example-<n>.jpg`, and returns the differences."""
    amounts = amounts_of(reference, found, task)
    examples = []
    for place, index in enumerate(most_different(amounts, EXAMPLES)):
        reference_text, variant_text = (_text(each, split, index, task, labels) for each in (reference, found))
        file = f"example-{place + 1}.jpg"
        (directory / file).write_bytes(pair_jpeg(reference, found, split, index, task, labels))
        examples.append(
            Example(
                file=file,
                image=index,
                amount=round(float(amounts[index]), 6),
                truth=truth_text(split.samples[index], labels),
                reference=reference_text,
                variant=variant_text,
            )
        )
    return Disagreements(
        images=len(amounts),
        differing=int((amounts > 0).sum()),
        measure=measure_of(task),
        examples=tuple(examples),
    )


def _text(answer: Answer, split: ImageSplit, index: int, task: TaskSpec, labels: Sequence[str]) -> str:
    if task.task is Task.EMBED:
        return neighbours_text(answer[0], split, index, labels)
    if task.task is Task.IMAGE:
        return strip_text(answer[0][index], split, index, task)
    return answer_text(answer, index, task, labels)


def pair_jpeg(
    reference: Answer, found: Answer, split: ImageSplit, index: int, task: TaskSpec, labels: Sequence[str]
) -> bytes:
    """Draws both answers to one image of the split, side by side; of an embedder, what each finds nearest to it; of a
    network that makes pictures, also what was sent and the target.
    """
    if task.task is Task.EMBED:
        return _sheet([neighbours_strip(each[0], split, index) for each in (reference, found)])
    if task.task is Task.IMAGE:
        return _jpeg(pair_strip(reference[0][index], found[0][index], split, index, task))
    pixels = decode_image(split.samples[index].encoded, split.limits)
    place = split.geometries[index]
    pairs = ((reference, found), (found, reference))
    return _sheet([_drawn(pixels, answer, other, place, index, task, labels) for answer, other in pairs])


def _sheet(sides: Sequence[Image.Image]) -> bytes:
    width, height = sides[0].size
    sheet = Image.new("RGB", (2 * width + _GAP, height), (127, 127, 127))
    sheet.paste(sides[0], (0, 0))
    sheet.paste(sides[1], (width + _GAP, 0))
    return _jpeg(sheet)


def answer_jpeg(
    pixels: NDArray[np.uint8], answer: Answer, geometry: Geometry, task: TaskSpec, labels: Sequence[str]
) -> bytes:
    """Draws the answer to one picture alone, larger: every box with its label and score, or the mask."""
    # Boxes that the other answer lacks carry labels, and pixels that it has too are painted pale.
    other = answer if task.task is Task.SEGMENT else [tensor * 0 for tensor in answer[:4]]
    return _jpeg(_drawn(pixels, answer, other, geometry, 0, task, labels, longest=_LONGEST_ALONE))


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def answer_text(answer: Answer, index: int, task: TaskSpec, labels: Sequence[str]) -> str:
    """Words one image's answer."""
    match task.task:
        case Task.CLASSIFY if task.multi_label:
            rows = np.flatnonzero(answer[0][index] >= task.score_threshold)
            ids, scores = answer[1][index, rows].tolist(), answer[0][index, rows].tolist()
            return _some(
                [f"{_label(labels, each)} {score:.2f}" for each, score in zip(ids, scores, strict=True)], "nothing"
            )
        case Task.CLASSIFY:
            pairs = zip(answer[1][index, :3].tolist(), answer[0][index, :3].tolist(), strict=True)
            return ", ".join(f"{_label(labels, class_id)} {score:.2f}" for class_id, score in pairs)
        case Task.DETECT | Task.INSTANCES:
            found = boxes_of(answer, index, task.score_threshold)
            order = np.argsort(-found.scores, kind="stable")
            names = [f"{_label(labels, found.class_ids[row])} {found.scores[row]:.2f}" for row in order]
            return _some(names, "nothing")
        case Task.SEGMENT:
            return _areas_text(answer[0][index], labels)
        case Task.EMBED:
            first = " ".join(f"{number:.3f}" for number in answer[0][index, :_MOST_NAMES].tolist())
            return f"{len(answer[0][index])} numbers: {first} ..."
        case Task.IMAGE:
            low, high = float(answer[0][index].min()), float(answer[0][index].max())
            return f"from {low:.3g} to {high:.3g}"


def truth_text(sample: Sample, labels: Sequence[str]) -> str:
    if isinstance(sample, ClassSample):
        return _label(labels, sample.class_id)
    if isinstance(sample, LabelsSample):
        return _some([_label(labels, class_id) for class_id in sample.class_ids], "nothing")
    if isinstance(sample, DetectSample):
        return _some([_label(labels, class_id) for class_id in sorted(sample.object_ids.tolist())], "nothing")
    if isinstance(sample, ImageSample):
        return "its target" if sample.target else "no target"
    return _areas_text(sample.mask, labels)


def _areas_text(mask: NDArray[np.uint8], labels: Sequence[str]) -> str:
    ids, counts = np.unique(mask[mask < min(len(labels), IGNORED + 1)], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return _some([f"{_label(labels, ids[row])} {counts[row] / mask.size:.1%}" for row in order], "nothing")


def _some(names: list[str], nothing: str) -> str:
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + rest if names else nothing


def _label(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else f"class {class_id}"


def _drawn(
    pixels: NDArray[np.uint8],
    answer: Answer,
    other: Answer,
    geometry: Geometry,
    index: int,
    task: TaskSpec,
    labels: Sequence[str],
    longest: int = _LONGEST,
) -> Image.Image:
    picture = Image.fromarray(visible(answer[0][index], task) if task.task is Task.IMAGE else pixels)
    factor = min(max(_SHORTEST / max(picture.size), 1.0), longest / max(picture.size))
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if task.task is Task.SEGMENT:
        mine, theirs = (mask_to_source(each[0][index], geometry, task.background_id or 0) for each in (answer, other))
        return _overlaid(picture, mine, mine != theirs, task.background_id).resize(size, Image.Resampling.BILINEAR)
    if task.task is Task.INSTANCES:
        picture = _tinted(picture, answer, index, task.score_threshold)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    if task.task.has_boxes:
        found, expected = (boxes_of(each, index, task.score_threshold) for each in (answer, other))
        places = boxes_to_source(found.boxes.astype(np.float32), geometry) * factor
        _draw_boxes(picture, places, found, paired(found, expected)[0], labels)
    return picture


def _overlaid(
    picture: Image.Image, mask: NDArray[np.uint8], differs: NDArray[np.bool_], background: int | None
) -> Image.Image:
    """Paints classes over the grey image: strongly where the other answer differs, pale where it agrees."""
    grey = np.asarray(picture.convert("L").convert("RGB"), np.float32)
    colours = np.array([_COLOURS[class_id % len(_COLOURS)] for class_id in range(IGNORED + 1)], np.float32)
    is_background = np.zeros(mask.shape, np.bool_) if background is None else mask == background
    if background is not None:
        colours[background] = 0
    strength = np.where(differs, 1.0, np.where(is_background, 0.0, 0.4))[..., np.newaxis]
    return Image.fromarray((grey * (1 - strength) + colours[mask] * strength).round().astype(np.uint8))


def _tinted(picture: Image.Image, answer: Answer, index: int, threshold: float) -> Image.Image:
    """Paints the masks of a kept answer in the colours of their boxes."""
    rows = np.flatnonzero(answer[1][index, : int(answer[3][index])] >= threshold)
    pixels = np.array(picture, np.float32)
    for row, mask in zip(rows, masks_of(answer, index, rows), strict=True):
        colour = np.array(_COLOURS[answer[2][index, row] % len(_COLOURS)], np.float32)
        inside = mask.pixels()
        pixels[inside] = pixels[inside] * (1 - _TINT) + colour * _TINT
    return Image.fromarray(pixels.round().astype(np.uint8))


def _draw_boxes(
    picture: Image.Image,
    places: NDArray[np.float32],
    found: ServedBoxes,
    has_partner: NDArray[np.bool_],
    labels: Sequence[str],
) -> None:
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11)
    for place, class_id, score, is_shared in zip(
        places.tolist(), found.class_ids.tolist(), found.scores.tolist(), has_partner.tolist(), strict=True
    ):
        colour = _COLOURS[class_id % len(_COLOURS)]
        left, top, right, bottom = place
        width = 1 if is_shared else _LONE_WIDTH
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=width)
        if not is_shared:  # labels of boxes that both answers have would hide the important ones
            text, corner = f"{_label(labels, class_id)[:_LONGEST_LABEL]} {score:.2f}", (left + 1, max(0.0, top - 13))
            draw.rectangle(draw.textbbox(corner, text, font=font), fill=(0, 0, 0))
            draw.text(corner, text, fill=(255, 255, 255), font=font)
