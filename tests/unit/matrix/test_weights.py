"""Weights of the matrix. Promises held here: from a seed, in the library's keys, outputs depend on the image."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.matrix.entries import Entry
from tests.matrix.networks.unireplknet import digits_unireplknet
from tests.matrix.weights import Built, enlivened, noise_images, statistics_images, write_weights

SIZE = (32, 32)
ENTRY = Entry(
    family="test",
    source="module/tests.matrix.networks.unireplknet:digits_unireplknet",
    arguments={"width": 0.25},
)


class Asleep(nn.Module):
    """A residual branch that starts at nothing, statistics that are not measured yet, a head of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 1e-5))
        self.head = nn.Linear(8, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.conv(images) * 1e4)
        logits: Tensor = self.head((x + self.scale * x.tanh()).mean((2, 3)))
        return logits


def _awake() -> Asleep:
    torch.manual_seed(0)
    network = Asleep()
    enlivened(Built(network, network, 4), SIZE)
    return network


def test_sleeping_parts_get_values() -> None:
    network = _awake()
    assert bool(network.head.weight.any())
    assert torch.all(network.scale == 0.1)
    assert not network.training


def test_outputs_have_the_spread_of_a_trained_head() -> None:
    network = _awake()
    with torch.no_grad():
        logits = network(statistics_images(SIZE))
    assert torch.isclose((logits - network.head.bias).std(), torch.tensor(2.0), rtol=1e-3)
    assert bool((logits.std(0) > 0.1).all()), "every class depends on the image"


def test_statistics_are_those_of_what_the_layer_sees() -> None:
    network = _awake()
    seen = network.norm(network.conv(statistics_images(SIZE)) * 1e4)
    assert torch.allclose(seen.std((0, 2, 3)), torch.ones(8), atol=0.3)


def test_written_weights_are_the_same_every_time_and_fit_the_network(tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        digests.append(write_weights(ENTRY, SIZE, tmp_path / name).read_bytes())
    assert digests[0] == digests[1]
    network = digits_unireplknet(width=0.25)
    network.load_state_dict(load_file(tmp_path / "first" / "network.safetensors"))
    with torch.no_grad():
        assert bool(network.eval()(noise_images(SIZE)).std() > 0.5)


def test_saved_program_takes_any_batch(tmp_path: Path) -> None:
    entry = Entry(family="test", source="pt2", saved_from="module/saccade.models.networks.resnet:digits_classifier")
    path = write_weights(entry, SIZE, tmp_path)
    module = torch.export.load(path).module()
    assert [module(torch.rand(batch, 3, 32, 32)).shape for batch in (1, 5)] == [(1, 10), (5, 10)]
