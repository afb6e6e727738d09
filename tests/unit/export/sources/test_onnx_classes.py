"""Classifiers and segmenters from ONNX files. Promises: no second softmax, other inputs are taken, doubts are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from saccade.export.convert.answer_heads import answer_head
from saccade.export.errors import SourceError
from saccade.export.sources import load_network, source_facts
from saccade.models.contract.specs import Task, TaskSpec
from tests.support.network_requests import network_request, source_spec
from tests.support.onnx_files import table_file, ultralytics

LOGITS = np.array([0.5, 3.0, -2.0], np.float32)
SIDE = 8


def scores_of(path: Path, source: str | dict[str, Any] = "onnx", **changes: Any) -> tuple[Any, Any]:
    """Scores and class ids of a black picture, best first."""
    request = network_request(source, path, **changes)
    network = load_network(request)
    with torch.no_grad():
        raw = network.module(torch.zeros(2, 3, request.preprocess.height, request.preprocess.width))
        scores, ids = answer_head(network, request.task, request.classes, request.preprocess, raw)(raw)
    return scores[1].numpy(), ids[1].numpy()


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid"])
def test_probabilities_stay_as_they_are(tmp_path: Path, end: str) -> None:
    path = table_file(tmp_path / "net.onnx", {"p": LOGITS}, ends={"p": end})
    exponents = np.exp(LOGITS)
    expected = exponents / exponents.sum() if end == "Softmax" else 1 / (1 + np.exp(-LOGITS))

    scores, ids = scores_of(path)

    np.testing.assert_allclose(scores, np.sort(expected)[::-1], rtol=1e-5)
    assert ids.tolist() == [1, 0, 2]


def test_probabilities_without_an_operator_to_tell_are_known_by_their_sum(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"p": np.array([0.2, 0.7, 0.1], np.float32)})

    assert scores_of(path)[0][0] == pytest.approx(0.7)


def test_logits_get_one_softmax_and_the_recipe_s_sigmoid_replaces_it(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"l": LOGITS})

    assert scores_of(path)[0].sum() == pytest.approx(1.0)
    each = scores_of(path, {"kind": "onnx", "outputs": {"scores": "sigmoid"}})[0]
    np.testing.assert_allclose(each, np.sort(1 / (1 + np.exp(-LOGITS)))[::-1], rtol=1e-5)


def test_one_probability_is_that_of_the_second_label(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"p": LOGITS[:1]}, ends={"p": "Sigmoid"})

    scores, ids = scores_of(path)

    np.testing.assert_allclose(scores, [0.62246, 0.37754], rtol=1e-4)
    assert ids.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("table", "end", "outputs", "text"),
    [
        (LOGITS[1:2], "Identity", {}, "softmax of one class is always 1; write `outputs: {scores: sigmoid}`"),
        (LOGITS[1:2], "Identity", {"scores": "logits"}, "write `outputs: {scores: sigmoid}`"),
        (LOGITS, "Softmax", {"scores": "logits"}, "holds probabilities already"),
        (LOGITS, "Sigmoid", {"scores": "sigmoid"}, "holds probabilities already"),
        (LOGITS, "Identity", {"scores": "probabilities"}, r"values outside of 0\.\.1"),
        (LOGITS / 10 + 0.3, "Relu", {}, r"do not sum to 1, made by Relu"),
    ],
)
def test_doubtful_scores_are_refused(tmp_path: Path, table: Any, end: str, outputs: dict[str, Any], text: str) -> None:
    path = table_file(tmp_path / "net.onnx", {"p": table}, ends={"p": end})

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec({"kind": "onnx", "outputs": outputs}), path)


@pytest.mark.parametrize("end", ["Sigmoid", "Identity"])
def test_a_threshold_answers_every_label_by_its_own_probability(tmp_path: Path, end: str) -> None:
    path = table_file(tmp_path / "net.onnx", {"p": LOGITS}, ends={"p": end})
    words = {"threshold": 0.4} if end == "Sigmoid" else {"threshold": 0.4, "scores": "sigmoid"}
    source = {"kind": "onnx", "outputs": words}

    facts = source_facts(source_spec(source), path)
    scores, ids = scores_of(path, source)

    assert facts.task == TaskSpec(task=Task.CLASSIFY, top_k=3, multi_label=True, score_threshold=0.4)
    np.testing.assert_allclose(scores, np.sort(1 / (1 + np.exp(-LOGITS)))[::-1], rtol=1e-5)
    assert ids.tolist() == [1, 0, 2]


def test_the_recipes_task_makes_logits_stand_for_themselves(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"l": LOGITS})

    scores, _ = scores_of(path, task=TaskSpec(task=Task.CLASSIFY, top_k=3, multi_label=True))

    np.testing.assert_allclose(scores, np.sort(1 / (1 + np.exp(-LOGITS)))[::-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "end", "outputs", "text"),
    [
        (LOGITS, "Identity", {}, "do not compete, but .* needs `scores: sigmoid` for that"),
        (LOGITS[:1], "Sigmoid", {}, "is one column, the second of two labels"),
        (np.zeros((3, SIDE, SIDE), np.float32), "Identity", {}, "cuts one channel, and of .* the largest of 3 wins"),
        (np.zeros((1, SIDE, SIDE), np.float32) - 3, "Identity", {}, "outputs: {scores: sigmoid}"),
    ],
)
def test_a_threshold_needs_scores_that_stand_for_themselves(
    tmp_path: Path, table: Any, end: str, outputs: dict[str, Any], text: str
) -> None:
    path = table_file(tmp_path / "net.onnx", {"p": table}, size=(SIDE, SIDE), ends={"p": end})

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec({"kind": "onnx", "outputs": {"threshold": 0.4, **outputs}}), path)


def mean_file(path: Path, shape: list[Any], element: int = TensorProto.FLOAT) -> Path:
    """Logits are means over pixels of each channel, times 4 or -4."""
    channels_last = shape[3] in (1, 3)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], axes=[1, 2] if channels_last else [2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["logits"]),
    ]
    channels = shape[3] if channels_last else shape[1]
    kind = np.float16 if element == TensorProto.FLOAT16 else np.float32
    weight = numpy_helper.from_array(np.tile([[4.0, -4.0]], (channels, 1)).astype(kind), "w")
    values = [
        helper.make_tensor_value_info(name, element, dims) for name, dims in (("images", shape), ("logits", ["n", 2]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("shape", "element"),
    [
        (["n", SIDE, SIDE, 3], TensorProto.FLOAT),
        (["n", 1, SIDE, SIDE], TensorProto.FLOAT),
        (["n", SIDE, SIDE, 1], TensorProto.FLOAT),
        (["n", 3, SIDE, SIDE], TensorProto.FLOAT16),
    ],
)
def test_other_inputs_are_taken(tmp_path: Path, shape: list[Any], element: int) -> None:
    network = load_network(network_request("onnx", mean_file(tmp_path / "net.onnx", shape, element)))
    images = torch.stack([torch.full((3, SIDE, SIDE), level) for level in (0.25, 0.75)])

    logits = network.module(images)

    factor = 12.0 if 3 in shape else 4.0
    np.testing.assert_allclose(logits[:, 0].numpy(), np.array([0.25, 0.75]) * factor, rtol=1e-3)


def test_grey_is_weighed_as_pillow_does(tmp_path: Path) -> None:
    network = load_network(network_request("onnx", mean_file(tmp_path / "net.onnx", ["n", 1, SIDE, SIDE])))
    red = torch.zeros(1, 3, SIDE, SIDE)
    red[:, 0] = 1.0

    assert float(network.module(red)[0, 0]) == pytest.approx(4 * 0.299, rel=1e-4)


def test_value_range_is_the_normalisation(tmp_path: Path) -> None:
    path = mean_file(tmp_path / "net.onnx", ["n", SIDE, SIDE, 3])

    facts = source_facts(source_spec({"kind": "onnx", "value_range": [-1, 1]}), path)

    assert facts.normalisation is not None
    assert (facts.normalisation.mean[0], facts.normalisation.std[0]) == (0.5, 0.5)


@pytest.mark.parametrize(("kind", "is_served"), [(TensorProto.INT8, True), (TensorProto.FLOAT8E4M3FN, False)])
def test_a_file_that_is_quantized_already_is_served_as_int8_or_refused(
    tmp_path: Path, kind: int, is_served: bool
) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"]),
        helper.make_node("Conv", ["images", "w"], ["c"], name="stem"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    tensors = [
        helper.make_tensor("w8", kind, [2, 3, 1, 1], [1.0] * 6 if not is_served else [1] * 6),
        numpy_helper.from_array(np.float32(0.1), "scale"),
    ]
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2]),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")

    if is_served:
        assert source_facts(source_spec("onnx"), tmp_path / "net.onnx").quantized == "the weights of stem"
        return
    with pytest.raises(SourceError, match=r"quantized already \(the weights of stem\), and not to int8"):
        source_facts(source_spec("onnx"), tmp_path / "net.onnx")


def mask_of(path: Path, source: str | dict[str, Any] = "onnx", classes: int = 2) -> Any:
    request = network_request(source, path, task=TaskSpec(task=Task.SEGMENT), classes=classes)
    network = load_network(request)
    with torch.no_grad():
        raw = network.module(torch.zeros(2, 3, SIDE, SIDE))
        return answer_head(network, request.task, classes, request.preprocess, raw)(raw)[0][1].numpy()


def test_one_channel_is_cut_at_the_threshold(tmp_path: Path) -> None:
    channel = np.random.default_rng(0).normal(0, 2, (1, SIDE, SIDE)).astype(np.float32)
    path = table_file(tmp_path / "net.onnx", {"m": channel}, size=(SIDE, SIDE), ends={"m": "Sigmoid"})
    probability = 1 / (1 + np.exp(-channel[0]))

    np.testing.assert_array_equal(mask_of(path), probability > 0.5)
    low = {"kind": "onnx", "outputs": {"threshold": 0.2}}
    np.testing.assert_array_equal(mask_of(path, low), probability > 0.2)


def test_class_ids_per_pixel_are_the_mask(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (SIDE, SIDE)).astype(np.int32)
    path = table_file(
        tmp_path / "net.onnx",
        {"output0": ids},
        size=(SIDE, SIDE),
        metadata=ultralytics(3, (SIDE, SIDE), task="semantic", stride="8"),
    )

    assert source_facts(source_spec("onnx"), path).labels == ("thing 0", "thing 1", "thing 2")
    np.testing.assert_array_equal(mask_of(path, classes=3), ids)
