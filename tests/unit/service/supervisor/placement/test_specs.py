"""Which variants a version has on its devices, and which instead where one did not load."""

from __future__ import annotations

import pytest

from saccade.service.settings import Settings
from saccade.service.supervisor.placement.specs import Specs, specs_for, specs_without
from tests.support.versions import manifest_for, with_variants

MANIFEST = with_variants(manifest_for("digits", 1), fp32=(0.95, 100), int8_cpu=(0.94, 300), int8_wide=(0.93, 600))
WRONG = {"int8-wide": "it answers wrongly"}


def settings_with(**changes: object) -> Settings:
    return Settings.model_validate({"backend": "onnxruntime", "device": "cpu:0,cpu:1", **changes})


def variants_of(specs: Specs | None) -> dict[str, list[str]]:
    assert specs is not None
    return {device: [spec.variant for spec in levels] for device, levels in specs.by_device.items()}


def test_the_next_best_variant_stands_in_on_the_device_where_one_failed() -> None:
    settings = settings_with()
    first = specs_for(MANIFEST, settings.devices, settings)
    assert variants_of(first) == {"cpu:0": ["int8-wide"], "cpu:1": ["int8-wide"]}

    second = specs_without(first, MANIFEST, "cpu:1", WRONG, settings)
    assert variants_of(second) == {"cpu:0": ["int8-wide"], "cpu:1": ["int8-cpu"]}
    assert second is not None
    assert "int8-wide cannot serve here: it answers wrongly" in second.choice(is_compared_here=True)

    third = specs_without(second, MANIFEST, "cpu:1", {"int8-cpu": "no memory"}, settings)
    assert variants_of(third) == {"cpu:0": ["int8-wide"], "cpu:1": ["fp32"]}
    assert third is not None
    assert third.failed == {"cpu:1": {**WRONG, "int8-cpu": "no memory"}}
    assert specs_without(third, MANIFEST, "cpu:1", {"fp32": "no memory"}, settings) is None


@pytest.mark.parametrize("changes", [{"variant": "int8-wide"}, {"ladder": "int8-wide,fp32"}], ids=str)
def test_nothing_stands_in_for_a_variant_that_the_settings_name(changes: dict[str, str]) -> None:
    settings = settings_with(**changes)
    specs = specs_for(MANIFEST, settings.devices, settings)

    assert specs_without(specs, MANIFEST, "cpu:0", WRONG, settings) is None


def test_plans_are_chosen_elsewhere() -> None:
    settings = settings_with()
    specs = specs_for(MANIFEST, ["cpu:0"], settings)

    assert specs_without(specs, MANIFEST, "cuda:0", WRONG, settings) is None
