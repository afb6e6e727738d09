"""The conversion's proof. Promises: a wrong output is named with its batch size, and coupled batches are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.convert.conversion_proof import (
    Arrays,
    ConversionProof,
    RawOutputs,
    compared,
    prove_conversion,
    read_proof,
    write_proof,
)
from saccade.export.convert.layer_names import name_nodes_after_layers
from saccade.export.convert.proof_images import drawn_images
from saccade.export.errors import GraphError

LOGITS = RawOutputs(("network_0",))
SHAPE = (6, 8)
IMAGES = drawn_images(8, *SHAPE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Mean of each channel, in float."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SHAPE, 3])
    answer = helper.make_tensor_value_info("network_0", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["network_0"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    graph = helper.make_graph(nodes, "means", [images], [answer], [axes])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "model.onnx"
    )
    return tmp_path / "model.onnx"


def means(images: NDArray[np.uint8]) -> Arrays:
    return [images.astype(np.float32).mean((1, 2))]


def wrong_at_three(images: NDArray[np.uint8]) -> Arrays:
    return [means(images)[0] * (1.001 if len(images) == 3 else 1.0)]


def coupled(images: NDArray[np.uint8]) -> Arrays:
    """Every row is normalised by the batch."""
    (rows,) = means(images)
    return [rows - 0.01 * rows.mean(0)]


def test_equal_outputs_are_proven_at_every_batch_size(file: Path, tmp_path: Path) -> None:
    proof = prove_conversion(means, file, LOGITS, IMAGES)

    assert [(figure.output, figure.batch_size) for figure in proof.figures] == [
        ("network_0", 1),
        ("network_0", 3),
        ("network_0", 8),
    ]
    assert proof.worst.relative_l2 < 1e-6
    assert proof.coupling is not None
    assert proof.coupling.reason(1e-4) == ""
    write_proof(proof, tmp_path)
    assert read_proof(tmp_path) == proof


def test_different_output_is_refused_with_its_name_and_batch(file: Path) -> None:
    with pytest.raises(GraphError, match=r"network_0 differs from the eager network's by 1\.0e-03 .* at batch 3"):
        prove_conversion(wrong_at_three, file, LOGITS, IMAGES)


def test_rows_that_depend_on_their_batch_are_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.export.convert.conversion_proof.MAX_ERROR", 1.0)  # the file is not what this is about

    proof = prove_conversion(coupled, file, LOGITS, IMAGES)

    assert proof.coupling is not None
    assert "depends on its batch: network_0 of row" in proof.coupling.reason(1e-4)
    assert proof.coupling.reason(1.0) == ""


def test_network_that_takes_one_image_is_proven_with_one(file: Path) -> None:
    proof = prove_conversion(means, file, LOGITS, IMAGES, is_batchable=False)

    assert [figure.batch_size for figure in proof.figures] == [1]
    assert proof.coupling is None
    assert isinstance(proof, ConversionProof)


def candidates() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 90, (2, 7, 4)), rng.uniform(0, 1, (2, 7))
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, 5, (2, 7))


DETECTIONS = RawOutputs(("boxes", "scores", "class_ids"), scores="scores", have_rows=True)


def swapped(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, [1, 0, 2, 3, 4, 5, 6]]


def test_candidates_may_change_places() -> None:
    arrays = candidates()

    figures = compared(DETECTIONS, 2, [swapped(array) for array in arrays], arrays)

    assert all(figure.is_matched and figure.relative_l2 == 0.0 for figure in figures)


def test_candidates_may_not_change_their_boxes() -> None:
    boxes, scores, class_ids = candidates()

    figures = compared(DETECTIONS, 2, (boxes + 1, scores, class_ids), (boxes, scores, class_ids))

    assert figures[0].relative_l2 > 1e-3


def test_proposals_may_change_places_beside_dense_outputs_that_may_not() -> None:
    outputs = RawOutputs(("objectness", "logits", "regression"), have_rows=True)
    rng = np.random.default_rng(0)
    dense, logits, regression = (
        rng.normal(0, 1, (2, *shape)).astype(np.float32) for shape in ((5000, 1), (7, 3), (7, 12))
    )

    moved = compared(outputs, 2, (dense, swapped(logits), swapped(regression)), (dense, logits, regression))
    wrong = compared(outputs, 2, (dense[:, ::-1], logits, regression), (dense, logits, regression))

    assert [(figure.is_matched, figure.relative_l2) for figure in moved] == [(False, 0.0), (True, 0.0), (True, 0.0)]
    assert wrong[0].relative_l2 > 1.0


def test_classes_of_a_classifier_may_not_change_places() -> None:
    logits = np.arange(14, dtype=np.float32).reshape(2, 7)

    assert compared(LOGITS, 2, [swapped(logits)], [logits])[0].relative_l2 > 0.01


def test_scores_that_nobody_asks_for_count_as_equal() -> None:
    tiny = RawOutputs(("boxes", "scores"), scores="scores")
    boxes = np.ones((1, 5000, 4), np.float32)
    low, lower = np.full((1, 5000, 2), 1e-7, np.float32), np.full((1, 5000, 2), 1e-9, np.float32)

    assert compared(tiny, 1, (boxes, low), (boxes, lower))[1].relative_l2 == 0.0
    assert compared(tiny, 1, (boxes, low), (boxes, lower + 0.5))[1].relative_l2 > 0.9


def text_map(images: NDArray[np.uint8]) -> Arrays:
    """A map that is nearly empty for dark pictures, as a text detector's is where there is no text."""
    (rows,) = means(images)
    return [np.where(rows > 128, rows / 255, rows * 1e-8).astype(np.float32)]


