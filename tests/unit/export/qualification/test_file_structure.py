"""What a file is made of. Promises: a layer that is not what the variant's name says needs a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.qualification.file_structure import file_structure
from saccade.export.variants import TRAITS

INT8 = TRAITS["int8-cpu"]


def convolution(name: str, source: str, *, quantized: bool) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A 1x1 convolution (4 to 4 channels), between Q/DQ pairs or not."""
    node = helper.make_node("Conv", [source, f"{name}.w"], [name], name=f"network.{name}/conv2d")
    if not quantized:
        return [node], {f"{name}.w": np.ones((4, 4, 1, 1), np.float32)}
    node.input[:] = [f"{name}.dq", f"{name}.w.dq"]
    nodes = [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{name}.q"], name=f"{name}.q"),
        helper.make_node("DequantizeLinear", [f"{name}.q", "scale", "zero"], [f"{name}.dq"], name=f"{name}.dq"),
        helper.make_node("DequantizeLinear", [f"{name}.w", "scale", "zero"], [f"{name}.w.dq"], name=f"{name}.w.dq"),
        node,
    ]
    return nodes, {f"{name}.w": np.ones((4, 4, 1, 1), np.int8)}


def write_file(folder: Path, *, first_is_int8: bool, stated: list[dict[str, object]] | None) -> Path:
    """first, second, then a product that decodes; `stated` is what the precision step says of its layers."""
    first, first_weights = convolution("first", "x", quantized=first_is_int8)
    second, second_weights = convolution("second", "first", quantized=True)
    decode = helper.make_node("MatMul", ["second", "bins"], ["y"], name="network.decode/matmul")
    constants = {
        **first_weights,
        **second_weights,
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.int8),
        "bins": np.arange(4, dtype=np.float32),
    }
    model = helper.make_model(
        helper.make_graph(
            [*first, *second, decode],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 4, 4])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("answer", "y")],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    mark_network_outputs(model, ["y"])
    onnx.save(model, folder / "model.onnx")
    if stated is not None:
        (folder / "layers.json").write_bytes(orjson.dumps(stated))
    return folder / "model.onnx"


def row(name: str, reason: str = "") -> dict[str, object]:
    return {"node": f"network.{name}/conv2d", "layer": f"network.{name}", "quantized": not reason, "reason": reason}


def test_layers_in_the_asked_precision_are_counted_by_their_flops(tmp_path: Path) -> None:
    file = write_file(tmp_path, first_is_int8=True, stated=[row("first"), row("second")])

    found = file_structure(file, INT8, tmp_path, None)

    assert [layer.precision for layer in found.figures] == ["int8", "int8", "fp32"]
    assert found.precision.share == pytest.approx(1024 / (1024 + 128))  # two convolutions of 4x4x4x4 products
    assert found.precision.silent == ()
    assert found.mask is None


@pytest.mark.parametrize(("reason", "silent"), [("", 1), ("too narrow", 0)])
def test_float_layer_is_silent_unless_there_is_a_reason(reason: str, silent: int, tmp_path: Path) -> None:
    file = write_file(tmp_path, first_is_int8=False, stated=[row("first", reason), row("second")])

    found = file_structure(file, INT8, tmp_path, None).precision

    assert found.silent is not None
    assert len(found.silent) == silent
    assert any(text.startswith("network.first (fp32") for text in found.otherwise)


def test_layer_that_nobody_listed_is_silent_when_listed_ones_build_on_it(tmp_path: Path) -> None:
    file = write_file(tmp_path, first_is_int8=False, stated=[row("second")])

    found = file_structure(file, INT8, tmp_path, None).precision

    assert found.silent is not None
    assert [text.partition(" ")[0] for text in found.silent] == ["network.first"]


def test_step_that_says_nothing_leaves_the_question_open(tmp_path: Path) -> None:
    file = write_file(tmp_path, first_is_int8=False, stated=None)

    assert file_structure(file, INT8, tmp_path, None).precision.silent is None


def test_where_the_runtime_decides_its_word_counts_and_what_it_does_not_name_is_as_in_the_file(tmp_path: Path) -> None:
    file = write_file(tmp_path, first_is_int8=False, stated=None)

    found = file_structure(file, TRAITS["bf16-cpu"], tmp_path, None, {"network.first/conv2d": "bf16"})

    assert [(each.node, each.precision) for each in found.layers[:2]] == [
        ("network.first/conv2d", "bf16"),
        ("network.second/conv2d", "int8"),
    ]
    assert found.precision.asked == "bf16"
    assert found.precision.share == pytest.approx(4 / 9)
