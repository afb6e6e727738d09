"""Detectors from ONNX files. Promises: each layout answers as an independent decode; contradictions are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from saccade.export.convert.answer_heads import answer_head
from saccade.export.errors import RecipeError, SourceError
from saccade.export.network import NetworkRequest
from saccade.export.qualification.plain_answers import plain_answer
from saccade.export.recipe import load_recipe
from saccade.export.sources import load_network, source_facts
from saccade.models.contract.specs import MaskSpec, Normalisation, PreprocessSpec, Task, TaskSpec
from tests.support.network_requests import source_spec
from tests.support.onnx_files import centred_boxes, corners_of, suppressed, table_file, ultralytics

SIZE = (64, 32)  # width, height
ANCHORS = 42  # of strides 8, 16 and 32
CLASSES = 3
BOXES = centred_boxes(ANCHORS, SIZE)
SCORES = np.random.default_rng(1).uniform(0.05, 0.95, (ANCHORS, CLASSES)).astype(np.float32)
OBJECTNESS = np.random.default_rng(2).uniform(0.3, 1.0, (ANCHORS, 1)).astype(np.float32)


def answer(
    path: Path, outputs: dict[str, Any] | None = None, classes: int = CLASSES, pictures: int = 2
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Boxes, scores and class ids of the last of several pictures, behind the network's own head."""
    spec = source_spec({"kind": "onnx", "outputs": outputs or {}})
    preprocess = PreprocessSpec(width=SIZE[0], height=SIZE[1], fit="stretch")
    task = TaskSpec(task=Task.DETECT, max_detections=60)
    network = load_network(NetworkRequest(spec, path, task, classes, preprocess, Normalisation()))
    images = torch.zeros(pictures, 3, SIZE[1], SIZE[0])
    with torch.no_grad():
        raw = network.module(images)
        boxes, scores, ids, counts = answer_head(network, task, classes, preprocess, raw)(raw)
    last = int(counts[-1])
    return boxes[-1, :last].numpy(), scores[-1, :last].numpy(), ids[-1, :last].numpy()


def ensure_equal(found: tuple[Any, ...], boxes: NDArray[Any], scores: NDArray[Any], rows: list[int]) -> None:
    best, ids = scores.max(1), scores.argmax(1)
    np.testing.assert_allclose(found[1], best[rows], rtol=1e-5)
    np.testing.assert_allclose(found[0], boxes[rows], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found[2], ids[rows])


def kept(boxes: NDArray[Any], scores: NDArray[Any], iou: float = 0.7) -> list[int]:
    return suppressed(boxes, scores.max(1), scores.argmax(1), iou)


def test_ultralytics_file_needs_no_word(tmp_path: Path) -> None:
    table = np.concatenate([BOXES, SCORES], 1).T
    path = table_file(tmp_path / "v8.onnx", {"output0": table}, size=SIZE, metadata=ultralytics(CLASSES, SIZE))

    facts = source_facts(source_spec("onnx"), path)

    assert facts.labels == ("thing 0", "thing 1", "thing 2")
    assert facts.task == TaskSpec(task=Task.DETECT, max_detections=300)
    assert facts.preprocess == PreprocessSpec(
        width=64, height=32, fit="letterbox", resample="opencv", antialias=False, pad_value=114
    )
    corners = corners_of(BOXES)
    ensure_equal(answer(path), corners, SCORES, kept(corners, SCORES))


@pytest.mark.parametrize("units", ["pixels", "relative"])
def test_layout_of_v8_is_known_by_shape_and_its_units_by_values(tmp_path: Path, units: str) -> None:
    boxes = BOXES if units == "pixels" else BOXES / np.array([*SIZE, *SIZE], np.float32)
    path = table_file(tmp_path / "v8.onnx", {"out": np.concatenate([boxes, SCORES], 1).T}, size=SIZE, batch=1)

    corners = corners_of(BOXES)
    ensure_equal(answer(path), corners, SCORES, kept(corners, SCORES))


