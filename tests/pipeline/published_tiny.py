"""A toy version with a dense and a sparse variant that wait for a device. Promises: made once per session."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from saccade.export.cli.gate import eager_reference
from saccade.export.cli.program import app
from saccade.export.compression import compress
from saccade.export.data.datasets import DataStore
from saccade.export.gate.device_figures import EvaluationData
from saccade.export.gate.on_device import Settled, settle
from saccade.export.pipeline import RunSettings
from saccade.export.recipe import LoadedRecipe, load_recipe
from tests.pipeline.recorded_device import RecordedDevice, Recording
from tests.pipeline.sparse_form import compress_by_magnitude

SOURCE = {"kind": "module", "factory": "tiny_networks:WideClassifier"}
DENSE, SPARSE = "int8-trt", "int8-trt-sparse24"
FAST_SPARSE = Recording(seconds={DENSE: 0.010, SPARSE: 0.008})


class Published:
    """A toy version with a dense and a sparse variant that wait for a device."""

    def __init__(self, recipe: Path, root: Path) -> None:
        self.settings = RunSettings(root / "work", root / "repository")
        places = ["--repository", str(self.settings.repository), "--work", str(self.settings.work)]
        result = CliRunner().invoke(app, ["run", str(recipe), *places])
        assert result.exit_code == 0, result.output
        self.loaded: LoadedRecipe = load_recipe(recipe)
        self.version_dir = self.settings.repository / "tiny-classifier" / "1"
        store = DataStore()
        expected = eager_reference(self.loaded, self.settings, store)
        self.data = EvaluationData(store.split(self.loaded, "test"), expected)

    def settle(self, recording: Recording, *, is_recorded: bool = True) -> Settled:
        device = RecordedDevice(self.loaded.recipe, recording, is_recorded=is_recorded)
        settled = settle(self.version_dir, self.loaded.recipe, self.data, device, lambda text: None)
        assert all(plan.is_closed for plan in device.opened)
        return settled


def publish_tiny(root: Path, sections: dict[str, Any], *variants: str) -> Published:
    """Published into `root`; `sections` is all of the recipe but its source and its variants."""
    folder = str(Path(__file__).parent / "tiny")
    recipe = root / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(sections | {"source": SOURCE, "variants": [*(variants or ("fp32", DENSE, SPARSE))]})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [folder, *sys.path])
        patch.setitem(compress._MAKERS, "sparse24", compress_by_magnitude)
        return Published(recipe, root)
