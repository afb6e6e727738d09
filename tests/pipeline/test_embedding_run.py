"""Embedders through the whole export. Promises: a few lines suffice, search is judged, the served vector is torch's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.export.reports.export_report import REPORT_JSON, read_report
from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.models.contract.preprocessing import preprocess_into
from saccade.service.errors import NoDirection
from saccade.service.repository.report_agreement import ensure_report_agrees
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.parameters import NOTHING_GIVEN, DeadlineRule, complete
from tests.pipeline.conftest import QUICK, QUICK_GATE

SIDE = 32
COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
FACTORY = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )
"""
_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)


def network() -> nn.Module:
    """As FACTORY: without a bias, so that a black picture has a vector of zeros."""
    torch.manual_seed(3)
    found: dict[str, nn.Module] = {}
    exec(FACTORY, found)
    built: nn.Module = found["network"]()  # type: ignore[operator]  # a function of the text above
    return built.eval()


def pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("calibration", 12), ("tuning", 8), ("test", 36)):
        for label, colour in COLOURS.items():
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 35, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{index}.png")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    root = tmp_path_factory.mktemp("embed")
    (root / "tiny_embedder.py").write_text(FACTORY)
    save_file(network().state_dict(), root / "weights.safetensors")
    pictures(root / "pictures")
    document = {
        "model": "finder",
        "source": {"kind": "module", "factory": "tiny_embedder.py:network"},
        "weights": "weights.safetensors",
        "task": {"task": "embed", "dim": 16},
        "preprocess": {"width": SIDE, "height": SIDE, "fit": "stretch"},
        "data": "pictures",
        "variants": ["fp32", "int8-cpu"],
        **{name: QUICK[name] for name in ("allowed_batch_sizes", "calibration", "qualify")},
        "gate": {**QUICK_GATE, "mode": "metric", "allow_random_weights": False},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(document))
    results = run_pipeline(
        load_recipe(root / "recipe.yaml"), RunSettings(root / "work", root / "repository"), DataStore(), _QUIET
    )
    assert results[-1].status == "done", results[-1].detail
    version = root / "repository" / "finder" / "1"
    return version, read_manifest(version)[0]


def test_manifest_says_what_a_vector_is_and_what_was_measured(published: tuple[Path, Manifest]) -> None:
    version, manifest = published

    assert (manifest.task.task, manifest.task.dim, manifest.labels) == ("embed", 16, ("blue", "green", "red"))
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("embedding", (16,))]
    assert {each.name for each in manifest.variants} == {"fp32", "int8-cpu"}
    assert manifest.reference_metric.name == "recall_at_1"
    assert manifest.reference_metric.value > 0.9
    assert manifest.reference_metric.images == 108
    ensure_report_agrees(version, manifest)


def test_report_has_search_figures_agreement_and_what_was_found(published: tuple[Path, Manifest]) -> None:
    version, _ = published
    report = read_report(version / REPORT_JSON)
    int8 = report.variants[1].qualify

    assert int8.retrieval is not None
    assert set(int8.retrieval.recall) == {1, 5, 10}
    assert int8.agreement is not None
    assert 0.9 < int8.agreement["cosine"] <= 1.0
    assert 0.0 < int8.agreement["neighbours"] <= 1.0
    assert max(each.relative_l2 or 0.0 for each in report.variants[0].qualify.parity) <= 1e-4
    assert "recall@5" in (version / "report.md").read_text()
    assert int8.disagreements is not None
    assert all((version / f"int8-cpu-{each.file}").exists() for each in int8.disagreements.examples)


def served(published: tuple[Path, Manifest], pixels: np.ndarray) -> np.ndarray:
    version, manifest = published
    session = onnxruntime.InferenceSession(version / "fp32.onnx", providers=["CPUExecutionProvider"])
    images = np.empty((1, SIDE, SIDE, 3), np.uint8)
    place = preprocess_into(pixels, manifest.preprocess, images[0])
    outputs = session.run(["embedding"], {"images": images})
    parameters = complete(NOTHING_GIVEN, manifest, DeadlineRule(1000.0, 2000.0))
    answer = prediction_of([outputs[0][0]], place, manifest, parameters)
    values: np.ndarray = answer["embedding"]["values"]
    return values


def test_the_answer_is_the_network_s_own_vector_with_the_length_one(published: tuple[Path, Manifest]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with torch.no_grad():
        raw: Tensor = network()(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    expected = nn.functional.normalize(raw, dim=1)[0].numpy()

    assert np.allclose(served(published, pixels), expected, atol=1e-5)


def test_a_black_picture_has_no_direction(published: tuple[Path, Manifest]) -> None:
    with pytest.raises(NoDirection):
        served(published, np.zeros((SIDE, SIDE, 3), np.uint8))
