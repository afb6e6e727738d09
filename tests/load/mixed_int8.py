"""int8 with some layers float against all int8, on the test split and in turns: is the mixture faster or better?

    python -m tests.load.mixed_int8 digits-classifier --keep-float network.stem --keep-float network.classify
    python -m tests.load.mixed_int8 digits-detector

Without `--keep-float` the mixture is what accuracy control makes of the recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from saccade.export.data.datasets import DataStore
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.variants import VariantKind
from tests.load.beside import RECIPES, Compared, print_beside

_VARIANT: VariantKind = "int8-cpu"
_STEP = f"precision.{_VARIANT}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a recipe in models/recipes")
    parser.add_argument("--keep-float", action="append", default=[], help="name prefix of nodes")
    parser.add_argument("--work", type=Path, default=Path(".saccade/export"))
    options = parser.parse_args()
    loaded, data = load_recipe(RECIPES / f"{options.model}.yaml").with_variants(("fp32", _VARIANT)), DataStore()
    whole = file_of(changed(loaded, (), is_controlled=False), options.work, data)
    keep_float = tuple(options.keep_float)
    mixed = file_of(changed(loaded, keep_float, is_controlled=not keep_float), options.work, data)

    print_beside(Compared("the mixture", _VARIANT, mixed), Compared("all int8", _VARIANT, whole), loaded, data)


def changed(loaded: LoadedRecipe, keep_float: tuple[str, ...], *, is_controlled: bool) -> LoadedRecipe:
    """The recipe with other layers kept float, and without accuracy control unless asked for."""
    calibration = loaded.recipe.calibration
    control = calibration.accuracy_control.model_copy(update={} if is_controlled else {"budget_s": 0.0})
    spec = calibration.model_copy(update={"keep_float": keep_float, "accuracy_control": control})
    return loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"calibration": spec})})


def file_of(loaded: LoadedRecipe, work: Path, data: DataStore) -> Path:
    quiet = Listener(started=lambda step: None, noted=lambda text: None, finished=lambda result: None)
    result = run_pipeline(loaded, RunSettings(work, work / "none", until=_STEP), data, quiet)[-1]
    if result.artifact is None:
        raise SystemExit(f"{result.step} failed: {result.detail.get('error')}")
    print(f"{result.detail['quantized_weighted_nodes']} of {result.detail['weighted_nodes']} layers int8", flush=True)
    return result.artifact.file(MODEL_FILE)


if __name__ == "__main__":
    main()
