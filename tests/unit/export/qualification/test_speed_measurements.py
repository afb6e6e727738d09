"""Memory of a file. Promises: a process of its own measures it, and says why when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from saccade.export.errors import GraphError
from saccade.export.qualification.speed_measurements import memory_mb
from saccade.export.recipe import Recipe
from tests.support.graphs import classifier_graph

RECIPE = Recipe.model_validate(
    yaml.safe_load(
        """
        model: toy
        source: {kind: module, factory: "toy:Toy"}
        task: {task: classify, top_k: 10}
        labels: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
        preprocess: {width: 32, height: 32, fit: stretch}
        data: {dataset: digit_scenes, images: {calibration: 1, tuning: 1, test: 1}}
        allowed_batch_sizes: [1, 4]
        """
    )
)


def test_memory_is_what_opening_and_running_adds(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(classifier_graph())

    assert 0.0 < memory_mb(tmp_path / "model.onnx", RECIPE) < 500.0


def test_file_that_does_not_open_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")

    with pytest.raises(GraphError, match=r"the process that measures memory ended with 1: .*"):
        memory_mb(tmp_path / "model.onnx", RECIPE)
