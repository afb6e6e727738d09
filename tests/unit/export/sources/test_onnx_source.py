"""ONNX files as networks. Promises: eager, converted and original file answer alike, and misfits are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from saccade.export.convert.splice import splice_onnx_networks, translation_table
from saccade.export.errors import SourceError
from saccade.export.network import Network, NetworkRequest
from saccade.export.sources import load_network, source_digest, source_facts
from saccade.export.sources.weights import weights_digest
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec
from tests.support.network_requests import network_request, source_spec

SIDE, CLASSES = 8, 5
Values = Sequence[onnx.ValueInfoProto]
IMAGES = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
LOGITS = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])


def weight(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng(len(name))
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: Values = (LOGITS,),
    inputs: Values = (IMAGES,),
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 13,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> Path:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)
    onnx.save(model, path)
    return path


def classifier(path: Path, *, opset: int = 13, inputs: Values = (IMAGES,)) -> Path:
    """Convolution, mean over pixels, linear layer."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="convolution", kernel_shape=[3, 3]),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "l"], ["logits"]),
    ]
    return saved(
        path, nodes, inputs=inputs, initializers=[weight("w", 4, 3, 3, 3), weight("l", 4, CLASSES)], opset=opset
    )


def images(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def answers_of(model: onnx.ModelProto | Path, pixels: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {session.get_inputs()[0].name: pixels}))


class Deploy(nn.Module):
    """A network with something before and behind it, as in a deploy graph."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.module

    def forward(self, pixels: Tensor) -> Any:
        raw = self.network(pixels / 2.0)
        return raw.softmax(1) if isinstance(raw, Tensor) else tuple(raw)


def converted(network: Network, opset: int = 20) -> onnx.ModelProto:
    """Through the traced program on disk, as the pipeline's steps hand it over."""
    with torch.no_grad():
        program = torch.export.export(
            Deploy(network),
            (torch.zeros(2, 3, SIDE, SIDE),),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
            strict=False,
        )
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        verbose=False,
        custom_translation_table=translation_table(),
    )
    assert onnx_program is not None
    model = onnx_program.model_proto
    splice_onnx_networks(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_facts_come_from_the_file(tmp_path: Path) -> None:
    facts = source_facts(source_spec("onnx"), classifier(tmp_path / "net.onnx"))

    assert facts.task == TaskSpec(task=Task.CLASSIFY, top_k=5)
    assert facts.labels == tuple(f"class {index}" for index in range(CLASSES))
    assert facts.preprocess == PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")


@pytest.mark.parametrize("opset", [11, 20])
def test_file_answers_alike_eagerly_converted_and_on_its_own(tmp_path: Path, opset: int) -> None:
    path = classifier(tmp_path / "net.onnx", opset=opset if opset < 18 else 17)
    network = load_network(network_request("onnx", path))

    model = converted(network)

    assert network.form == "logits"
    assert network.not_batchable_reason == ""
    assert [entry.domain for entry in model.opset_import] == [""]
    for count in (1, 3):
        (logits,) = answers_of(path, images(count) / 2.0)
        eager = network.module(torch.from_numpy(images(count) / 2.0)).numpy()
        expected = torch.from_numpy(logits).softmax(1).numpy()
        np.testing.assert_allclose(eager, logits, rtol=1e-6)
        np.testing.assert_allclose(answers_of(model, images(count))[0], expected, rtol=1e-5)


def test_detector_s_outputs_keep_their_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "s4"], ["boxes"]),
        helper.make_node("Reshape", ["images", "s3"], ["cut"]),
        helper.make_node("Slice", ["cut", "from", "to", "axis"], ["scores"]),
    ]
    constants = {"s4": [0, -1, 4], "s3": [0, -1, 4], "from": [0], "to": [3], "axis": [2]}
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 48, 3]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 48, 4]),
    ]
    initializers = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    path = saved(tmp_path / "net.onnx", nodes, outputs, initializers=initializers)
    task = TaskSpec(task=Task.DETECT, max_detections=5)

    network = load_network(_request_of(path, task, classes=3))
    boxes, scores = answers_of(converted(network), images(2))

    assert network.form == "boxes"
    assert (boxes.shape, scores.shape) == ((2, 48, 4), (2, 48, 3))
    np.testing.assert_allclose(boxes.reshape(2, -1), images(2).reshape(2, -1) / 2.0)


