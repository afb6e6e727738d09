"""The pointing game: hits in the picture's own pixels, and what a map that looks anywhere would reach."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample, DetectSample
from saccade.export.qualification.pointing import covered, explanation_figure, is_hit
from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.preprocessing import Geometry, geometry_of, unmoved
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.backends.base import Outputs, UInt8Array
from tests.support.versions import EXPLANATION

PLACE = Geometry(64, 64, 0, 0, 64, 64)
SQUARE = PreprocessSpec(width=64, height=64, fit="stretch")


def heat_at(row: int, column: int) -> np.ndarray:
    heat = np.zeros((4, 4), np.float32)
    heat[row, column] = 1.0
    return heat


def test_the_middle_of_the_hottest_cell_counts() -> None:
    box = np.array([[16.0, 32.0, 32.0, 48.0]])
    assert is_hit(heat_at(2, 1), PLACE, (64, 64), box)
    assert not is_hit(heat_at(1, 2), PLACE, (64, 64), box)


def test_boxes_are_in_pixels_of_the_picture_behind_bars() -> None:
    spec = PreprocessSpec(width=64, height=64, fit="letterbox")
    place = geometry_of(256, 128, spec)  # rows 16 to 48 of the input
    box = np.array([[0.0, 0.0, 64.0, 64.0]])  # the upper left quarter's left half
    assert is_hit(heat_at(1, 0), place, (64, 64), box)
    assert not is_hit(heat_at(0, 0), place, (64, 64), box)  # a bar


def test_chance_counts_what_boxes_share_once() -> None:
    assert covered(PLACE, np.array([[0.0, 0, 32, 64], [16, 0, 32, 64]])) == pytest.approx(0.5)


class Pointing:
    """Looks at the brightest quarter and answers class 1."""

    provider = "made up"

    def infer(self, images: UInt8Array) -> Outputs:
        return [np.ones((len(images), 1), np.float32), np.ones((len(images), 1), np.int32)]

    def infer_asked(self, images: UInt8Array, asked: int) -> Outputs:
        heat = images[..., 0].reshape(len(images), 4, 16, 4, 16).mean((2, 4)).astype(np.float32)
        return [*self.infer(images), *([heat] if asked & ExtraKind.EXPLAIN.bit else [])]

    def close(self) -> None:
        pass


def split_of(*samples: ClassSample | DetectSample) -> ImageSplit:
    images = np.zeros((len(samples), 64, 64, 3), np.uint8)
    images[:, 16:32, 16:32] = 200  # cell (1, 1)
    return ImageSplit("test", samples, images, [unmoved(SQUARE)] * len(samples), ("",) * len(samples))


def test_a_classifiers_right_answers_are_counted() -> None:
    right, beside = (16.0, 16.0, 32.0, 32.0), (40.0, 40.0, 56.0, 56.0)
    samples = [ClassSample(b"", 1, box=right), ClassSample(b"", 1, box=beside), ClassSample(b"", 2, box=right)]
    found = explanation_figure(Pointing(), (EXPLANATION,), split_of(*samples, ClassSample(b"", 1)))
    assert found is not None
    assert (found.method, found.pictures, found.hits) == ("class activation", 2, 0.5)
    assert found.chance == pytest.approx(1 / 16)
    assert found.time_ratio > 0


def test_an_embedder_names_no_class() -> None:
    class Embedding(Pointing):
        def infer(self, images: UInt8Array) -> Outputs:
            return [np.ones((len(images), 4), np.float32)]

    found = explanation_figure(Embedding(), (EXPLANATION,), split_of(ClassSample(b"", 7, box=(16.0, 16.0, 32.0, 32.0))))
    assert found is not None
    assert (found.pictures, found.hits) == (1, 1.0)


def test_a_detectors_pictures_with_objects_are_counted() -> None:
    boxes, none = np.array([[0.0, 0, 8, 8], [16, 16, 32, 32]]), np.zeros((0, 4))
    samples = [DetectSample(b"", boxes, np.array([0, 1])), DetectSample(b"", none, np.zeros(0, np.int64))]
    found = explanation_figure(Pointing(), (EXPLANATION,), split_of(*samples))
    assert found is not None
    assert (found.pictures, found.hits) == (1, 1.0)


def test_pictures_without_boxes_give_the_cost_alone() -> None:
    found = explanation_figure(Pointing(), (EXPLANATION,), split_of(ClassSample(b"", 1)))
    assert found is not None
    assert (found.pictures, found.hits, found.chance) == (0, None, None)
    assert explanation_figure(Pointing(), (), split_of(ClassSample(b"", 1))) is None
