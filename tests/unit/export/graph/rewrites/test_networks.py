"""CondConv and VOLO. Promises: they convert with a dynamic batch, and an image's answer is the one it has alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from saccade.export.convert.conversion_proof import RawOutputs, prove_conversion
from saccade.export.convert.folding import fold_network
from saccade.export.convert.onnx_from_torch import converted, eager_outputs
from saccade.export.convert.onnx_optimization import slim
from saccade.export.convert.proof_images import drawn_images
from saccade.export.graph.onnx_graph import op_counts
from saccade.export.graph.rewrites.cond_conv import MixtureOfConvolutions
from saccade.export.plans.operator_support import tensorrt_refusals
from saccade.export.recipe import FoldingSpec

BATCH_LIMIT = 1e-5


@pytest.fixture(autouse=True)
def _quiet_exporter() -> Iterator[None]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    yield
    logging.getLogger("torch.onnx").setLevel(logging.NOTSET)


class OnBytes(nn.Module):
    """Bytes in, logits out: what a deploy module does, without an answer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255.0),)


class Routed(nn.Module):
    """Two CondConvs, one of them depthwise with TensorFlow's padding, routed by what is in the image."""

    def __init__(self) -> None:
        from timm.layers.cond_conv2d import CondConv2d

        super().__init__()
        self.route = nn.Linear(3, 4)
        self.dense = CondConv2d(3, 8, 3, padding=1, bias=True, num_experts=4)
        self.depthwise = CondConv2d(8, 8, 3, stride=2, padding="same", groups=8, num_experts=4)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.route(x.mean((2, 3))))
        out: Tensor = self.head(self.depthwise(self.dense(x, weights).relu(), weights).mean((2, 3)))
        return out


def volo() -> nn.Module:
    from timm.models.volo import VOLO

    network = VOLO(
        img_size=64,
        num_classes=5,
        layers=(1, 1, 1, 1),
        embed_dims=(24, 24, 24, 24),
        num_heads=(2, 2, 2, 2),
        stem_hidden_dim=8,
    )
    nn.init.normal_(network.head.weight)
    return network


def exported(network: nn.Module, side: int, directory: Path) -> tuple[Any, Path]:
    images = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(OnBytes(network).eval(), (images,), dynamic_shapes=shapes, strict=False)
    file = directory / "model.onnx"
    converted(program, ["network_0"], 20, file)
    return program, file


def test_cond_conv_becomes_a_mixture_that_batches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Routed().eval().requires_grad_(False)
    images = torch.rand(3, 3, 15, 15)
    before = network(images)

    result = fold_network(network, FoldingSpec(), images)

    assert [(proof.name, proof.layers) for proof in result.proofs] == [("CondConv2d", 2)]
    assert sum(isinstance(part, MixtureOfConvolutions) for part in network.modules()) == 2
    torch.testing.assert_close(network(images), before)
    program, file = exported(network, 15, tmp_path)
    proof = prove_conversion(eager_outputs(program, 0), file, RawOutputs(("network_0",)), drawn_images(8, 15, 15))
    assert {figure.batch_size for figure in proof.figures} == {1, 3, 8}
    assert proof.worst.relative_l2 < BATCH_LIMIT
    assert proof.coupling is not None
    assert proof.coupling.reason(BATCH_LIMIT) == ""


def test_volo_converts_without_the_operator_that_stops_tensorrt(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = volo().eval().requires_grad_(False)

    program, file = exported(network, 64, tmp_path)
    proof = prove_conversion(eager_outputs(program, 0), file, RawOutputs(("network_0",)), drawn_images(8, 64, 64))
    model = onnx.load(file)
    slimmed = slim(model)

    assert "Col2Im" in op_counts(model.graph.node)
    refusals = tensorrt_refusals(file)
    assert {refusal.operator for refusal in refusals} == {"Col2Im"}
    assert all(refusal.layer.endswith("attn") for refusal in refusals)
    assert "Col2Im" not in op_counts(slimmed.graph.node)
    assert tensorrt_refusals(slimmed.SerializeToString()) == ()
    assert proof.coupling is not None
    assert proof.coupling.reason(BATCH_LIMIT) == ""
    onnx.save(slimmed, file)
    after = prove_conversion(eager_outputs(program, 0), file, RawOutputs(("network_0",)), drawn_images(8, 64, 64))
    assert after.worst.relative_l2 < BATCH_LIMIT