def test_functions_of_the_file_are_inlined(tmp_path: Path) -> None:
    twice = helper.make_function(
        "mine", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 13)]
    )
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Twice", ["m"], ["logits"], domain="mine"),
    ]
    three = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    path = saved(tmp_path / "net.onnx", nodes, [three], domains=["mine"], functions=[twice])
    network = load_network(network_request("onnx", path))

    model = converted(network)

    expected = torch.from_numpy(images(2)).mean((2, 3)).softmax(1).numpy()
    np.testing.assert_allclose(answers_of(model, images(2))[0], expected, rtol=1e-5)
    assert not any(node.domain == "mine" for node in model.graph.node)


def coupled(path: Path) -> Path:
    """A fixed batch of one that cannot be opened: the mean over the batch goes into every answer."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], axes=[0, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "zero"], ["rows"]),
        helper.make_node("MatMul", ["rows", "l"], ["logits"]),
    ]
    fixed = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    zero = numpy_helper.from_array(np.array([0], np.int64), "zero")
    one_row = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    return saved(path, nodes, [one_row], inputs=[fixed], initializers=[weight("l", 3, CLASSES), zero])


def test_batch_of_one_is_kept_and_said_when_two_images_do_not_answer_alike(tmp_path: Path) -> None:
    path = coupled(tmp_path / "net.onnx")

    network = load_network(network_request("onnx", path))

    assert network.not_batchable_reason.startswith("net.onnx takes exactly one image")
    both = network.module(torch.from_numpy(images(2)))
    alone = [answers_of(path, images(2)[index : index + 1])[0] for index in range(2)]
    np.testing.assert_allclose(both.numpy(), np.concatenate(alone), rtol=1e-6)


def test_batch_of_one_is_opened_where_two_images_answer_as_alone(tmp_path: Path) -> None:
    fixed = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "l"], ["logits"]),
    ]
    flat = numpy_helper.from_array(np.array([1, -1], np.int64), "flat")
    one_row = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    tensors = [weight("w", 4, 3, 3, 3), weight("l", 4 * 36, CLASSES), flat]
    path = saved(tmp_path / "net.onnx", nodes, [one_row], inputs=[fixed], initializers=tensors)

    network = load_network(network_request("onnx", path))
    model = converted(network)

    assert network.not_batchable_reason == ""
    alone = np.concatenate([answers_of(path, images(3)[index : index + 1] / 2.0)[0] for index in range(3)])
    expected = torch.from_numpy(alone).softmax(1).numpy()
    np.testing.assert_allclose(answers_of(model, images(3))[0], expected, rtol=1e-4, atol=1e-6)


def test_claimed_batch_that_fails_is_found(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 3, SIDE * SIDE], np.int64), "shape")
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["logits"], axes=[2], keepdims=0),
    ]
    three = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    path = saved(tmp_path / "net.onnx", nodes, [three], initializers=[shape])

    network = load_network(network_request("onnx", path))

    assert "claims any batch size but fails with two images" in network.not_batchable_reason


def test_tensors_beside_the_file_are_found_and_hashed(tmp_path: Path) -> None:
    model = onnx.load(classifier(tmp_path / "whole.onnx"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    request = network_request("onnx", tmp_path / "net.onnx")
    network = load_network(request)
    before = weights_digest(tmp_path / "net.onnx"), source_digest(request)

    spliced = converted(network)
    whole = answers_of(tmp_path / "whole.onnx", images(2) / 2.0)[0]
    np.testing.assert_allclose(answers_of(spliced, images(2))[0], torch.from_numpy(whole).softmax(1), rtol=1e-5)

    data = tmp_path / "net.data"
    data.write_bytes(data.read_bytes()[:-4] + b"\0\0\0\0")
    assert weights_digest(tmp_path / "net.onnx") != before[0]
    assert source_digest(request) != before[1]

    data.unlink()
    with pytest.raises(SourceError, match=r"keeps tensors in net\.data, which is not beside it"):
        weights_digest(tmp_path / "net.onnx")


def test_newer_opset_than_the_recipe_s_says_which_to_set(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["m"], keepdims=0),
        helper.make_node("Swish", ["m"], ["logits"]),
    ]
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    three = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [IMAGES], [three], [axes])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10), tmp_path / "net.onnx"
    )
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "OnnxNetwork", ["images"], ["logits"], domain="saccade", path=str(tmp_path / "net.onnx")
                )
            ],
            "g",
            [IMAGES],
            [three],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("saccade", 1)],
    )

    with pytest.raises(SourceError, match="is opset 24 and cannot be converted to 20"):
        splice_onnx_networks(model)


@pytest.mark.parametrize(
    ("element", "shape", "text"),
    [
        (TensorProto.DOUBLE, ["n", 3, 8, 8], "convert the file to float32"),
        (TensorProto.UINT8, ["n", 3, 8, 8], "saccade puts pixels and normalisation in front itself"),
        (TensorProto.INT64, ["n", 3, 8, 8], "export the network with float input"),
        (TensorProto.FLOAT, ["n", 12], r"\(batch, 3, height, width\)"),
        (TensorProto.FLOAT, [4, 3, 8, 8], "takes exactly 4 images at once"),
    ],
)
def test_input_that_is_no_image_is_named(tmp_path: Path, element: int, shape: list[int | str], text: str) -> None:
    value = helper.make_tensor_value_info("images", element, shape)
    same = helper.make_tensor_value_info("logits", element, shape)
    path = saved(tmp_path / "net.onnx", [helper.make_node("Identity", ["images"], ["logits"])], [same], [value])

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("onnx"), path)


def test_second_input_is_named(tmp_path: Path) -> None:
    inputs = [IMAGES, helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1])]
    same = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    path = saved(tmp_path / "net.onnx", [helper.make_node("Mul", ["images", "scale"], ["logits"])], [same], inputs)

    with pytest.raises(SourceError, match=r"has 2 inputs: 'images' float \(\?, 3, 8, 8\); 'scale' float \(1\)"):
        source_facts(source_spec("onnx"), path)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (
            helper.make_node("MagicPool", ["images"], ["logits"], name="neck/pool", domain="ai.example"),
            r"MagicPool \(domain 'ai.example'\) in node 'neck/pool'",
        ),
        (helper.make_node("Relux", ["images"], ["logits"], name="act"), r"Relux \(opset 13\) in node 'act'"),
    ],
)
def test_unknown_operator_is_named(tmp_path: Path, node: onnx.NodeProto, text: str) -> None:
    path = saved(tmp_path / "net.onnx", [node], domains=["ai.example"])

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("onnx"), path)


def test_outputs_that_are_not_the_task_s_are_named(tmp_path: Path) -> None:
    request = _request_of(classifier(tmp_path / "net.onnx"), TaskSpec(task=Task.SEGMENT), classes=CLASSES)

    with pytest.raises(SourceError, match=r"gives 'logits' float \(\?, 5\)\. task: segment with 5 labels needs"):
        load_network(request)


def test_other_size_than_the_file_s_is_refused(tmp_path: Path) -> None:
    request = network_request("onnx", classifier(tmp_path / "net.onnx"), width=16)

    with pytest.raises(SourceError, match="leave width and height out"):
        load_network(request)


def test_dynamic_size_comes_from_the_recipe(tmp_path: Path) -> None:
    free = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])
    path = classifier(tmp_path / "net.onnx", inputs=[free])

    assert source_facts(source_spec("onnx"), path).preprocess is None
    request = _request_of(path, TaskSpec(task=Task.CLASSIFY, top_k=1), classes=CLASSES)
    assert load_network(request).module(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("net.onnx", b"this is no protobuf", "not an ONNX file"),
        ("net.onnx", b"", "not an ONNX file"),
        ("absent.onnx", None, "cannot read weights"),
        (None, None, "needs `weights: network.onnx`"),
    ],
)
def test_what_is_no_onnx_file_is_named(tmp_path: Path, name: str | None, content: bytes | None, text: str) -> None:
    path = None if name is None else tmp_path / name
    if path is not None and content is not None:
        path.write_bytes(content)

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("onnx"), path)


def _request_of(path: Path, task: TaskSpec, classes: int) -> NetworkRequest:
    preprocess = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")
    return NetworkRequest(source_spec("onnx"), path, task, classes, preprocess, Normalisation())
