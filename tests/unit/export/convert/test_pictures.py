"""Pictures as answers of the graph, and how far inwards what lies beyond a tile is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.export.convert.answer_heads import answer_head
from saccade.export.convert.tile_margin import tile_margin
from saccade.export.network import Network
from saccade.export.qualification.plain_answers import plain_answer
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

SIDE = 32


@pytest.mark.parametrize(
    ("task", "shape", "order"),
    [
        (TaskSpec(task=Task.IMAGE, picture="rgb"), (2, 3, SIDE, SIDE), "rgb"),
        (TaskSpec(task=Task.IMAGE, picture="rgb", scale=2, values=(-1.0, 1.0)), (2, 3, 2 * SIDE, 2 * SIDE), "bgr"),
        (TaskSpec(task=Task.IMAGE, picture="grey", values=(0.0, 255.0)), (2, 1, SIDE, SIDE), "rgb"),
        (TaskSpec(task=Task.IMAGE, picture="depth"), (2, SIDE, SIDE), "rgb"),
        (TaskSpec(task=Task.IMAGE, picture="depth"), (2, 1, SIDE // 2, SIDE // 2), "rgb"),
    ],
)
def test_the_head_is_its_plain_form(task: TaskSpec, shape: tuple[int, ...], order: str) -> None:
    preprocess = PreprocessSpec.model_validate(
        {"width": SIDE, "height": SIDE, "fit": "stretch", "channel_order": order}
    )
    raw = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    network = Network(nn.Identity(), "pixels")

    (found,) = answer_head(network, task, 1, preprocess, raw)(raw)

    (expected,) = plain_answer(network, task, preprocess, raw)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    if task.picture != "depth":
        assert 0.0 <= float(found.min()) < float(found.max()) <= 1.0


def margin_of(network: nn.Module, scale: int = 1) -> int:
    def answer(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: Tensor = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
        return found.permute(0, 2, 3, 1).numpy()

    return tile_margin(answer, SIDE, SIDE, scale, is_depth=False)


def blur(size: int) -> nn.Conv2d:
    layer = nn.Conv2d(3, 3, size, padding=size // 2, groups=3, bias=False)
    nn.init.constant_(layer.weight, 1 / size**2)
    return layer


class Centred(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images - images.mean((2, 3), keepdim=True)


class Placed(nn.Module):
    """Brighter from left to right, whatever it is shown."""

    def forward(self, images: Tensor) -> Tensor:
        return images * torch.linspace(0.5, 1.0, SIDE)


@pytest.mark.parametrize(
    ("network", "scale", "margin"),
    [
        (nn.Identity(), 1, 0),
        (blur(3), 1, 1),
        (nn.Sequential(blur(3), blur(5)), 1, 3),
        (nn.Sequential(blur(5), nn.Upsample(scale_factor=2)), 2, 2),
        (Centred(), 1, SIDE // 2),
        (Placed(), 1, SIDE // 2),
    ],
)
def test_the_margin_is_how_far_a_pixel_is_seen(network: nn.Module, scale: int, margin: int) -> None:
    assert margin_of(network, scale) == margin
