"""What an inspector says of a plan. Promises: tested on a recording in TensorRT's own form, written by hand."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from export.errors import DeviceError
from export.gate.plan_layers import plan_layers, share_in_plan
from export.qualification.qualify_report import LayerFigure

RECORDING = (Path(__file__).parents[1] / "recordings" / "inspector_int8_sparse.json").read_text("utf-8")


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
        ("N/A due to dynamic shapes", None),
    ],
)
def test_types_are_read_in_every_spelling(text: str, precision: str | None) -> None:
    document = {"Layers": [{"Name": "l", "LayerType": "gemm", "Inputs": [{"Format/Datatype": text}]}]}

    (found,) = plan_layers(orjson.dumps(document).decode())

    assert found.precision == precision


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
