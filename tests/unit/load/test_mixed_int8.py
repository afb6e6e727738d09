"""Recipes of the comparison. Promises: they differ in what stays float and in accuracy control, and in nothing else."""

from __future__ import annotations

from saccade.export.recipe import load_recipe
from tests.load.beside import RECIPES
from tests.load.mixed_int8 import changed


def test_a_recipe_keeps_the_named_layers_float_and_seeks_none_unless_it_is_asked_to() -> None:
    loaded = load_recipe(RECIPES / "digits-classifier.yaml")

    named = changed(loaded, ("network.stem",), is_controlled=False).recipe
    sought = changed(loaded, (), is_controlled=True).recipe

    assert named.calibration.keep_float == ("network.stem",)
    assert named.calibration.accuracy_control.budget_s == 0.0
    assert sought.calibration.accuracy_control == loaded.recipe.calibration.accuracy_control
    assert loaded.recipe.calibration.accuracy_control.budget_s > 0
    assert named.model_copy(update={"calibration": loaded.recipe.calibration}) == loaded.recipe
