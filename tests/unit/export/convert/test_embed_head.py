"""The embedder's head. Promises: torch's normalisation, in half precision too, and zeros where nothing points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.export.convert.answer_heads import EmbedHead
from saccade.export.convert.onnx_from_torch import converted
from saccade.export.network import Network
from saccade.export.qualification.plain_answers import plain_answer
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

PREPROCESS = PreprocessSpec(width=8, height=8, fit="stretch")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_vectors_get_the_length_one(scale: float) -> None:
    raw = torch.randn(5, 384, generator=torch.Generator().manual_seed(0)) * scale
    (expected,) = plain_answer(Network(nn.Identity(), "vectors"), TaskSpec(task=Task.EMBED, dim=384), PREPROCESS, raw)

    (found,) = EmbedHead()(raw)

    assert torch.allclose(found.norm(dim=1), torch.ones(5))
    assert torch.allclose(found, expected, atol=1e-6)


def test_half_precision_neither_overflows_nor_vanishes() -> None:
    raw = torch.randn(5, 2048, generator=torch.Generator().manual_seed(0))
    for scale in (1e-3, 1.0, 1e4):
        (found,) = EmbedHead()((raw * scale).half())
        assert torch.allclose(found.float().norm(dim=1), torch.ones(5), atol=2e-3)


def test_a_vector_of_zeros_stays_one_and_changes_no_other() -> None:
    raw = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    (alone,) = EmbedHead()(raw)
    raw[1] = 0

    (found,) = EmbedHead()(raw)

    assert not found[1].any()
    assert torch.equal(found[[0, 2]], alone[[0, 2]])


def test_pooled_maps_are_vectors_too() -> None:
    (found,) = EmbedHead()(torch.ones(2, 4, 1, 1))

    assert found.shape == (2, 4)


class LooksUp(nn.Module):
    """Adds a looked-up row: the exporter calls it `embedding`, as the answer is called."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(2, 3)
        self.head = EmbedHead()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means = images.to(torch.float32).mean((1, 2))
        return (*self.head(means + self.rows(torch.tensor([1]))), means)


def test_an_answer_keeps_its_name_where_an_operator_has_it_too(tmp_path: Path) -> None:
    dynamic = ({0: torch.export.Dim("n", max=64)},)
    program = torch.export.export(
        LooksUp().eval(), (torch.zeros(2, 8, 8, 3, dtype=torch.uint8),), dynamic_shapes=dynamic
    )

    model = converted(program, ["embedding", "network_0"], 20, tmp_path / "model.onnx")

    assert [output.name for output in model.graph.output] == ["embedding", "network_0"]
