"""A user without labels. Promises: `gate: {mode: parity}` publishes from a flat folder of pictures, unjudged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from saccade.export.data.check import check_data
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.models.contract.manifest import read_manifest
from saccade.service.repository.report_agreement import ensure_report_agrees
from tests.pipeline.conftest import WriteRecipe

SIDE = 16
_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)


def classifier(path: Path) -> Path:
    """Logits are a random mix of the colours' means."""
    mix = np.random.default_rng(0).normal(0, 20, (3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mix"], ["logits"]),
    ]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [entry], [answer], [numpy_helper.from_array(mix, "mix")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    (tmp_path / "pictures").mkdir()
    for index in range(90):
        patches = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        patches.resize((24, 20), Image.Resampling.BICUBIC).save(tmp_path / "pictures" / f"{index}.png")
    document = {
        "model": "unlabelled",
        "source": "onnx",
        "weights": classifier(tmp_path / "network.onnx").name,
        "labels": ["red", "green", "blue"],
        "data": "pictures",
        "variants": ["fp32"],
        "gate": {"mode": "parity"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_flat_folder_of_pictures_is_published_unjudged(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe)

    data = check_data(loaded, lambda read, total: None)
    results = run_pipeline(loaded, RunSettings(tmp_path / "work", tmp_path / "repository"), DataStore(), _QUIET)

    assert data.complaints == ()
    assert results[-1].status == "done", results[-1].detail
    version = tmp_path / "repository" / "unlabelled" / "1"
    manifest, _ = read_manifest(version)
    (variant,) = manifest.variants
    assert variant.gate.accepted
    assert not manifest.judged
    ensure_report_agrees(version, manifest)
    report = (version / "report.md").read_text()
    assert "Unjudged" in report
    assert "Not measured: the recipe says gate: {mode: parity}." in report
    assert "truth" not in report
    truths = json.loads((tmp_path / "repository/.samples/classify/truth.json").read_bytes())["images"]
    assert all(truth["classes"] == [] for truth in truths.values())


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_detectors_and_segmenters_need_no_labels_either(recipe: Path, write_recipe: WriteRecipe, task: str) -> None:
    gate = {"mode": "parity", "allow_random_weights": True}
    loaded = load_recipe(write_recipe(task, data=str(recipe.parent / "pictures"), variants=["fp32"], gate=gate))

    settings = RunSettings(recipe.parent / "work", recipe.parent / "repository")
    results = run_pipeline(loaded, settings, DataStore(), _QUIET)

    assert results[-1].status == "done", results[-1].detail
    manifest, _ = read_manifest(settings.repository / f"tiny-{task}{'er' if task == 'segment' else 'or'}" / "1")
    assert not manifest.judged


def test_the_same_folder_is_refused_where_a_metric_is_asked_for(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("mode: parity", "mode: metric"))

    results = run_pipeline(
        load_recipe(recipe), RunSettings(tmp_path / "work", tmp_path / "repository"), DataStore(), _QUIET
    )

    assert results[-1].status == "failed"
    assert "put the pictures of each label into a folder of its name" in str(results[-1].detail)
