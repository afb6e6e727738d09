"""Files timed in turns through the serving backend: real graphs, of which one has more to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from saccade.export.qualification.speed_step import by_exactness, timed_files
from saccade.export.recipe import Recipe
from saccade.export.variants import TRAITS, VariantTraits
from saccade.models.contract.paired_speed import MIN_ROUNDS
from saccade.service.paired_timing import pairs_of
from tests.support.bfloat16 import needs_bf16
from tests.support.graphs import classifier_graph, slowed

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
        qualify: {threads: 1, latency_repeats: 40, latency_budget_s: 0.8}
        """
    )
)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.onnx"
    path.write_bytes(classifier_graph())
    return path


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    path = tmp_path / "slower.onnx"
    path.write_bytes(slowed(classifier_graph()))
    return path


def as_fp32(files: Mapping[str, Path]) -> dict[str, tuple[Path, VariantTraits]]:
    return {name: (file, TRAITS["fp32"]) for name, file in files.items()}


@needs_bf16
def test_one_file_is_timed_in_both_of_its_runtimes(plain: Path) -> None:
    timings = timed_files({"fp32": (plain, TRAITS["fp32"]), "bf16-cpu": (plain, TRAITS["bf16-cpu"])}, RECIPE, IMAGES)
    pairs = pairs_of(timings, ("fp32", "bf16-cpu"), "cpu", RECIPE.allowed_batch_sizes)

    assert timings.failures == {}
    assert [each.against for each in pairs["bf16-cpu"]] == ["fp32"]


def test_the_slower_of_two_real_files_is_told(plain: Path, slower: Path) -> None:
    timings = timed_files(as_fp32({"fp32": plain, "int8-cpu": slower, "again": plain}), RECIPE, IMAGES)
    pairs = pairs_of(timings, ("fp32", "int8-cpu", "again"), "cpu", RECIPE.allowed_batch_sizes)
    found = {(name, pair.against): pair for name, each in pairs.items() for pair in each}

    assert found["int8-cpu", "fp32"].ci_high < 1.0
    assert found["again", "int8-cpu"].is_faster
    assert found["again", "fp32"].rounds >= MIN_ROUNDS


def test_a_file_that_does_not_open_costs_the_others_nothing(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    files = {"fp32": plain, "int8-cpu": tmp_path / "broken.onnx", "again": plain}

    timings = timed_files(as_fp32(files), RECIPE, IMAGES)

    assert set(timings.blocks) == {"fp32", "again"}
    assert set(timings.failures) == {"int8-cpu"}


def test_less_rounding_comes_before_more_and_dense_before_pruned() -> None:
    order = ["fp32", "fp32-openvino", "fp32-pruned", "bf16-cpu", "int8-cpu", "int8-openvino", "int8-cpu-pruned"]

    assert by_exactness([name for name in reversed(TRAITS) if name in order]) == order
