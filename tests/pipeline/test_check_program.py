"""`saccade-export check` and the first step of a run. Promises: exit codes, tables, nothing made of refused data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app
from tests.support.data_folders import LABELS, save, split_folders

WriteRecipe = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    split_folders(tmp_path / "pictures", ["train", "val", "test"], each=12)
    return tmp_path / "pictures"


@pytest.fixture
def recipe(write_recipe: WriteRecipe, pictures: Path) -> Path:
    return write_recipe(
        data={"path": str(pictures)},
        labels=list(LABELS),
        source={"kind": "module", "factory": "tiny_networks:TinyClassifier", "arguments": {"classes": 3}},
        variants=["fp32"],
    )


def run(recipe: Path, root: Path) -> tuple[int, str]:
    places = ["--repository", str(root / "repository"), "--work", str(root / "work")]
    result = CliRunner().invoke(app, ["run", str(recipe), *places])
    return result.exit_code, result.output


def test_check_prints_splits_labels_and_what_the_counts_resolve(recipe: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(recipe)])

    assert result.exit_code == 0, result.output
    assert "classify, 3 labels, 144 images" in result.output
    assert (
        "36 test images resolve ± 0.131 top-1 (95 % interval), so a drop beyond the gate's limit of 1 shows"
        in result.output
    )
    assert "overlap: no picture of a split is in another" in result.output
    assert result.output.rstrip().endswith("data: ok")


def test_check_of_bad_data_exits_with_1_and_names_the_file(recipe: Path, pictures: Path) -> None:
    bad = save(pictures / "test" / "red" / "broken.jpg", b"\xff\xd8\xff nothing")

    shown = CliRunner().invoke(app, ["check", str(recipe)])
    document = json.loads(CliRunner().invoke(app, ["check", str(recipe), "--json"]).stdout)

    assert shown.exit_code == 1
    assert f"refused: {bad} would be refused when served" in shown.output
    assert [str(bad) in text for text in document["complaints"]] == [True]


def test_run_makes_nothing_of_refused_data_and_reads_it_again_when_it_changed(
    recipe: Path, pictures: Path, tmp_path: Path
) -> None:
    bad = save(pictures / "test" / "red" / "broken.jpg", b"\xff\xd8\xff nothing")
    refused, first = run(recipe, tmp_path)
    made = [path.name for path in (tmp_path / "work").rglob("*.onnx")]
    bad.unlink()
    accepted, second = run(recipe, tmp_path)
    _, third = run(recipe, tmp_path)

    assert refused == 1
    assert str(bad) in first
    assert "wrap" not in first
    assert made == []
    assert accepted == 0, second
    assert [line.split()[:2] for line in second.splitlines() if line.startswith("  data")] == [["data", "done"]]
    assert [line.split()[:2] for line in third.splitlines() if line.startswith("  data")] == [["data", "cached"]]
