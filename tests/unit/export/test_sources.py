"""Module sources. Promises: what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from saccade.export.errors import SourceError
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.sources import load_network, source_digest
from saccade.models.digit_scenes import CLASS_NAMES

RESNET = "saccade.models.networks.resnet:digits_classifier"


def recipe(tmp_path: Path, weights: str | None = None, **source: object) -> LoadedRecipe:
    document = {
        "weights": weights,
        "model": "m",
        "source": {"kind": "module", "factory": RESNET} | source,
        "task": {"task": "classify", "top_k": 2},
        "labels": list(CLASS_NAMES),
        "preprocess": {"width": 8, "height": 8, "fit": "stretch"},
        "data": {"dataset": "digit_scenes", "images": {"calibration": 1, "tuning": 1, "test": 1}},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document))
    return load_recipe(tmp_path / "r.yaml")


def test_weights_are_loaded_and_change_the_digest(tmp_path: Path) -> None:
    random = recipe(tmp_path)
    network = load_network(random.network_request()).module
    zeros = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    save_file(zeros, tmp_path / "w.safetensors")
    before = source_digest(random.network_request())

    loaded = recipe(tmp_path, weights="w.safetensors")

    assert not any(parameter.any() for parameter in load_network(loaded.network_request()).module.parameters())
    assert source_digest(loaded.network_request()) != before


def test_random_weights_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (load_network(recipe(tmp_path).network_request()).module for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"factory": "models.absent:factory"}, "cannot import 'models.absent'"),
        ({"factory": "saccade.models.networks.resnet:absent"}, "has no 'absent'"),
        ({"arguments": {"colour": 3}}, "source.arguments do not fit"),
        ({"factory": "saccade.models.networks.layers:divisible", "arguments": {"channels": 3}}, "not a torch module"),
        ({"method": "absent"}, "no method 'absent'"),
        ({"weights": "absent.safetensors"}, "cannot read weights"),
        ({"weights": "other.safetensors"}, "do not fit the network"),
        ({"weights": "r.yaml"}, "cannot read weights"),
    ],
)
def test_source_that_does_not_fit_is_named(tmp_path: Path, source: dict[str, Any], text: str) -> None:
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")

    with pytest.raises(SourceError, match=text):
        load_network(recipe(tmp_path, **source).network_request())