def save_text_map(file: Path, rounding: float) -> None:
    """Writes the same network, whose every answer is off by `rounding`."""
    model = onnx.load(file)
    model.graph.node[1].output[0] = "means"
    constants = {"limit": 128.0, "low": 1e-8, "high": 1 / 255, "rounding": rounding}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    model.graph.node.extend(
        [
            helper.make_node("Greater", ["means", "limit"], ["is_text"]),
            helper.make_node("Mul", ["means", "high"], ["text"]),
            helper.make_node("Mul", ["means", "low"], ["nothing"]),
            helper.make_node("Where", ["is_text", "text", "nothing"], ["exact"]),
            helper.make_node("Add", ["exact", "rounding"], ["network_0"]),
        ]
    )
    onnx.save(model, file)


def test_rounding_of_an_empty_map_counts_against_the_maps_of_pictures_that_show_something(file: Path) -> None:
    """A trained text detector that sees nothing in drawn pictures was "2.8e-01 off" and refused, though exact."""
    dark = np.full((8, *SHAPE, 3), 40, np.uint8)
    mixed = dark.copy()
    mixed[1::2] = 200
    save_text_map(file, rounding=1e-6)

    with pytest.raises(GraphError, match="network_0 differs"):
        prove_conversion(text_map, file, LOGITS, dark)
    assert prove_conversion(text_map, file, LOGITS, mixed).worst.relative_l2 < 1e-4
    assert prove_conversion(text_map, file, LOGITS, mixed, is_batchable=False).worst.relative_l2 < 1e-4


def test_wrong_empty_map_is_refused_beside_full_ones(file: Path) -> None:
    mixed = np.full((8, *SHAPE, 3), 40, np.uint8)
    mixed[1::2] = 200
    save_text_map(file, rounding=1e-4)

    with pytest.raises(GraphError, match="network_0 differs"):
        prove_conversion(text_map, file, LOGITS, mixed)


def test_images_of_the_proof_are_pictures_and_always_the_same() -> None:
    images = drawn_images(2, 32, 48)

    np.testing.assert_array_equal(images, drawn_images(2, 32, 48))
    assert images.shape == (2, 32, 48, 3)
    neighbours = np.abs(np.diff(images.astype(float), axis=2)).mean()
    assert neighbours < images.astype(float).std()
    assert not np.array_equal(images[0], images[1])


def test_nodes_are_named_after_their_layers() -> None:
    nodes = [helper.make_node("Relu", ["x"], [f"y{index}"], name=f"node_{index}") for index in range(3)]
    for node in nodes[:2]:
        prop = node.metadata_props.add()
        prop.key, prop.value = "pkg.torch.onnx.name_scopes", "['', 'network', 'network.act', 'relu_1']"
    model = helper.make_model(helper.make_graph(nodes, "graph", [], []))

    name_nodes_after_layers(model)

    assert [node.name for node in model.graph.node] == ["network.act/Relu", "network.act/Relu_1", "node_2"]


