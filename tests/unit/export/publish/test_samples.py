"""Samples beside the models. Promises: truth speaks the API's words."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from saccade.export.data.labelled_images import ClassSample, DetectSample, SegmentSample
from saccade.export.publish.samples import sample_truth
from saccade.models.digits.digit_scenes import CLASS_NAMES, SEGMENT_CLASS_NAMES, Split, scene_sample


# pycocotools' own array class does not know numpy 2's copy keyword yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_truth_of_samples_uses_the_words_of_the_answer() -> None:
    scene = scene_sample(Split.TEST, 0, 0)

    classes = sample_truth(ClassSample(b"", 3), CLASS_NAMES)["classes"]
    detections = sample_truth(DetectSample(b"", scene.boxes, scene.class_ids), CLASS_NAMES)["detections"]
    segments = sample_truth(SegmentSample(b"", scene.mask), SEGMENT_CLASS_NAMES)["segments"]

    assert classes == [{"label": "3", "class_id": 3}]
    assert [each["box"] for each in detections] == scene.boxes.tolist()
    for segment in segments:
        mask = coco_mask.decode(segment["rle"])
        np.testing.assert_array_equal(mask, scene.mask == segment["class_id"])
        assert segment["area"] == int(mask.sum())
