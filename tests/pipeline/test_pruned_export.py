"""A pruned form goes all the way. Promises: the published file is narrower, and says what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import orjson
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from saccade.export.cli.program import app
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.models.contract.manifest import read_manifest

WriteRecipe = Callable[..., Path]


def test_pruned_variant_is_published_with_narrower_layers(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(
        "classify",
        source={"kind": "module", "factory": "tiny_networks:TinyClassifier", "arguments": {"channels": 16}},
        variants=["fp32", "fp32-pruned"],
        pruning={
            "flop_share": 0.6,
            "round_to": 4,
            "recovery": {"steps": 2, "batch_size": 8, "evaluate_every": 1},
        },
    )
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work"), "--json"]

    result = CliRunner().invoke(app, ["run", str(recipe), *places])

    assert result.exit_code == 0, result.output
    (outcome,) = orjson.loads(result.stdout).values()
    pruned = next(Path(step["artifact"]) for step in outcome["steps"] if step["step"] == "compress.pruned")
    said = orjson.loads((pruned / "pruning.json").read_bytes())
    assert said["multiply_adds"] <= 0.6 * said["dense_multiply_adds"]
    assert [point["step"] for point in said["recovery"]["history"]] == [0, 1, 2]

    version = tmp_path / "repository" / "tiny-classifier" / "1"
    told = (version / "report.md").read_text(encoding="utf-8")
    assert f"the network keeps {said['multiply_adds'] / said['dense_multiply_adds']:.1%} of its multiply-adds" in told
    assert "after recovery (2 steps on" in told
    manifest, _ = read_manifest(version)
    assert [variant.name for variant in manifest.accepted_variants()] == ["fp32", "fp32-pruned"]
    dense, narrow = (convolution_widths(version / variant.file) for variant in manifest.variants)
    assert dense == [16, 16]
    assert narrow == [row["pruned"][0] for row in said["layers"] if row["layer"].startswith("network.body")]
    assert sum(narrow) < sum(dense)
    assert all(width % 4 == 0 for width in narrow)


@pytest.mark.parametrize("step", ["onnx_from_torch.pruned", "precision.fp32-pruned", "precision.fp32"])
def test_a_run_up_to_a_step_compresses_only_where_that_is_asked_for(
    write_recipe: WriteRecipe, tmp_path: Path, step: str
) -> None:
    recipe = write_recipe(
        "classify",
        source={"kind": "module", "factory": "tiny_networks:TinyClassifier", "arguments": {"channels": 16}},
        variants=["fp32", "fp32-pruned"],
        pruning={"flop_share": 0.6, "round_to": 4, "recovery": {"steps": 0}},
    )
    settings = RunSettings(tmp_path / "work", tmp_path / "repository", until=step)
    quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)

    results = run_pipeline(load_recipe(recipe), settings, DataStore(), quiet)

    made = [result.step for result in results if result.artifact is not None]
    assert len(made) == len(results)
    assert made[-1] == step
    of_the_form = [name.endswith("pruned") for name in made if name not in ("data", "wrap")]
    assert of_the_form == [step != "precision.fp32"] * len(of_the_form)


def convolution_widths(path: Path) -> list[int]:
    """Output channels of a file's convolutions, in order."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: numpy_helper.to_array(tensor).shape for tensor in graph.initializer}
    return [shapes[node.input[1]][0] for node in graph.node if node.op_type == "Conv"]