@dataclass(frozen=True)
class Rounding:
    """What a network answers in float64, and among how many ties it selects."""

    answers: Callable[[NDArray[np.uint8]], Arrays]
    turned: Callable[[NDArray[np.uint8]], int] = lambda images: 0


def chaotic(images: NDArray[np.uint8]) -> Arrays:
    """Answers the even pictures of the eight by their last digits, which float64 has otherwise."""
    rows = means(images)[0]
    is_even = np.isin(rows[:, 0], means(IMAGES[::2])[0][:, 0])
    return [rows * np.where(is_even, 1.3, 1.0)[:, None]]


def test_pictures_whose_answer_hangs_on_rounding_are_left_out_of_the_proof(file: Path, tmp_path: Path) -> None:
    proof = prove_conversion(chaotic, file, LOGITS, IMAGES, rounding=Rounding(means))

    assert proof.left_out == 4
    assert proof.worst.relative_l2 < 1e-6
    assert {figure.batch_size for figure in proof.figures} == {1, 3, 8}
    write_proof(proof, tmp_path)
    assert read_proof(tmp_path) == proof


def test_wrong_file_is_refused_on_the_pictures_that_float32_determines(file: Path) -> None:
    def wrong(images: NDArray[np.uint8]) -> Arrays:
        return [chaotic(images)[0] * 1.001]

    with pytest.raises(GraphError, match="an operator was converted to something else"):
        prove_conversion(wrong, file, LOGITS, IMAGES, rounding=Rounding(lambda images: [means(images)[0] * 1.001]))


def test_network_that_rounding_decides_is_refused_in_these_words(file: Path) -> None:
    with pytest.raises(GraphError, match=r"own answers hang on rounding: 8 of 8 pictures"):
        prove_conversion(lambda images: [means(images)[0] * 1.3], file, LOGITS, IMAGES, rounding=Rounding(means))


def test_network_without_float64_is_judged_on_every_picture(file: Path) -> None:
    def unable(images: NDArray[np.uint8]) -> Arrays:
        raise RuntimeError("no kernel for float64")

    with pytest.raises(GraphError, match="network_0 differs"):
        prove_conversion(chaotic, file, LOGITS, IMAGES, rounding=Rounding(unable))


def test_pictures_in_which_rounding_selects_are_left_out_of_the_proof(file: Path) -> None:
    """RT-DETR's float32 and float64 took the same one of two queries that tied, and its file the other."""
    (odd,) = means(IMAGES[1::2])

    def turned(images: NDArray[np.uint8]) -> int:
        return int(means(images)[0][0, 0] not in odd[:, 0])

    proof = prove_conversion(chaotic, file, LOGITS, IMAGES, rounding=Rounding(chaotic, turned))

    assert proof.left_out == 4
    with pytest.raises(GraphError, match=r"it selects among 8 near ties in the others"):
        prove_conversion(chaotic, file, LOGITS, IMAGES, rounding=Rounding(chaotic, lambda images: 1))
    with pytest.raises(GraphError, match="an operator was converted to something else"):
        prove_conversion(chaotic, file, LOGITS, IMAGES, rounding=Rounding(chaotic, lambda images: 0))


def test_rows_without_a_partner_are_left_out_within_a_small_share() -> None:
    rng = np.random.default_rng(0)
    outputs = RawOutputs(("boxes",), have_rows=True)
    boxes = rng.uniform(0, 90, (1, 400, 4)).astype(np.float32)
    others = boxes.copy()
    others[0, [7, 30]] += 20

    def error(loose: int, *, shift: float = 0.0) -> float:
        return compared(outputs, 1, (others + np.float32(shift),), (boxes,), loose=np.array([loose]))[0].relative_l2

    assert error(2) == 0.0
    assert error(1) > 1e-3
    assert error(2, shift=0.1) > 1e-4
    others[0, 50] += 20
    assert error(3) > 1e-3