def test_objectness_of_v5_is_known_by_the_number_of_labels(tmp_path: Path) -> None:
    path = table_file(tmp_path / "v5.onnx", {"out": np.concatenate([BOXES, OBJECTNESS, SCORES], 1)}, size=SIZE)
    corners = corners_of(BOXES)

    assert source_facts(source_spec("onnx"), path).labels is None  # three classes with objectness, or four without
    ensure_equal(answer(path), corners, SCORES * OBJECTNESS, kept(corners, SCORES * OBJECTNESS))
    four = np.concatenate([OBJECTNESS, SCORES], 1)
    ensure_equal(answer(path, classes=4), corners, four, kept(corners, four))
    with pytest.raises(SourceError, match=r"room for 3 classes with objectness or 4 without; there are 7 labels"):
        answer(path, classes=7)


def test_yolov5_repository_s_own_export_names_its_classes(tmp_path: Path) -> None:
    table = np.concatenate([BOXES, OBJECTNESS, SCORES], 1)
    said = {"names": "['a', 'b', 'c']", "stride": "32"}
    path = table_file(tmp_path / "v5.onnx", {"output0": table}, size=SIZE, metadata=said)
    corners = corners_of(BOXES)

    assert source_facts(source_spec("onnx"), path).labels == ("a", "b", "c")
    ensure_equal(answer(path), corners, SCORES * OBJECTNESS, kept(corners, SCORES * OBJECTNESS, 0.45))
    other = table_file(tmp_path / "o.onnx", {"o": table}, size=SIZE, metadata={**said, "names": "['a']"})
    with pytest.raises(SourceError, match=r"names 1 classes, which takes 6 columns .* has 8"):
        source_facts(source_spec("onnx"), other)


COEFFICIENTS = np.random.default_rng(3).normal(size=(ANCHORS, 32)).astype(np.float32)
PROTOTYPES = np.random.default_rng(4).normal(size=(32, 8, 16)).astype(np.float32)
CORNERS = corners_of(BOXES)
END2END = np.concatenate([CORNERS, SCORES.max(1, keepdims=True), SCORES.argmax(1)[:, None]], 1).astype(np.float32)
MASKED = {
    "yolov8-seg": np.concatenate([BOXES, SCORES, COEFFICIENTS], 1).T,
    "yolov5": np.concatenate([BOXES, OBJECTNESS, SCORES, COEFFICIENTS], 1),
    "end2end": np.concatenate([END2END, COEFFICIENTS], 1),
}
SEGMENT = ultralytics(CLASSES, SIZE, task="segment")


@pytest.mark.parametrize(
    ("layout", "metadata", "scores", "iou"),
    [
        ("yolov8-seg", SEGMENT, SCORES, 0.7),
        ("yolov8-seg", {}, SCORES, 0.7),
        ("yolov5", {"names": "['a', 'b', 'c']", "stride": "32"}, SCORES * OBJECTNESS, 0.45),
        ("end2end", SEGMENT | {"end2end": "True"}, SCORES, 1.0),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_masks_go_with_the_rows_that_are_kept(
    tmp_path: Path, layout: str, metadata: dict[str, str], scores: NDArray[Any], iou: float, is_reversed: bool
) -> None:
    tables = {"output0": MASKED[layout], "output1": PROTOTYPES}
    tables = dict(reversed(tables.items())) if is_reversed else tables
    path = table_file(tmp_path / "seg.onnx", tables, size=SIZE, metadata=metadata)
    spec = source_spec("onnx")

    task = source_facts(spec, path).task

    assert task is not None
    assert task.masks == MaskSpec(form="prototypes", channels=32, height=8, width=16)
    preprocess = PreprocessSpec(width=SIZE[0], height=SIZE[1], fit="stretch")
    network = load_network(NetworkRequest(spec, path, task, CLASSES, preprocess, Normalisation()))
    with torch.no_grad():
        raw = network.module(torch.zeros(2, 3, SIZE[1], SIZE[0]))
        found = answer_head(network, task, CLASSES, preprocess, raw)(raw)
        plain = plain_answer(network, task, preprocess, raw)
    rows = kept(CORNERS, scores, iou)[: task.max_detections]
    boxes, best, ids, counts, coefficients, prototypes = (tensor[-1].numpy() for tensor in found)
    ensure_equal((boxes[: len(rows)], best[: len(rows)], ids[: len(rows)]), CORNERS, scores, rows)
    np.testing.assert_allclose(coefficients[: len(rows)], COEFFICIENTS[rows], rtol=1e-5)
    assert int(counts) == len(rows)
    assert not coefficients[len(rows) :].any()
    np.testing.assert_allclose(prototypes, PROTOTYPES, rtol=1e-5)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_boxes_of_a_network_with_masks_may_be_served_alone(tmp_path: Path) -> None:
    tables = {"output0": MASKED["yolov8-seg"], "output1": PROTOTYPES}
    path = table_file(tmp_path / "seg.onnx", tables, size=SIZE, metadata=SEGMENT)

    ensure_equal(answer(path), CORNERS, SCORES, kept(CORNERS, SCORES))
    ensure_equal(answer(path, {"layout": "yolov8-seg"}), CORNERS, SCORES, kept(CORNERS, SCORES))
    ensure_equal(answer(path, {"names": ["output0"]}), CORNERS, SCORES, kept(CORNERS, SCORES))


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"output0": MASKED["yolov8-seg"]}, "needs rows of boxes with mask coefficients, and prototypes"),
        ({"output0": MASKED["yolov8-seg"][:-1], "output1": PROTOTYPES}, "takes 39 rows, and .* has 38"),
        ({"output0": MASKED["yolov8-seg"], "output1": PROTOTYPES[:8]}, "takes 15 rows, and .* has 39"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, tables: dict[str, Any], text: str) -> None:
    path = table_file(tmp_path / "seg.onnx", tables, size=SIZE, metadata=SEGMENT)

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("onnx"), path)


