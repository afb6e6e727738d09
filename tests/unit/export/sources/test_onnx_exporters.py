"""Programs that write ONNX files. Promises: what a file says of its pixels is taken, and a lie is one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_recognition import Recognition, SettledWord, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords

SIDE, CLASSES = 16, 3
RANGE, FORMAT = "Image.NominalPixelRange", "Image.BitmapPixelFormat"


def classifier(
    path: Path,
    *,
    producer: str = "pytorch",
    metadata: Mapping[str, str] | None = None,
    image: Sequence[int | str] = ("n", 3, SIDE, SIDE),
    entry: str = "images",
    first: tuple[str, Any] | None = None,
) -> Path:
    """Averages over pixels, a linear layer and a softmax; `first` is an operator on the pixels, with its constant.

    A file that takes channels last begins with one Transpose, as those of tf2onnx do.
    """
    nodes, tensors, name = [], [numpy_helper.from_array(np.eye(3, CLASSES, dtype=np.float32), "w")], entry
    if image[3] == 3:
        nodes.append(helper.make_node("Transpose", [name], ["turned"], perm=[0, 3, 1, 2]))
        name = "turned"
    if first is not None:
        operator, number = first
        tensors.append(numpy_helper.from_array(np.array(number, np.float32), "number"))
        nodes.append(helper.make_node(operator, [name, "number"], ["scaled"]))
        name = "scaled"
    nodes += [
        helper.make_node("ReduceMean", [name], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["l"]),
        helper.make_node("Softmax", ["l"], ["scores"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info(entry, TensorProto.FLOAT, list(image))]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def recognition(path: Path, words: FileWords | None = None) -> Recognition:
    given = words or FileWords()
    return recognised(signs_of(path, given), given)


def word(found: Recognition, name: str) -> SettledWord | None:
    return next((each for each in found.findings if each.word == name), None)


@pytest.mark.parametrize(
    ("settings", "name", "origin"),
    [
        ({"producer": "tf2onnx", "image": ("n", SIDE, SIDE, 3)}, "tf2onnx (TensorFlow, Keras)", "said"),
        ({"producer": "PaddlePaddle", "entry": "x"}, "Paddle2ONNX (PaddlePaddle)", "said"),
        ({"entry": "pixel_values"}, "optimum (transformers)", "assumed"),
        ({"metadata": {FORMAT: "Rgb8"}}, "Custom Vision or another program of Windows ML", "assumed"),
    ],
)
def test_the_program_is_named_with_its_sign(settings: dict[str, Any], name: str, origin: str, tmp_path: Path) -> None:
    found = word(recognition(classifier(tmp_path / "n.onnx", **settings)), "exporter")

    assert found is not None
    assert (found.value, found.origin) == (name, origin)


def test_a_file_without_a_sign_names_no_program(tmp_path: Path) -> None:
    assert word(recognition(classifier(tmp_path / "n.onnx")), "exporter") is None


def test_boxes_of_mmdeploy_are_known_by_their_names(tmp_path: Path) -> None:
    rows = np.array([[1, 1, 9, 9, 0.9], [2, 2, 12, 14, 0.4]], np.float32)
    tensors = [numpy_helper.from_array(rows[None], "rows"), numpy_helper.from_array(np.array([[0, 1]]), "ids")]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["m"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["m"], ["s"]),
        helper.make_node("Mul", ["s", "zero"], ["z"]),
        helper.make_node("Add", ["rows", "z"], ["dets"]),
        helper.make_node("Identity", ["ids"], ["labels"]),
    ]
    tensors.append(numpy_helper.from_array(np.float32(0), "zero"))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    outputs = [
        helper.make_tensor_value_info("dets", TensorProto.FLOAT, [1, 2, 5]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 2]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")

    found = recognition(tmp_path / "m.onnx")

    assert word(found, "exporter") == SettledWord("exporter", "mmdeploy", "assumed", "by its outputs dets, labels")
    assert (found.words.outputs.layout, found.words.outputs.boxes, found.words.outputs.units) == (
        "boxes",
        "xyxy",
        "pixels",
    )


@pytest.mark.parametrize(
    ("said", "value_range"),
    [
        ("NominalRange_0_255", (0, 255)),
        ("Normalized_0_1", (0, 1)),
        ("Normalized_1_1", (-1, 1)),
        ("NominalRange_16_235", (16, 235)),
    ],
)
def test_range_and_order_of_channels_are_said_by_metadata(
    said: str, value_range: tuple[float, float], tmp_path: Path
) -> None:
    found = recognition(classifier(tmp_path / "n.onnx", metadata={RANGE: said, FORMAT: "Bgr8"}))

    settled = word(found, "value_range")
    assert settled is not None
    assert settled.origin == "said"
    low, high = value_range
    mean, std = found.normalisation.mean[0], found.normalisation.std[0]
    black, white = -mean / std, (1 - mean) / std
    assert (black, white) == pytest.approx((low, high))
    assert found.preprocess is not None
    assert found.preprocess.channel_order == "bgr"


@pytest.mark.parametrize(
    "first", [("Mul", 1 / 255), ("Mul", 1 / 127.5), ("Div", 255.0), ("Sub", [[[123.675]], [[116.28]], [[103.53]]])]
)
def test_a_graph_that_scales_its_pixels_takes_0_to_255(first: tuple[str, Any], tmp_path: Path) -> None:
    keras = classifier(tmp_path / "n.onnx", producer="tf2onnx", image=("n", SIDE, SIDE, 3), first=first)

    settled = word(recognition(keras), "value_range")

    assert settled is not None
    assert (settled.value, settled.origin) == ("[0.0, 255.0]", "found")
    assert settled.why.startswith("the graph ")


@pytest.mark.parametrize("first", [None, ("Sub", [[[0.485]], [[0.456]], [[0.406]]]), ("Div", 2.0), ("Mul", 0.5)])
def test_a_graph_that_does_not_say_leaves_the_range_assumed(first: tuple[str, Any] | None, tmp_path: Path) -> None:
    settled = word(recognition(classifier(tmp_path / "n.onnx", first=first)), "value_range")

    assert settled is not None
    assert (settled.value, settled.origin) == ("[0.0, 1.0]", "assumed")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"metadata": {RANGE: "Normalized_0_1"}, "first": ("Div", 255.0)},
            "contradicts itself: its metadata says pixels of 0 to 1, and its graph divides by 255",
        ),
        ({"metadata": {FORMAT: "Gray8"}}, "Gray8, which has 1 channels, and its input has 3"),
        ({"metadata": {FORMAT: "Bgra8"}}, "Gray8, Rgb8 and Bgr8 are served"),
        ({"metadata": {RANGE: "Nominal"}}, "none of nominalrange_0_255"),
    ],
)
def test_a_file_that_lies_in_its_metadata_is_one_sentence(
    settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"^[^\n]*$") as refused:
        recognition(classifier(tmp_path / "n.onnx", **settings))

    assert sentence in str(refused.value)


def test_the_recipe_s_range_wins_over_metadata_and_graph(tmp_path: Path) -> None:
    path = classifier(tmp_path / "n.onnx", metadata={RANGE: "Normalized_0_1"}, first=("Div", 255.0))

    settled = word(recognition(path, FileWords(value_range=(0, 255))), "value_range")

    assert settled == SettledWord("value_range", "[0.0, 255.0]", "said", "by the recipe")


def test_text_and_maps_of_custom_vision_are_refused_in_one_sentence(tmp_path: Path) -> None:
    model = onnx.load(classifier(tmp_path / "n.onnx"))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.node.append(
        helper.make_node("ZipMap", ["scores"], ["loss"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "c"])
    )
    value = onnx.ValueInfoProto(name="loss")
    entries = value.type.sequence_type.elem_type.map_type
    entries.key_type = TensorProto.STRING
    entries.value_type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.output.append(value)
    onnx.save(model, tmp_path / "n.onnx")

    with pytest.raises(SourceError, match="ZipMap"):
        recognition(tmp_path / "n.onnx")


def test_labels_of_paddle_s_tools_are_taken_and_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    good = classifier(tmp_path / "good.onnx", metadata={"character": "0\n90\n180"})
    bad = classifier(tmp_path / "bad.onnx", metadata={"character": "0\n180"})

    assert recognition(good).labels == ("0", "90", "180")
    with pytest.raises(SourceError, match=r"its metadata names 2 classes \(0, 180\), and its output has 3"):
        recognition(bad)
