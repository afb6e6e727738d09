"""A whole export at toy size. Promises: recipes and directories of their own for every test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from saccade.models.metrics.agreement import Agreement
from tests.pipeline.published_tiny import Published, publish_tiny

Document = dict[str, Any]
WriteRecipe = Callable[..., Path]

_DIGITS = [str(digit) for digit in range(10)]
QUICK_GATE: Document = {
    "max_metric_drop": 1.0,
    "max_class_drop": 1.0,
    "min_agreement": dict.fromkeys(get_args(Agreement), 0.0),
    "min_precision_share": {"int8": 0.0},
    "allow_loose_thresholds": True,
    "allow_random_weights": True,
    "mode": "parity",
}
QUICK: Document = {
    "data": {"dataset": "digit_scenes", "images": {"calibration": 32, "tuning": 16, "test": 24}},
    "allowed_batch_sizes": [1, 2],
    "calibration": {"minmax": True, "entropy": False, "percentiles": [99.9], "mse": False},
    "qualify": {
        "latency_repeats": 3,
        "latency_budget_s": 0.05,
        "compare_batch_sizes": [1],
        "compare_repeats": 3,
        "compare_budget_s": 0.05,
        "threads": 1,
        "allow_spinning": False,
    },
    # Random weights recognise nothing: what is tested is the way through, not the network.
    "gate": QUICK_GATE,
}
TASKS: dict[str, Document] = {
    "classify": {
        "model": "tiny-classifier",
        "source": {"kind": "module", "factory": "tiny_networks:TinyClassifier"},
        "task": {"task": "classify", "top_k": 3},
        "labels": _DIGITS,
        "preprocess": {"width": 32, "height": 32, "fit": "stretch"},
    },
    "detect": {
        "model": "tiny-detector",
        "source": {"kind": "module", "factory": "tiny_networks:TinyDetector"},
        "task": {"task": "detect", "max_detections": 20},
        "labels": _DIGITS,
        "preprocess": {"width": 32, "height": 32, "fit": "letterbox"},
    },
    "segment": {
        "model": "tiny-segmenter",
        "source": {"kind": "module", "factory": "tiny_networks:TinySegmenter", "method": "logits_at_stride"},
        "task": {"task": "segment"},
        "labels": ["background", *_DIGITS],
        "preprocess": {"width": 32, "height": 32, "fit": "letterbox"},
    },
}


@pytest.fixture
def write_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRecipe:
    """Writes a toy recipe for a task; keyword arguments replace its sections."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "tiny"))

    def write(task: str = "classify", **sections: object) -> Path:
        document = copy.deepcopy(QUICK | TASKS[task]) | sections
        path = tmp_path / f"{task}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A version that waits for a device; nothing that is tested on it may change it."""
    gate = QUICK_GATE | {"min_precision_share": {"int8": 0.8}}
    sections = copy.deepcopy(QUICK | TASKS["classify"] | {"gate": gate})
    return publish_tiny(tmp_path_factory.mktemp("published"), sections)


@pytest.fixture
def published_half(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A version in fp32, and in fp16, which waits for a device."""
    sections = copy.deepcopy(QUICK | TASKS["classify"])
    return publish_tiny(tmp_path_factory.mktemp("half"), sections, "fp32", "fp16")
