"""Module sources. Promises: what does not fit is named."""

from __future__ import annotations

import sys
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
from saccade.models.digits.digit_scenes import CLASS_NAMES

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


@pytest.fixture
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to the search path and to the loaded modules is gone after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})


USERS_FILE = """
from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from layers_of_mine import width


@dataclass
class Configuration:
    width: int = 10


def build(fault: bool = False):
    if fault:
        raise RuntimeError("no weights folder")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, width))
"""


@pytest.mark.usefixtures("search_path")
@pytest.mark.parametrize("factory", ["nets_of_mine:build", "nets_of_mine.py:build", "net-works/nets.py:build"])
def test_factory_is_found_beside_the_recipe(tmp_path: Path, factory: str) -> None:
    (tmp_path / "net-works").mkdir()
    for folder, name in ((tmp_path, "nets_of_mine.py"), (tmp_path / "net-works", "nets.py")):
        (folder / name).write_text(USERS_FILE)
        (folder / "layers_of_mine.py").write_text("width = 10")

    network = load_network(recipe(tmp_path, factory=factory).network_request()).module

    assert [type(layer).__name__ for layer in network] == ["AdaptiveAvgPool2d", "Flatten", "Linear"]  # type: ignore[arg-type]  # a Sequential


@pytest.mark.usefixtures("search_path")
def test_factory_that_fails_says_why_and_where(tmp_path: Path) -> None:
    (tmp_path / "nets_of_mine.py").write_text(USERS_FILE)
    (tmp_path / "layers_of_mine.py").write_text("width = 10")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")

    with pytest.raises(SourceError, match=r"failed: RuntimeError: no weights folder \(nets_of_mine.py, line 18\)"):
        load_network(recipe(tmp_path, factory="nets_of_mine.py:build", arguments={"fault": True}).network_request())
    with pytest.raises(SourceError, match=r"cannot import 'broken.py': .*nothing_of_that_name.*broken.py, line 1"):
        load_network(recipe(tmp_path, factory="broken.py:build").network_request())
    with pytest.raises(SourceError, match=r"there is no absent.py in the recipe's folder"):
        load_network(recipe(tmp_path, factory="absent.py:build").network_request())


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
