"""`saccade-export init` on a file of optimum. Promises: pixels are those that the configuration beside it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers
import yaml

from saccade.export.cli.init import write_recipe
from tests.support.onnx_files import table_file


@pytest.mark.parametrize("folder", [".", "onnx"])
def test_size_mean_and_deviation_come_from_beside_the_file(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "pictures").mkdir()
    file = table_file(
        tmp_path / folder / "model.onnx", {"logits": np.array([2.0, -1.0, 0.5], np.float32)}, image=("n", 3, "h", "w")
    )
    processor = transformers.ViTImageProcessor(size={"height": 48, "width": 40}, image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(tmp_path)

    new = write_recipe(file, None, tmp_path / "pictures", tmp_path / "recipe.yaml")

    recipe = new.loaded.recipe
    assert (recipe.preprocess.width, recipe.preprocess.height, recipe.preprocess.fit) == (40, 48, "stretch")
    assert recipe.normalisation.mean == pytest.approx((0.5, 0.4, 0.3))
    assert recipe.normalisation.std == pytest.approx((0.5, 0.5, 0.5))
    assert "found in preprocessor_config.json beside the file" in new.text
    assert "value_range" not in yaml.safe_load(new.text)
    assert any(each.why == "by preprocessor_config.json beside the file" for each in new.findings)


def test_the_user_s_own_words_win(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    file = table_file(tmp_path / "model.onnx", {"logits": np.array([2.0, -1.0, 0.5], np.float32)})
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    out = tmp_path / "recipe.yaml"
    out.write_text("source: onnx\nweights: model.onnx\ndata: pictures\nvalue_range: [0, 255]\n")

    new = write_recipe(file, None, tmp_path / "pictures", out)

    assert new.loaded.recipe.normalisation.mean == pytest.approx((0.0, 0.0, 0.0))
    assert "preprocessor_config" not in new.text
