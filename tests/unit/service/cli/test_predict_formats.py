"""What `saccade predict` prints for other programs, read back as those programs read it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.client import Served
from saccade.models.contract.run_lengths import MaskWindow, RunLengths
from saccade.service.cli.brush_runs import brush_runs
from saccade.service.cli.predict_asking import Asked
from saccade.service.cli.predict_formats import printed
from saccade.service.client.answers import prediction_from

SERVED = Served("m", "2", "fp32", "r", {"total": 1.0}, None)
MASK = np.zeros((40, 50), bool)
MASK[10:20, 5:25] = True
FAILED = Asked("bad.jpg", None, {"status": 422, "title": "Image cannot be used", "detail": 'cut off, "really"'})
BOX = {"label": "cat", "class_id": 3, "score": 0.5, "box": [5.0, 10.0, 25.0, 20.0]}


def asked(image: str, **document: Any) -> Asked:
    return Asked(image, prediction_from({"width": 50, "height": 40, **document}, SERVED), {})


def rle_of(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"size": [*mask.shape], "counts": MaskWindow(0, 0, mask).run_lengths(*mask.shape).counts.decode()}


CLASSES = asked("a.jpg", classes=[{"label": "cat", "class_id": 3, "score": 0.5}])
BOXES = asked("b.jpg", detections=[BOX])
NOTHING = asked("c.jpg", detections=[])
INSTANCE = asked("d.jpg", detections=[{**BOX, "area": 200, "rle": rle_of(MASK)}])
SEGMENT = asked("e.jpg", segments=[{"label": "cat", "class_id": 3, "area": 200, "rle": rle_of(MASK)}])


def test_csv_has_a_line_per_object_and_one_for_every_other_picture() -> None:
    rows = list(csv.DictReader(io.StringIO(printed([CLASSES, BOXES, NOTHING, FAILED, SEGMENT], "csv"))))

    assert [row["image"] for row in rows] == ["a.jpg", "b.jpg", "c.jpg", "bad.jpg", "e.jpg"]
    assert [row["label"] for row in rows] == ["cat", "cat", "", "", "cat"]
    assert [rows[1][name] for name in ("version", "score", "x1", "y1", "x2", "y2")] == [
        *("2", "0.5", "5.0", "10.0", "25.0", "20.0")
    ]
    assert rows[3]["problem"] == '422 Image cannot be used: cut off, "really"'
    assert rows[4]["area"] == "200"


def test_json_is_the_servers_answer_beside_the_name() -> None:
    first, second = json.loads(printed([BOXES, FAILED], "json"))

    assert first["image"] == "b.jpg"
    assert first["predictions"] == [{"width": 50, "height": 40, "detections": [BOX]}]
    assert (first["version"], first["timings_ms"]) == ("2", {"total": 1.0})
    assert second["problem"]["status"] == 422


def test_coco_has_boxes_masks_and_scores() -> None:
    document = json.loads(printed([BOXES, NOTHING, FAILED, INSTANCE, SEGMENT], "coco"))

    assert [(image["id"], image["file_name"]) for image in document["images"]] == [
        (1, "b.jpg"),
        (2, "c.jpg"),
        (3, "d.jpg"),
        (4, "e.jpg"),
    ]
    assert document["categories"] == [{"id": 3, "name": "cat"}]
    box, instance, segment = document["annotations"]
    assert [item["bbox"] for item in (box, instance, segment)] == [[5, 10, 20, 10]] * 3
    assert [item["area"] for item in (box, instance, segment)] == [200] * 3
    assert [item["image_id"] for item in (box, instance, segment)] == [1, 3, 4]
    assert box["score"] == 0.5
    for item in (instance, segment):
        height, width = item["segmentation"]["size"]
        assert (RunLengths(height, width, item["segmentation"]["counts"].encode()).pixels() == MASK).all()


def test_coco_refuses_labels_of_whole_pictures() -> None:
    with pytest.raises(ValueError, match="csv"):
        printed([CLASSES], "coco")


def test_label_studio_gets_tasks_with_regions_in_percent() -> None:
    classes, boxes, nothing, segment = json.loads(printed([CLASSES, BOXES, NOTHING, SEGMENT, FAILED], "labelstudio"))

    assert [task["data"]["image"] for task in (classes, boxes, nothing, segment)] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "e.jpg",
    ]
    assert classes["predictions"][0]["result"][0]["value"] == {"choices": ["cat"]}
    (prediction,) = boxes["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("m/2", 0.5)
    assert prediction["result"][0]["value"] == {
        **{"x": 10, "y": 25, "width": 40, "height": 25, "rotation": 0},
        "rectanglelabels": ["cat"],
    }
    assert nothing["predictions"][0]["result"] == []
    region = segment["predictions"][0]["result"][0]
    assert (region["type"], region["value"]["brushlabels"]) == ("brushlabels", ["cat"])
    assert (unpacked(region["value"]["rle"]).reshape(40, 50, 4)[..., 3] == 255 * MASK).all()


def unpacked(packed: list[int]) -> NDArray[np.uint8]:
    """As Label Studio reads it: a flag, the size of a count, the count less one, then one value or so many."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(word)] * count if is_run else [read(word) for _ in range(count)]
    return np.array(values, np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_brush_runs_are_read_back_whole(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.repeat(random.random((30, 40)) < 0.5, 20, axis=1) if seed % 2 else random.random((30, 40)) < 0.5

    assert (unpacked(brush_runs(mask)).reshape(*mask.shape, 4) == 255 * mask[..., None]).all()


def test_a_run_longer_than_its_count_can_say_is_split() -> None:
    assert (unpacked(brush_runs(np.ones((300, 200), bool))) == 255).all()


def test_vectors_have_one_line_each_and_no_place_in_data_sets() -> None:
    item = asked("a.jpg", embedding={"dim": 3, "dtype": "float32", "values": [0.1, -0.7, 0.7]})

    assert printed([item], "csv").splitlines() == [
        "image,model,version,variant,dim,vector,problem",
        "a.jpg,m,2,fp32,3,0.1 -0.7 0.7,",
    ]
    for name in ("coco", "labelstudio"):
        with pytest.raises(ValueError, match="no place for vectors"):
            printed([item], name)
