"""`saccade-export compare`. Promises: agreement is counted on the deploy graph, and too little of it is exit code 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from saccade.export.cli.program import app
from saccade.export.data.datasets import DataStore
from saccade.export.errors import DataRefused, RecipeError
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.qualification.library_agreement import read_library_figure
from saccade.export.recipe import LoadedRecipe, load_recipe
from tests.support.onnx_files import image_file, table_file

_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
SCORES = np.array([0.1, 0.7, 0.2], np.float32)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A network that answers "dog" to everything, and three pictures without labels."""
    table_file(tmp_path / "net.onnx", {"p": SCORES})
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        Image.new("RGB", (20 + index, 16), (index * 80, 0, 0)).save(tmp_path / "pictures" / f"{index}.png")
    path = tmp_path / "recipe.yaml"
    path.write_text("source: onnx\nweights: net.onnx\ndata: pictures\nlabels: [cat, dog, owl]\n")
    return path


def test_old_answers_and_the_file_s_own_are_compared(recipe: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"0.png": "dog", "1.png": {"label": "dog", "score": 0.7}, "2.png": "owl"}))
    asked = ["compare", str(recipe), "--work", str(tmp_path / "work")]

    by_file = CliRunner().invoke(app, [*asked, "--answers", str(old)])
    enough = CliRunner().invoke(app, [*asked, "--answers", str(old), "--least", "0.6"])
    by_library = CliRunner().invoke(app, [*asked, "--with", "onnx", "--json"])

    assert (by_file.exit_code, enough.exit_code, by_library.exit_code) == (1, 0, 0)
    assert "top-1 equal on 2 of 3 pictures (66.67%)" in by_file.stdout
    assert "2.png: another class" in by_file.stdout
    assert "max_detections" not in by_file.stdout
    document = json.loads(by_library.stdout)
    assert document["share"] == 1.0
    assert max(each["worst_score"] for each in document["pictures"]) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ([], RecipeError, "say either --with LIBRARY or --answers FILE"),
        (["--with", "timm"], RecipeError, "needs a network of timm; the recipe's source is onnx"),
        (["--answers", "ANSWERS"], DataRefused, "answers 'absent.png', which is no picture"),
    ],
)
def test_what_cannot_be_compared_is_said(
    recipe: Path, tmp_path: Path, arguments: list[str], error: type[Exception], text: str
) -> None:
    (tmp_path / "old.json").write_text('{"absent.png": "dog"}')
    given = [str(tmp_path / "old.json") if each == "ANSWERS" else each for each in arguments]

    found = CliRunner().invoke(app, ["compare", str(recipe), *given])

    assert isinstance(found.exception, error)
    assert text in str(found.exception)


def test_pictures_that_a_network_makes_are_compared_number_by_number(tmp_path: Path) -> None:
    image_file(tmp_path / "net.onnx")
    (tmp_path / "pictures").mkdir()
    for index, size in enumerate([(64, 64), (90, 70)]):
        pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
    words = "task: {task: image, picture: rgb}\nvalue_range: [0, 1]\ndata: {path: pictures, noise: 20}\n"
    (tmp_path / "recipe.yaml").write_text(f"source: onnx\nweights: net.onnx\n{words}")
    (tmp_path / "old.json").write_text("{}")
    asked = ["compare", str(tmp_path / "recipe.yaml"), "--work", str(tmp_path / "work")]

    same = CliRunner().invoke(app, [*asked, "--with", "onnx"])
    document = json.loads(CliRunner().invoke(app, [*asked, "--with", "onnx", "--json"]).stdout)
    refused = CliRunner().invoke(app, [*asked, "--answers", str(tmp_path / "old.json")])

    assert same.exit_code == 0, same.output
    assert "2 pictures: 24576 of their 24576 numbers are ours too (100.00%)" in same.stdout
    assert [each["psnr"] > 90 for each in document["pictures"]] == [True, True]
    assert "make an old pipeline's pictures the targets" in str(refused.exception)


def test_the_gate_holds_every_variant_to_an_old_pipelines_answers(recipe: Path, tmp_path: Path) -> None:
    loaded = _asked(recipe, answers="old.json", min_share=0.6)
    answers = {"0.png": "dog", "1.png": "dog", "2.png": "owl"}
    (tmp_path / "old.json").write_text(json.dumps(answers))
    work = RunSettings(tmp_path / "work", tmp_path / "repository", until="library")

    first = run_pipeline(loaded, work, DataStore(), _QUIET)[-1]
    again = run_pipeline(loaded, work, DataStore(), _QUIET)[-1]
    (tmp_path / "old.json").write_text(json.dumps({**answers, "2.png": "dog"}))
    changed = run_pipeline(loaded, work, DataStore(), _QUIET)[-1]

    assert (first.status, again.status, changed.status) == ("done", "cached", "done")
    assert first.detail == {"with": "old.json", "pictures": 3, "share": pytest.approx(2 / 3)}
    assert changed.detail["share"] == 1.0
    assert first.artifact is not None
    figure = read_library_figure({"library": first.artifact})
    assert figure is not None
    assert (figure.same, figure.theirs, figure.worst) == (2, 3, ("2.png",))


def test_the_gate_asks_a_library_and_says_when_it_is_not_installed(recipe: Path, tmp_path: Path) -> None:
    work = RunSettings(tmp_path / "work", tmp_path / "repository", until="library")

    own = run_pipeline(_asked(recipe, **{"with": "onnx"}), work, DataStore(), _QUIET)[-1]
    missing = run_pipeline(_asked(recipe, **{"with": "ultralytics"}), work, DataStore(), _QUIET)[-1]
    no_file = run_pipeline(_asked(recipe, answers="absent.json"), work, DataStore(), _QUIET)[-1]

    assert own.detail.get("share") == 1.0, own
    assert (missing.status, no_file.status) == ("failed", "failed")
    assert "needs that library" in str(missing.detail["error"])
    assert "cannot read absent.json" in str(no_file.detail["error"])


@pytest.mark.parametrize("section", [{}, {"answers": "old.json", "with": "onnx"}])
def test_a_recipe_names_exactly_one_program(recipe: Path, section: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=r"gate\.library_agreement: say either `answers: old\.json` or `with"):
        _asked(recipe, **section)


def _asked(recipe: Path, **section: object) -> LoadedRecipe:
    document = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**document, "gate": {"library_agreement": section}}))
    return load_recipe(recipe)
