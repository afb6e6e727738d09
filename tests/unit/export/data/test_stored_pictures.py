"""Pictures of a network whose pipeline ignored EXIF. Promises: data and labels stay in pixels of the stored picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from saccade.export.data.folder_data import folder_samples
from saccade.export.data.image_split import prepare_split
from saccade.export.data.labelled_images import DetectSample
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import PreprocessSpec, Task
from saccade.service.vision.image_decoder import USUAL_LIMITS
from tests.support.data_folders import LABELS, coco_folder

SPEC = PreprocessSpec(width=16, height=16, fit="letterbox")
STORED = SPEC.model_copy(update={"exif": "as stored"})


def lay_on_its_side(path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.save(path, exif=exif)


def test_boxes_and_pixels_follow_the_word_of_the_recipe(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    plain = folder_samples(Task.DETECT, LABELS, FolderData(path="unused"), tmp_path, "test")[0]
    before = prepare_split("test", plain, SPEC)
    for path in tmp_path.rglob("*.*"):
        if path.suffix in (".png", ".jpg"):
            lay_on_its_side(path)

    samples, _ = folder_samples(
        Task.DETECT, LABELS, FolderData(path="unused"), tmp_path, "test", limits=USUAL_LIMITS.for_network(STORED)
    )
    stored, upright = prepare_split("test", samples, STORED), prepare_split("test", samples, SPEC)

    sizes = {(place.source_width, place.source_height) for place in stored.geometries}
    assert sizes == {(place.source_width, place.source_height) for place in before.geometries}
    assert {(place.source_height, place.source_width) for place in upright.geometries} == sizes
    assert all(isinstance(sample, DetectSample) for sample in samples)
    assert not np.array_equal(stored.images, upright.images)
