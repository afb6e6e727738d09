"""Recipes. Promises: what cannot be meant is refused with the key's name, and the shipped ones load."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from saccade.export.errors import RecipeError
from saccade.export.network import SourceFacts
from saccade.export.recipe import Recipe, load_recipe
from saccade.export.recipe_gaps import OTHER_NAMES, completed
from saccade.export.sources.onnx_words import TOP_WORDS
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.digits.digit_scenes import CLASS_NAMES, CROP_PREPROCESS, SCENE_PREPROCESS, SEGMENT_CLASS_NAMES

SHIPPED = sorted((Path(__file__).parents[3] / "models" / "recipes").glob("*.yaml"))
MINIMAL: dict[str, object] = {
    "model": "m",
    "source": {"kind": "module", "factory": "package.module:factory"},
    "task": {"task": "classify", "top_k": 2},
    "labels": ["a", "b"],
    "preprocess": {"width": 8, "height": 8, "fit": "stretch"},
    "data": {"dataset": "digit_scenes", "images": {"calibration": 1, "tuning": 1, "test": 1}},
}


def write(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_fits_its_data(path: Path) -> None:
    recipe = load_recipe(path).recipe

    is_crop = recipe.task.task is Task.CLASSIFY
    assert recipe.preprocess == (CROP_PREPROCESS if is_crop else SCENE_PREPROCESS)
    assert recipe.labels == (SEGMENT_CLASS_NAMES if recipe.task.task is Task.SEGMENT else CLASS_NAMES)
    assert recipe.model == path.stem
    assert recipe.gate.max_metric_drop <= 0.005


def test_minimal_recipe_gets_both_variants_and_default_thresholds(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml", MINIMAL)).recipe

    assert recipe.variants == ("fp32", "int8-cpu")
    assert recipe.gate.max_metric_drop == 0.005


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"colour": "red"}, "colour"),
        ({"name": "streets"}, "unknown key 'name', did you mean 'model'"),
        ({"names": ["a", "b"]}, "unknown key 'names', did you mean 'labels'"),
        ({"normalization": {}}, "unknown key 'normalization', did you mean 'normalisation'"),
        ({"gate": {"max_drop": 0.1}}, "gate.max_drop"),
        ({"gate": {"corruptions": {"picture": 20}}}, "unknown key 'picture', did you mean 'pictures'"),
        ({"task": {"task": "embed", "dim": 2, "top_k": 3}}, "task.top_k says nothing of task: embed: leave it out"),
        ({"task": {"task": "detect", "max_detections": 2, "background_id": 0}}, "task.background_id says nothing of"),
        (
            {"task": {"task": "classify", "top_k": 1, "score_threshold": 0.5}},
            "task.score_threshold says nothing of task: classify without multi_label",
        ),
        ({"data": {"path": "pictures", "noise": 25}}, "data.noise makes pictures of colours worse"),
        ({"qualify": {"threads": -1}}, "qualify.threads"),
        ({"variants": ["fp64"]}, "variants.0"),
        ({"variants": ["fp32", "fp32"]}, "variants repeat"),
        ({"labels": [True, "b"]}, "labels.0: YAML reads True here and not a word: put it in quotes"),
        ({"gate": {"min_metric": 97}}, "gate.min_metric"),
        ({"gate": {"mode": "parity", "min_metric": 0.9}}, "min_metric is never compared"),
        ({"allowed_batch_sizes": [2, 4]}, "allowed_batch_sizes"),
        ({"source": {"kind": "pickle", "factory": "a:b"}}, "unknown kind .pickle."),
        ({"source": {"kind": "module", "factory": "no colon"}}, "source.*factory"),
        ({"task": {"task": "classify", "top_k": 3}}, "top_k"),
        ({"data": {"dataset": "digit_scenes", "images": {"test": 1}}}, "calibration, tuning"),
        (
            {"calibration": {"minmax": False, "entropy": False, "percentiles": [], "mse": False}},
            "at least one calibrator",
        ),
    ],
)
def test_bad_recipe_is_refused_with_the_name_of_the_key(tmp_path: Path, changed: dict[str, object], text: str) -> None:
    path = write(tmp_path / "r.yaml", MINIMAL | changed)

    with pytest.raises(RecipeError, match=text):
        load_recipe(path)


@pytest.mark.parametrize("content", ["- a list", "a: [unclosed"])
def test_text_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.yaml").write_text(content)

    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "r.yaml")


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", MINIMAL)
    recipe.write_text(recipe.read_text() + "gate: {min_metric: 0.9}\ngate: {max_class_drop: 0.1}\n")

    with pytest.raises(RecipeError, match="'gate' stands twice"):
        load_recipe(recipe)


def test_labels_that_are_no_words_are_not_also_called_too_few(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path / "r.yaml", MINIMAL | {"labels": [False, True]}))

    assert "at least 1 item" not in str(caught.value)


def test_weights_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()

    loaded = load_recipe(write(tmp_path / "recipes" / "r.yaml", MINIMAL | {"weights": "../w.safetensors"}))

    assert loaded.weights_path == tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("source", "weights", "name"),
    [
        ("timm/ResNet50.a1_in1k", "w.safetensors", "resnet50.a1_in1k"),
        ("onnx", "nets/My Net.onnx", "my-net"),
        ("module/nets/denoiser.py:build", "w.safetensors", "denoiser"),
        ("module/nets.py:denoiser", "w.safetensors", "denoiser"),
        ("module/nets.py:upscaler", "w.safetensors", "upscaler"),
        ("module/nets.resnet:create_model", "w.safetensors", "resnet"),
        ("module/nets.resnet:digits_classifier", "w.safetensors", "digits_classifier"),
    ],
)
def test_model_is_named_after_the_network_or_its_checkpoint(source: str, weights: str, name: str) -> None:
    spec: SourceSpec = TypeAdapter(SourceSpec).validate_python(source)

    assert completed({"weights": weights}, spec, SourceFacts())["model"] == name


def test_labels_that_a_person_wrote_differ_beyond_case_and_spaces(tmp_path: Path) -> None:
    document = MINIMAL | {"labels": ["traffic light", "Traffic_Light"], "data": "./pictures"}

    with pytest.raises(RecipeError, match="labels 0 and 1 are 'traffic light' and 'Traffic_Light': give each its own"):
        load_recipe(write(tmp_path / "r.yaml", document))


def test_several_labels_per_picture_are_answered_whole_and_cut_at_one_half() -> None:
    source = TypeAdapter(SourceSpec).validate_python("timm/resnet18")
    facts = SourceFacts(task=TaskSpec(task=Task.CLASSIFY, top_k=5), labels=tuple("abcdefgh"))

    def task_of(**given: object) -> dict[str, object]:
        task: dict[str, object] = completed({"task": {"multi_label": True, **given}}, source, facts)["task"]
        return task

    assert (task_of()["top_k"], task_of()["score_threshold"]) == (8, 0.5)
    assert task_of(score_threshold=0.3)["score_threshold"] == 0.3


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", "turned\u202e", "bell\x07"])
def test_labels_that_cannot_be_shown_in_one_line_are_refused_by_number(tmp_path: Path, label: str) -> None:
    with pytest.raises(RecipeError, match=r"labels\.1 is .*: write a name of letters"):
        load_recipe(write(tmp_path / "recipe.yaml", MINIMAL | {"labels": ["a", label]}))


def test_labels_of_any_writing_are_taken(tmp_path: Path) -> None:
    labels = ["日本", "हिन्दी", "👩\u200d🔬"]

    assert load_recipe(write(tmp_path / "recipe.yaml", MINIMAL | {"labels": labels})).recipe.labels == tuple(labels)


def test_other_names_of_keys_lead_to_keys_and_are_none_themselves() -> None:
    assert set(OTHER_NAMES.values()) <= set(Recipe.model_fields)
    assert not set(OTHER_NAMES) & {*Recipe.model_fields, *TOP_WORDS}
