"""Why tracing failed. Promises: the network's own line is named, without the machine's directories."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from saccade.export.sources.trace_errors import describe_trace_failure, specialisations_noted


class Branch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if images.sum() > 0:
            return images
        return -images


class Item(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        count = int(images.max().item())
        return images[:, :count]


class Listed(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([image * 2 for image in images])


class Numpy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.numpy())


class Outer(nn.Module):
    """What the exporter puts around a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        traced: Tensor = self.network(images.float())
        return traced


def failure(network: nn.Module) -> str:
    examples, batch = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.export.Dim("batch", min=1, max=64)
    try:
        with specialisations_noted():
            torch.export.export(Outer(network), (examples,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:
        return describe_trace_failure(error)
    pytest.fail("was traced")


@pytest.mark.parametrize(
    ("network", "code", "hint"),
    [
        (Branch(), "if images.sum() > 0:", "depends on pixel values"),
        (Item(), "count = int(images.max().item())", "depends on pixel values"),
        (Listed(), "return torch.stack([image * 2 for image in images])", "fixes the number of images"),
        (Numpy(), "return torch.from_numpy(images.numpy())", "use torch operations"),
    ],
)
def test_line_of_the_network_is_named(network: nn.Module, code: str, hint: str) -> None:
    text = failure(network)

    assert text.startswith("test_trace_errors.py:")
    assert f"({code})" in text
    assert hint in text
    assert "\n" not in text


def test_error_without_a_line_keeps_the_tracer_s_words() -> None:
    assert describe_trace_failure(RuntimeError("no such kernel\nlong story")) == (
        "the tracer stopped here: no such kernel"
    )
