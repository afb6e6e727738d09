"""What a recipe loosens. Promises: every key that lets more pass is named in the report, new keys included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from saccade.export.data.data_limits import DataLimits
from saccade.export.data.data_report import looser_data_limits
from saccade.export.gate.limits import CorruptionLimits, GateThresholds, LibraryAgreement, looser_limits
from saccade.export.gate.looser_measuring import looser_measuring
from saccade.export.recipe import CalibrationSpec, QualifySpec, Recipe

SECTIONS: dict[str, type[BaseModel]] = {
    "gate": GateThresholds,
    "gate.library_agreement": LibraryAgreement,
    "gate.corruptions": CorruptionLimits,
    "qualify": QualifySpec,
    "calibration": CalibrationSpec,
    "data.limits": DataLimits,
}
LOOSENED: dict[str, Any] = {
    "gate.min_skill": 0.01,
    "gate.min_test_images": 50,
    "gate.max_metric_drop": 0.006,
    "gate.max_metric_drop_by_variant": {"fp32": 0.006},
    "gate.max_class_drop": 0.07,
    "gate.max_slice_drop": 0.07,
    "gate.min_agreement": {"top1": 0.9},
    "gate.max_parity_error": 1e-3,
    "gate.max_half_parity_error": 3e-2,
    "gate.max_mask_disagreement": 1e-2,
    "gate.max_half_mask_disagreement": 2e-2,
    "gate.max_batch_error": 1e-3,
    "gate.max_half_batch_error": 1e-2,
    "gate.min_precision_share": {"int8": 0.7},
    "gate.min_sparse_gain": 1.02,
    "gate.min_speed_ratio": 0.9,
    "gate.min_preprocess_agreement": 0.99,
    "gate.allow_random_weights": True,
    "gate.allow_loose_thresholds": True,
    "gate.library_agreement.min_share": 0.9,
    "gate.library_agreement.pictures": 10,
    "gate.corruptions.pictures": 100,
    "gate.corruptions.max_mean_drop": 0.04,
    "gate.corruptions.max_worst_drop": 0.2,
    "qualify.bootstrap_resamples": 100,
    "qualify.latency_repeats": 6,
    "qualify.latency_budget_s": 0.1,
    "qualify.compare_repeats": 6,
    "qualify.compare_budget_s": 0.1,
    "qualify.evidence_mib": 0.0,
    "qualify.parity_batch_sizes": [1],
    "qualify.compare_batch_sizes": [1],
    "calibration.min_images": 8,
    "data.limits.max_bad_boxes": 0.01,
    "data.limits.max_shared": 0.01,
    "data.limits.max_near": 0.1,
    "data.limits.max_empty": 0.9,
}
LOOSENS_NOTHING = {
    "gate.mode",  # parity is a check of its own, and the version is called unjudged
    "gate.min_metric",  # the default asks for nothing
    "gate.min_slice_metric",
    "gate.speed_ratio_gates",
    "gate.max_p99_ms_batch_1",
    "gate.min_images_per_s",
    "gate.max_memory_mb",
    "gate.max_latency_regression",
    "gate.max_metric_regression",
    "gate.library_agreement",  # its keys are listed below
    "gate.library_agreement.answers",
    "gate.corruptions",
    "gate.corruptions.max_clean_drop",  # the default asks for nothing
    "gate.library_agreement.library",
    "qualify.threads",  # how fast, not how well, things are measured
    "qualify.allow_spinning",
    "qualify.evaluate_batch_size",
    "calibration.minmax",  # what is tried; the gate judges what comes of it
    "calibration.entropy",
    "calibration.percentiles",
    "calibration.mse",
    "calibration.layer_norm_reparametrisation",
    "calibration.keep_float",
    "calibration.sensitivity_images",
    "calibration.sensitivity_budget_s",
    "calibration.accuracy_control",
    "calibration.policy",
}


def recipe_with(key: str, value: Any) -> Recipe:
    *sections, name = key.split(".")
    document: dict[str, Any] = {
        "model": "m",
        "source": {"kind": "module", "factory": "package.module:factory"},
        "task": {"task": "classify", "top_k": 1},
        "labels": ["one", "two"],
        "preprocess": {"width": 32, "height": 32, "fit": "stretch"},
        "data": {"path": "pictures"},
    }
    place = document
    for section in sections:
        place = place.setdefault(section, {})
    if "library_agreement" in sections:
        place["answers"] = "old.json"
    place[name] = value
    return Recipe.model_validate(document)


def told(recipe: Recipe) -> list[str]:
    return [*looser_limits(recipe.gate, "top1"), *looser_data_limits(recipe), *looser_measuring(recipe)]


def keys() -> Iterator[str]:
    for section, model in SECTIONS.items():
        yield from (f"{section}.{name}" for name in model.model_fields)


def test_every_key_of_gate_data_and_measuring_is_known_to_loosen_or_not() -> None:
    assert set(keys()) == LOOSENED.keys() | LOOSENS_NOTHING
    assert not LOOSENED.keys() & LOOSENS_NOTHING


@pytest.mark.parametrize("key", LOOSENED)
def test_what_a_recipe_loosens_is_named(key: str) -> None:
    found = told(recipe_with(key, LOOSENED[key]))

    assert len(found) == 1
    assert key.rpartition(".")[2] in found[0]


def test_a_recipe_of_defaults_loosens_nothing() -> None:
    assert told(recipe_with("qualify.bootstrap_resamples", 200)) == []
