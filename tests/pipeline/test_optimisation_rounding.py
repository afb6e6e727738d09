"""Optimisation may round otherwise: pictures that rounding decides tell nothing of it, and the others still do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from saccade.export.convert import onnx_optimization
from saccade.export.convert.proof_images import proof_images
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, StepResult, run_pipeline
from saccade.export.recipe import load_recipe
from tests.pipeline.conftest import WriteRecipe

_STEP = "onnx_optimization"
# The last digit of float32 decides the answer to one picture.
_NETWORK = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.classes = nn.Linear(3, 10)

    def forward(self, images):
        means = images.mean((2, 3))
        hangs = (means - torch.tensor({means})).abs().sum(1, keepdim=True) < 1e-3
        return self.classes(torch.sin(means * torch.where(hangs, 1e8, 1.0)))

def build():
    torch.manual_seed(0)
    return Network()
"""


def optimised(write_recipe: WriteRecipe, folder: Path, hanging: list[int]) -> StepResult:
    """The step's result for a network whose answers to these pictures of the proof hang on rounding."""
    sections = {
        "source": {"kind": "module", "factory": "hanging.py:build"},
        "normalisation": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
    }
    network = folder / "hanging.py"
    network.write_text(_NETWORK.format(means=[0.0, 0.0, 0.0]))
    loaded, data = load_recipe(write_recipe(**sections)), DataStore()
    means = proof_images(data, loaded)[hanging].mean((1, 2)) / 255
    network.write_text(_NETWORK.format(means=np.median(means, 0).tolist()))
    quiet = Listener(started=lambda step: None, noted=lambda text: None, finished=lambda result: None)
    return run_pipeline(loaded, RunSettings(folder / "work", folder / "repository", until=_STEP), data, quiet)[-1]


def scaled(factors: tuple[float, ...]) -> object:
    """An optimisation that also multiplies the pictures' means, one after the other."""
    real = onnx_optimization.slim

    def slim(model: onnx.ModelProto) -> onnx.ModelProto:
        slimmed = real(model)
        pool = next(node for node in slimmed.graph.node if node.op_type == "ReduceMean")
        name = pool.output[0]
        pool.output[0] = f"{name}_0"
        for index, factor in enumerate(factors):
            constant = numpy_helper.from_array(np.array(factor, np.float32), f"factor_{index}")
            last = name if index == len(factors) - 1 else f"{name}_{index + 1}"
            slimmed.graph.initializer.append(constant)
            product = helper.make_node("Mul", [f"{name}_{index}", constant.name], [last], name=f"times_{index}")
            slimmed.graph.node.insert(list(slimmed.graph.node).index(pool) + 1 + index, product)
        return slimmed

    return slim


def test_picture_that_rounding_decides_does_not_refuse_an_optimisation(
    write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_optimization, "slim", scaled((3.0, 1 / 3, 7.0, 1 / 7)))
    determined, asked = onnx_optimization.proving_rows, []
    monkeypatch.setattr(onnx_optimization, "proving_rows", lambda *given: asked.append(determined(*given)) or asked[-1])

    result = optimised(write_recipe, tmp_path, [2])

    assert asked[0][0].tolist() == [0, 1, 3, 4, 5, 6, 7]  # the whole proof was missed, by that picture alone

    assert result.artifact is not None, result.detail
    assert 0 < result.detail["relative_error"] < 1e-5


def test_wrong_optimisation_is_refused_all_the_same(
    write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_optimization, "slim", scaled((1.01,)))

    result = optimised(write_recipe, tmp_path, [2])

    assert result.artifact is None
    assert "optimisation changed raw outputs by" in str(result.detail)