def test_raw_scores_and_the_recipe_s_suppression_are_taken(tmp_path: Path) -> None:
    logits = np.log(SCORES / (1 - SCORES))
    path = table_file(tmp_path / "v8.onnx", {"out": np.concatenate([BOXES, logits], 1).T}, size=SIZE)
    corners = corners_of(BOXES)

    ensure_equal(answer(path), corners, SCORES, kept(corners, SCORES))
    found = answer(path, {"suppression": {"iou": 0.3, "per_class": False}})
    one_class = np.zeros(ANCHORS, np.int64)
    ensure_equal(found, corners, SCORES, suppressed(corners, SCORES.max(1), one_class, 0.3))
    everything = [int(row) for row in np.argsort(-SCORES.max(1))]
    ensure_equal(answer(path, {"suppression": "none"}), corners, SCORES, everything)


def test_yolox_counts_from_its_cells_and_takes_exponents(tmp_path: Path) -> None:
    grid = np.array(
        [(x, y, stride) for stride in (8, 16, 32) for y in range(32 // stride) for x in range(64 // stride)], np.float32
    )
    cells, strides = grid[:, :2], grid[:, 2:]
    raw = np.concatenate([BOXES[:, :2] / strides - cells, np.log(BOXES[:, 2:] / strides)], 1)
    path = table_file(tmp_path / "x.onnx", {"out": np.concatenate([raw, OBJECTNESS, SCORES], 1)}, size=SIZE)
    corners = corners_of(BOXES)

    scores = SCORES * OBJECTNESS
    rivals = suppressed(corners, scores.max(1), np.zeros(ANCHORS, np.int64), 0.45)  # of any class, as YOLOX's demo does
    ensure_equal(answer(path), corners, scores, rivals)


def test_end_to_end_rows_are_not_suppressed_again(tmp_path: Path) -> None:
    corners = corners_of(BOXES)
    rows = np.concatenate([corners, SCORES[:, :1], np.tile(np.arange(3, dtype=np.float32), 14)[:, None]], 1)
    said = ultralytics(CLASSES, SIZE, end2end="True")

    boxes, scores, ids = answer(table_file(tmp_path / "e.onnx", {"output0": rows}, size=SIZE, metadata=said))

    order = np.argsort(-rows[:, 4])
    np.testing.assert_allclose(boxes, corners[order], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores, rows[order, 4], rtol=1e-5)
    np.testing.assert_array_equal(ids, rows[order, 5])


def test_boxes_of_an_untrained_network_do_not_contradict_its_library(tmp_path: Path) -> None:
    turned = corners_of(BOXES)[:, [2, 3, 0, 1]]  # as direct distances without training may come out
    rows = np.concatenate([turned, SCORES[:, :1], np.tile(np.arange(3, dtype=np.float32), 14)[:, None]], 1)
    said, words = ultralytics(CLASSES, SIZE, end2end="True"), {"layout": "end2end", "boxes": "xyxy"}

    answer(table_file(tmp_path / "said.onnx", {"output0": rows}, size=SIZE, metadata=said), words)

    with pytest.raises(SourceError, match="which are not x1 y1 x2 y2"):
        answer(table_file(tmp_path / "silent.onnx", {"output0": rows}, size=SIZE), words)


@pytest.mark.parametrize("has_nothing", [False, True])
def test_queries_are_read_by_the_number_of_labels(tmp_path: Path, has_nothing: bool) -> None:
    logits = np.random.default_rng(3).normal(0, 2, (20, CLASSES + has_nothing)).astype(np.float32)
    boxes = centred_boxes(20, (1, 1))
    path = table_file(tmp_path / "d.onnx", {"logits": logits, "pred_boxes": boxes}, size=SIZE)

    found = answer(path)

    if has_nothing:
        exponents = np.exp(logits)
        pairs = (exponents / exponents.sum(1, keepdims=True))[:, :CLASSES].max(1)
    else:
        pairs = (1 / (1 + np.exp(-logits))).ravel()
    np.testing.assert_allclose(found[1], np.sort(pairs)[::-1], rtol=1e-4)
    assert found[0].max() > 2.0  # pixels, not shares
    with pytest.raises(SourceError, match=r"write `labels`, or outputs\.scores"):
        answer(path, classes=9)


def test_boxes_with_score_in_one_tensor_keep_their_class_ids(tmp_path: Path) -> None:
    rows = np.concatenate([corners_of(BOXES), SCORES[:, :1]], 1)
    labels = np.tile(np.arange(3, dtype=np.int64), 14)

    found = answer(table_file(tmp_path / "m.onnx", {"dets": rows, "labels": labels}, size=SIZE))

    order = np.argsort(-rows[:, 4])
    np.testing.assert_allclose(found[0], rows[order, :4], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found[2], labels[order])


def read(path: Path, outputs: dict[str, Any]) -> None:
    """As a recipe without labels does, then as one with three."""
    source_facts(source_spec({"kind": "onnx", "outputs": outputs}), path)
    answer(path, outputs)


V8 = np.concatenate([BOXES, SCORES], 1).T
V5 = np.concatenate([BOXES, SCORES[:, :1], SCORES], 1)
MANY = np.concatenate([BOXES, np.full((len(BOXES), 10_000), 0.1, np.float32)], 1).T


@pytest.mark.parametrize(
    ("tables", "metadata", "outputs", "text"),
    [
        ({"output0": V8}, ultralytics(80, SIZE), {}, "names 80 classes, which takes 84 rows, and .* has 7"),
        ({"output0": V8}, ultralytics(CLASSES, (64, 64)), {}, "its metadata says pictures of .64, 64."),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, stride="48"), {}, "stride 48, which does not divide"),
        ({"output0": V8[:, :-1]}, ultralytics(CLASSES, SIZE), {}, "have 42 anchors at strides 8, 16 and 32"),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, end2end="True"), {}, "says that boxes are suppressed already"),
        ({"output0": V8}, ultralytics(0, SIZE), {}, "names no class"),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, names="{'a"), {}, "'names' cannot be read"),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, task="pose"), {}, "keypoints are not served"),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, task="obb"), {}, "rotated boxes are not served"),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, task="segment"), {}, "takes 39 rows, and .* has 7"),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, task="nonsense"), {}, "no task of Ultralytics"),
        ({"out": np.where(V8 > 20, np.nan, V8)}, {}, {}, "holds NaN or infinite numbers"),
        ({"out": V8[:4]}, {}, {}, "would have 0 classes|has 0 classes"),
        ({"out": -V8}, {}, {}, "neither corners"),
        ({"out": V8}, {}, {"names": ["absent"]}, "has no output 'absent'"),
        ({"out": V8 + 2}, {}, {"scores": "probabilities"}, "but they leave 0..1"),
        ({"out": V8}, {}, {"layout": "yolox"}, "one row per cell|classes; there are"),
        ({"out": V8}, {}, {"layout": "end2end"}, "rows of 6 numbers"),
        ({"out": V8}, {}, {"threshold": 0.4}, "outputs.threshold belongs to segmenters of one channel"),
        ({"out": V8}, {}, {"names": ["out"], "layout": "detr"}, "layout detr reads logits and boxes"),
        ({"out": V8}, {}, {"scores": "logits"}, "one softmax, which this layout does not have"),
        (
            {"output0": V8},
            ultralytics(CLASSES, SIZE, task="classify"),
            {},
            "task: classify .*needs one output of scores",
        ),
        ({"output0": V8}, ultralytics(CLASSES, SIZE, names="{3: 'a', 4: 'b', 5: 'c'}"), {}, "not from 0 on"),
        ({"output0": MANY}, ultralytics(10_000, SIZE), {}, "would have 10000 classes as layout yolov8"),
        ({"out": MANY}, {}, {"layout": "yolov8"}, "would have 10000 classes|has 10000 classes"),
        ({"out": np.where(V5 > 20, np.nan, V5)}, {}, {"layout": "yolov5"}, "holds NaN or infinite numbers"),
    ],
)
def test_contradiction_is_refused_in_words(
    tmp_path: Path, tables: dict[str, Any], metadata: dict[str, str], outputs: dict[str, Any], text: str
) -> None:
    path = table_file(tmp_path / "net.onnx", tables, size=SIZE, metadata=metadata)

    with pytest.raises(SourceError, match=text):
        read(path, outputs)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"outputs": {"layout": "yolov99"}}, r"outputs\.layout: .*'yolov5', 'yolov8'"),
        ({"outputs": {"layot": "yolov8"}}, r"unknown key 'layot', did you mean 'layout'\?"),
        ({"outputs": {"boxes": "xywh"}}, r"outputs\.boxes: .*'xyxy' or 'cxcywh'"),
        ({"outputs": {"units": "percent"}}, r"outputs\.units: .*'pixels' or 'relative'"),
        ({"outputs": {"scores": "softmax"}}, r"outputs\.scores: .*'logits', 'probabilities' or 'sigmoid'"),
        ({"outputs": {"objectness": "much"}}, r"outputs\.objectness: .*boolean"),
        ({"outputs": {"suppression": {"iou": 1.5}}}, r"outputs\.suppression.*less than or equal to 1"),
        ({"outputs": {"threshold": -0.1}}, r"outputs\.threshold: .*greater than or equal to 0"),
        ({"outputs": {"names": []}}, r"outputs\.names: .*at least 1 item"),
        ({"input_layout": "hwcn"}, r"input_layout: .*'nchw' or 'nhwc'"),
        ({"channels": 4}, r"channels: .*1 or 3"),
        ({"value_range": [1, 0]}, r"value_range: must ascend, got \[1\.0, 0\.0\]"),
        ({"preprocess": {"channel_order": "grb"}}, r"preprocess\.channel_order: .*'rgb' or 'bgr'"),
        ({"preprocess": {"fit": "letterbox", "rounding": "floor"}}, "rounding: floor starts from shortest_edge"),
        ({"preprocess": {"fit": "letterbox", "pad_value": 300}}, r"preprocess\.pad_value: .*less than or equal to 255"),
    ],
)
def test_a_word_with_a_value_that_does_not_exist_is_refused_by_name(
    tmp_path: Path, words: dict[str, Any], text: str
) -> None:
    table_file(tmp_path / "net.onnx", {"out": V8}, size=SIZE)
    document = {"source": "onnx", "weights": "net.onnx", "data": "pictures", "labels": ["a", "b", "c"], **words}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))

    with pytest.raises(RecipeError, match=text):
        load_recipe(tmp_path / "recipe.yaml")
