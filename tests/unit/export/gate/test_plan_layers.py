"""What an inspector says of a plan. Promises: tested on recordings; where each is from stands beside them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from saccade.export.errors import DeviceError
from saccade.export.gate.plan_layers import plan_layers, share_in_plan
from saccade.export.qualification.qualify_report import LayerFigure

RECORDINGS = Path(__file__).parents[1] / "recordings"
RECORDING = (RECORDINGS / "inspector_int8_sparse.json").read_text("utf-8")


def layer(node: str, flops: int) -> LayerFigure:
    return LayerFigure(
        node=node,
        op="Conv",
        layer=node.partition("/")[0],
        precision="int8",
        flops=flops,
        activations=1,
        weights=1,
        weight_bytes=1,
    )


FILE = (
    layer("network.body.0/conv2d", 10),
    layer("network.body.2/conv2d", 70),
    layer("network.classify/gemm", 20),
)


def test_layers_say_their_nodes_type_and_kernel() -> None:
    layers = plan_layers(RECORDING)

    assert [each.precision for each in layers] == ["fp32", "fp16", "int8", "int8"]
    assert layers[2].nodes == ("network.body.2/conv2d", "network.body.3/relu", "network.body.2/quantize")
    assert [each.is_sparse for each in layers] == [False, False, True, False]


def test_share_counts_the_files_flops_by_what_the_plan_does() -> None:
    share, lost = share_in_plan(plan_layers(RECORDING), FILE, "int8")

    assert (share, lost) == (0.9, ())


def test_layer_that_no_plan_layer_names_is_lost_and_counts_as_another_type() -> None:
    share, lost = share_in_plan(plan_layers(RECORDING), (*FILE, layer("network.body.4/conv2d", 100)), "int8")

    assert (share, lost) == (0.45, ("network.body.4",))


def test_layer_that_is_done_in_two_types_counts_for_neither() -> None:
    document = orjson.loads(RECORDING)
    twice = dict(document["Layers"][1], Metadata="[ONNX Layer: network.body.2/conv2d]")
    document["Layers"].append(twice)

    share, _ = share_in_plan(plan_layers(orjson.dumps(document).decode()), FILE, "int8")

    assert share == 0.2


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Row major linear FP32", "fp32"),
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Channel major BF16 format where channel % 8 == 0", "bf16"),
        ("Row-major FP8", "fp8"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Row major linear UInt8", None),  # of images: nothing multiplies in it
        ("N/A due to dynamic shapes", None),
    ],
)
def test_types_are_read_in_every_spelling(text: str, precision: str | None) -> None:
    document = {"Layers": [{"Name": "l", "LayerType": "gemm", "Inputs": [{"Format/Datatype": text}]}]}

    (found,) = plan_layers(orjson.dumps(document).decode())

    assert found.precision == precision


def test_layers_of_a_real_plan_say_what_they_compute_in_and_give() -> None:
    layers = plan_layers((RECORDINGS / "inspector_mobilenet_int8.json").read_text("utf-8"))

    assert [(layer.kind, layer.precision, layer.output) for layer in layers] == [
        ("Reformat", "fp32", "int8"),
        ("CaskConvolution", "int8", "int8"),
        ("CudaDepthwiseConvolution", "int8", "int8"),
        ("CaskConvolution", "int8", "fp16"),
    ]
    assert layers[1].tactic == "volta_int8x4_icudnn_int8x4_128x32_relu_xregs_medium_c32_nn_v1"
    assert layers[2].tactic == ""


def test_documented_layer_is_read() -> None:
    (layer,) = plan_layers((RECORDINGS / "inspector_documented.json").read_text("utf-8"))

    assert (layer.precision, layer.output, layer.is_sparse) == ("int8", "int8", False)
    assert layer.tactic.startswith("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8")


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format": "Row major linear", "Datatype": "Half"}, "fp16"),
        ({"Format": "Channel major FP16 format", "Datatype": "BFloat16"}, "bf16"),
        ({"Format": "Row major linear FP32 format (kLINEAR)"}, "fp32"),
        ({"Format": "Row major linear", "Datatype": "Int32"}, None),
    ],
)
def test_types_are_read_where_format_and_type_are_apart(tensor: dict[str, str], precision: str | None) -> None:
    document = {"Layers": [{"Name": "l", "LayerType": "kgen", "Inputs": [tensor], "Outputs": [tensor]}]}

    (found,) = plan_layers(orjson.dumps(document).decode())

    assert (found.precision, found.output) == (precision, precision)


def test_layer_without_tensors_says_no_type() -> None:
    (found,) = plan_layers('{"Layers": [{"Name": "signal", "LayerType": "signal", "Inputs": [], "Outputs": []}]}')

    assert (found.precision, found.output, found.nodes) == (None, None, ())


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('{"Layers": ["conv1", "conv2"]}', "DETAILED"),
        ("", "no list of layers"),
        ('{"Bindings": []}', "no list of layers"),
    ],
)
def test_plan_without_details_is_refused(text: str, advice: str) -> None:
    with pytest.raises(DeviceError, match=advice):
        plan_layers(text)
