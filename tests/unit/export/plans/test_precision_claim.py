"""What a parsed network multiplies in. Promises: TensorRT's types decide, weighed by multiply-adds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saccade.export.plans.network import NetworkLayer
from saccade.export.plans.precision_claim import precision_claim
from saccade.export.plans.tensorrt_from_onnx import find_tensorrt, network_layers
from tests.support.published_graphs import graph

pytestmark = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("int8") / "int8-trt.onnx"
    file.write_bytes(graph("int8-trt"))
    return file


@pytest.fixture(scope="module")
def network(int8: Path) -> tuple[NetworkLayer, ...]:
    tensorrt = find_tensorrt("tensorrt_rtx")
    assert tensorrt is not None
    return network_layers(int8, tensorrt)


def test_quantized_products_are_those_that_read_dequantized_values(network: tuple[NetworkLayer, ...]) -> None:
    products = {layer.node: layer for layer in network if layer.kind == "convolution"}

    assert products["second/Conv"].inputs[:2] == ("float", "float")
    assert products["second/Conv"].reads[:2] == ("int8", "int8")
    assert products["stem/Conv"].reads[0] == "float"


def test_claim_that_the_network_keeps_has_the_files_share(int8: Path, network: tuple[NetworkLayer, ...]) -> None:
    claim = precision_claim(int8, "int8", network)

    assert claim.is_kept
    assert claim.in_network == claim.in_file
    assert 0.5 < claim.in_file < 1.0  # the stem, the narrow layer and the classifier stay float


def test_layer_that_the_network_does_otherwise_is_named_and_does_not_count(
    int8: Path, network: tuple[NetworkLayer, ...]
) -> None:
    changed = [replace(layer, reads=layer.inputs) if layer.node == "second/Conv" else layer for layer in network]

    claim = precision_claim(int8, "int8", changed)

    assert not claim.is_kept
    assert claim.lost == ("second (fp32)",)
    assert claim.in_network < claim.in_file


def test_layer_that_the_network_lost_is_missing(int8: Path, network: tuple[NetworkLayer, ...]) -> None:
    claim = precision_claim(int8, "int8", [layer for layer in network if layer.node != "last/Conv"])

    assert claim.lost == ("last (missing)",)


def test_product_whose_sides_differ_is_neither(int8: Path, network: tuple[NetworkLayer, ...]) -> None:
    changed = [
        replace(layer, reads=("int8", "float", "float")) if layer.node == "first/Conv" else layer for layer in network
    ]

    assert precision_claim(int8, "int8", changed).lost == ("first (mixed)",)
