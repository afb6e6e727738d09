"""2:4 from recipe to artifact: made once, written down, read back, refused where it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from saccade.export.artifact import StepResult
from saccade.export.cli.program import app
from saccade.export.compression.sparsity.mask_check import SPARSITY_FILE
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from tests.pipeline.conftest import WriteRecipe

_SOURCE = {"kind": "module", "factory": "tiny_networks:TinyClassifier", "arguments": {"channels": 16}}
_DATA = {"dataset": "digit_scenes", "images": {"calibration": 32, "tuning": 16, "test": 24, "train": 24}}
_QUICK: dict[str, Any] = {"permutation_budget_s": 5.0, "recovery": {"steps": 4, "batch_size": 8, "evaluate_every": 2}}


def compressed(path: Path, work: Path) -> StepResult:
    silent = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    settings = RunSettings(work, work / "repository", until="compress.sparse24")
    return run_pipeline(load_recipe(path), settings, DataStore(), silent)[-1]


def document_of(result: StepResult) -> dict[str, Any]:
    assert result.artifact is not None, result.detail
    document: dict[str, Any] = orjson.loads(result.artifact.file(SPARSITY_FILE).read_bytes())
    return document


def test_every_method_is_measured_and_claimed_layers_are_named(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(source=_SOURCE, data=_DATA, variants=["fp32", "int8-trt-sparse24"], sparsity=_QUICK)
    document = document_of(compressed(recipe, tmp_path / "work"))

    assert [(row["method"], row["permuted"]) for row in document["one_shot"]] == [
        ("random", False),
        ("magnitude", False),
        ("magnitude", True),
        ("second_order", True),
    ]
    assert document["claimed"] == ["network.body.3"]
    assert document["permutation_error"] <= 1e-5
    assert [point["step"] for point in document["recovery"]["history"]] == [0, 2, 4]
    reasons = {layer["layer"]: layer["reason"] for layer in document["layers"]}
    assert reasons["network.body.0"] == "first layer: it reads pixels"
    assert reasons["network.classify"] == "last layer: it gives the answer"


def test_recovery_is_written_once_and_read_back(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(source=_SOURCE, data=_DATA, sparsity=_QUICK)
    file = tmp_path / "recovered.safetensors"
    made = CliRunner().invoke(app, ["recover", str(recipe), "--out", str(file), "--work", str(tmp_path / "one")])
    again = write_recipe(
        source=_SOURCE, data=_DATA, variants=["int8-trt-sparse24"], sparsity=_QUICK | {"recovered": str(file)}
    )
    document = document_of(compressed(again, tmp_path / "two"))

    assert made.exit_code == 0, made.output
    assert "second_order" in made.output
    assert document["claimed"] == ["network.body.3"]
    assert document["recovery"]["history"][-1]["step"] == 4


def test_recovery_of_another_network_is_refused(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(source=_SOURCE, data=_DATA, sparsity=_QUICK)
    file = tmp_path / "recovered.safetensors"
    CliRunner().invoke(app, ["recover", str(recipe), "--out", str(file), "--work", str(tmp_path / "one")])
    wider = {**_SOURCE, "arguments": {"channels": 32}}
    other = write_recipe(
        source=wider, data=_DATA, variants=["int8-trt-sparse24"], sparsity=_QUICK | {"recovered": str(file)}
    )
    result = compressed(other, tmp_path / "two")

    assert result.status == "failed"
    assert "is not a recovery of this network" in str(result.detail["error"])


@pytest.mark.parametrize("name", ["absent.safetensors", "text.safetensors"])
def test_unreadable_recovery_is_refused(write_recipe: WriteRecipe, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    recipe = write_recipe(
        source=_SOURCE, data=_DATA, variants=["int8-trt-sparse24"], sparsity={"recovered": str(tmp_path / name)}
    )
    result = compressed(recipe, tmp_path / "work")

    assert result.status == "failed"
    assert "sparsity.recovered: cannot read" in str(result.detail["error"])


def test_network_without_an_eligible_layer_says_why(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(data=_DATA, variants=["int8-trt-sparse24"], sparsity=_QUICK)  # 8 channels
    result = compressed(recipe, tmp_path / "work")

    assert result.status == "failed"
    assert "8 input channels, fewer than 16" in str(result.detail["error"])
