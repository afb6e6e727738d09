"""The comparison with Ultralytics. Promises held here: the verdict, the table, and what both sides exchange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.export.qualification.picture_answers import PictureDifference
from saccade.models.digits.digit_scenes import SCENE_SIZE, Split, scene_sample
from tests.matrix.ultralytics.networks import ENTRIES, FORMS, VERSION, entry_of
from tests.matrix.ultralytics.rows import Row, counted, read_rows, write_rows
from tests.matrix.ultralytics.scenes import label_lines, outline_of
from tests.matrix.ultralytics.table import markdown, totals

GOOD = {"share": 0.995, "theirs": 1000, "same": 995, "worst_score": 0.02, "worst_iou": 0.8, "photographs": 27}


def _row(**facts: object) -> Row:
    known = {"id": "yolov8n", "form": "static", "key": "k", "library": VERSION, "task": "detect", "side": 640}
    return Row.model_validate(known | GOOD | facts)


@pytest.mark.parametrize(
    ("facts", "agrees"),
    [
        ({}, True),
        ({"same": 990}, True),
        ({"same": 989}, False),
        ({"surplus": 1}, False),
        ({"failure": "run: denied"}, False),
        ({"share": None}, False),
        ({"theirs": 0, "same": 0, "share": 1.0}, False),  # nothing was compared
        ({"task": "classify", "theirs": 27, "same": 27, "worst_score": 0.01}, True),
        ({"task": "classify", "theirs": 27, "same": 26, "worst_score": 0.01}, False),
        ({"task": "classify", "theirs": 27, "same": 27, "worst_score": 0.011}, False),
    ],
)
def test_a_row_agrees_only_where_all_that_was_asked_holds(facts: dict[str, object], agrees: bool) -> None:
    assert _row(**facts).agrees is agrees


def test_figures_are_summed_over_pictures_and_the_worst_are_named() -> None:
    found = [
        PictureDifference("a.jpg", 10, 10, 0, 0.999, 0.001, 0.99),
        PictureDifference("b.jpg", 5, 4, 1, 0.95, 0.02, 0.97),
    ]

    row = _row(**counted(found))

    assert (row.theirs, row.same, row.surplus, row.worst_iou, row.worst_score) == (15, 14, 1, 0.95, 0.02)
    assert row.share == pytest.approx(14 / 16)
    assert row.worst_mask_iou == 0.97
    assert [each.name for each in row.worst] == ["b.jpg"]


def test_rows_are_kept_in_the_order_of_the_networks(tmp_path: Path) -> None:
    last = _row(id=ENTRIES[-1].id)
    written = write_rows(tmp_path, [last, _row(id="gone"), _row(), _row(form="dynamic")])

    assert [(row.id, row.form) for row in written] == [
        ("yolov8n", "dynamic"),
        ("yolov8n", "static"),
        (ENTRIES[-1].id, "static"),
    ]
    assert list(read_rows(tmp_path).values()) == written


def test_the_table_has_a_line_per_network_and_form_and_says_what_differs() -> None:
    bad = _row(id="yolo11n", surplus=2, worst=({"name": "a.jpg", "theirs": 9, "same": 9, "surplus": 2},))

    text = markdown({("yolov8n", "static"): _row(), ("yolo11n", "static"): bad})

    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len(ENTRIES) * len(FORMS)
    assert sum(line.endswith("| not run yet |") for line in lines) == len(lines) - 2
    assert "| `yolov8n` | static | 640×640 | 27 photographs | 1000 | 995 (99.50%) | 0 | 0.8000 | 0.0200 |" in text
    assert "- `yolo11n`, static: a.jpg 9 of 9 and 2 surplus" in text
    assert totals({("yolov8n", "static"): _row()}).startswith("**1** of ")


def test_end_to_end_networks_are_asked_for_their_own_head() -> None:
    assert entry_of("yolo26n-end-to-end").words["nms"] is False
    assert "nms" not in entry_of("yolo26n").words
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES)


def test_the_outline_of_a_square_is_its_edge() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[4:12, 2:10] = True

    ring = outline_of(mask)

    np.testing.assert_allclose([ring.min(0), ring.max(0)], [[2, 4], [10, 12]])


def test_every_digit_of_a_scene_has_a_line_whose_outline_spans_its_box() -> None:
    scene = scene_sample(Split.TEST, 20, 0)

    lines = [line.split() for line in label_lines(scene)]

    assert [int(line[0]) for line in lines] == scene.class_ids.tolist()
    corners = np.array([_span(line) for line in lines]) * SCENE_SIZE
    assert np.abs(corners - scene.boxes).mean() < 1.0  # pixels; a digit's loose dots are no part of its outline


def _span(line: list[str]) -> list[float]:
    points = np.array(line[1:], np.float64).reshape(-1, 2)
    return [*points.min(0).tolist(), *points.max(0).tolist()]
