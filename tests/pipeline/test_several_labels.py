"""Classifiers of several labels per picture, from `init` to the answer. Promises: all labels above the threshold."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from saccade.export.cli.init import with_proposal, write_recipe
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.models.contract.preprocessing import preprocess_into
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.parameters import DeadlineRule, GivenParameters, complete

LABELS = ("red", "green", "blue")
SIDE = 16
_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
_RULE = DeadlineRule(default_ms=1000.0, max_ms=5000.0)


def network(path: Path) -> Path:
    """Says of each colour whether the picture has much of it: sigmoid(20 x (its mean - 0.5)), through a convolution."""
    weights = 20.0 * np.eye(3, dtype=np.float32)[:, :, None, None]
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.full(3, -10.0, np.float32), "b")]
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Conv", ["mean", "w", "b"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["p"]),
    ]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    answer = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [entry], [answer], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def pictures(root: Path, splits: dict[str, int]) -> Path:
    """Pictures of each colour or not, with `_classes.csv` as Roboflow writes it; one in twenty is labelled wrongly."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        (root / split).mkdir(parents=True)
        with (root / split / "_classes.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", *(f" {label}" for label in LABELS)])
            for index in range(count):
                shown = rng.random(3) < 0.4
                levels = np.where(shown, rng.uniform(130, 220, 3), rng.uniform(30, 125, 3))
                pixels = np.clip(levels + rng.normal(0, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / f"{split}{index}.png")
                wrong = rng.random(3) < 0.05
                rows.writerow([f"{split}{index}.png", *(shown ^ wrong).astype(int)])
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    root = tmp_path_factory.mktemp("labels")
    data = pictures(root / "data", {"train": 40, "valid": 60, "test": 120})
    recipe = root / "recipe.yaml"
    new, sentences = with_proposal(write_recipe(network(root / "net.onnx"), None, data, recipe), recipe)
    assert new.loaded.recipe.task.multi_label
    assert new.loaded.recipe.labels == LABELS
    assert any("score_threshold: the best F1" in sentence for sentence in sentences)
    recipe.write_text(recipe.read_text() + "variants: [fp32, int8-cpu]\n")
    results = run_pipeline(load_recipe(recipe), RunSettings(root / "work", root / "repository"), DataStore(), _QUIET)
    assert results[-1].status == "done", results[-1].detail
    version = root / "repository" / "net" / "1"
    return version, read_manifest(version)[0]


def test_the_metric_and_the_operating_point_are_published(published: tuple[Path, Manifest]) -> None:
    _, manifest = published
    variant, quantized = manifest.variants

    assert manifest.task.multi_label
    assert manifest.task.top_k == 3
    assert variant.metric.name == "label_map"
    assert 0.85 < variant.metric.ci_low < variant.metric.value < 1.0
    assert variant.operating_point is not None
    assert variant.operating_point.score_threshold == manifest.task.score_threshold
    assert variant.operating_point.f1 > 0.85
    checks = {check.name: check for check in variant.gate.checks}
    assert variant.gate.accepted
    assert quantized.gate.accepted
    assert "the same scores for every picture" in checks["better_than_guessing"].detail or (
        "giving each picture the answer to the next one" in checks["better_than_guessing"].detail
    )
    assert "labels 1.0000" in checks["agreement"].detail
    assert "operating_drop" in checks


@pytest.mark.parametrize(
    ("colour", "given", "labels"),
    [
        ((230, 240, 10), {}, ["green", "red"]),
        ((20, 10, 30), {}, []),
        ((20, 10, 30), {"score_threshold": 0.0}, ["blue", "red", "green"]),
        ((230, 240, 220), {"top_k": 1}, ["green"]),
    ],
)
def test_all_labels_above_the_threshold_are_answered(
    published: tuple[Path, Manifest], colour: tuple[int, int, int], given: dict[str, float], labels: list[str]
) -> None:
    version, manifest = published
    images = np.empty((1, SIDE, SIDE, 3), np.uint8)
    place = preprocess_into(np.full((20, 20, 3), colour, np.uint8), manifest.preprocess, images[0])
    outputs = onnxruntime.InferenceSession(version / "fp32.onnx").run(["scores", "class_ids"], {"images": images})

    parameters = complete(GivenParameters(**given), manifest, _RULE)
    answer = prediction_of([array[0] for array in outputs], place, manifest, parameters)

    assert [each["label"] for each in answer["classes"]] == labels
