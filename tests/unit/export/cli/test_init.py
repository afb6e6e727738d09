"""`saccade-export init`. Promises: the written recipe loads, nothing is overwritten, doubts are said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import yaml
from click.testing import CliRunner
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torchvision import models

from saccade.export.cli.init import summary, write_recipe
from saccade.export.cli.program import app
from saccade.export.cli.recipe_text import first_labels
from saccade.export.errors import DataRefused, RecipeError, SourceError
from saccade.export.recipe import load_recipe
from saccade.models.contract.specs import Task
from tests.support.onnx_files import centred_boxes, table_file

NAME = "mobilenetv3_small_050"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A state_dict of three classes under a training wrapper's prefix, with a name as people give it."""
    network = timm.create_model(NAME, num_classes=3)
    path = tmp_path / f"{NAME}-a1b2c3.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return path


def test_class_count_is_read_from_the_classifier(tmp_path: Path, checkpoint: Path, pictures: Path) -> None:
    out = tmp_path / "recipes" / "recipe.yaml"

    new = write_recipe(checkpoint, f"timm/{NAME}", pictures, out)

    assert yaml.safe_load(out.read_text()) == {
        "source": {"kind": "timm", "name": NAME, "arguments": {"num_classes": 3}},
        "weights": f"../{checkpoint.name}",
        "data": "../pictures",
    }
    assert len(new.loaded.recipe.labels) == 3
    assert new.loaded.recipe.task.top_k == 3


@pytest.mark.parametrize(("name", "task"), [("resnet18", Task.CLASSIFY), ("lraspp_mobilenet_v3_large", Task.SEGMENT)])
def test_class_count_of_torchvision_is_read_too(tmp_path: Path, pictures: Path, name: str, task: Task) -> None:
    backbone = {"weights_backbone": None} if task is Task.SEGMENT else {}
    network = models.get_model(name, weights=None, num_classes=7, **backbone)
    save_file(network.state_dict(), tmp_path / "w.safetensors")

    new = write_recipe(tmp_path / "w.safetensors", f"torchvision/{name}", pictures, tmp_path / "r.yaml")

    assert len(new.loaded.recipe.labels) == 7
    assert new.loaded.recipe.task.task is task


def test_default_class_count_needs_no_arguments(tmp_path: Path, pictures: Path) -> None:
    save_file(timm.create_model(NAME).state_dict(), tmp_path / "w.safetensors")

    write_recipe(tmp_path / "w.safetensors", f"timm/{NAME}", pictures, tmp_path / "r.yaml")

    assert (tmp_path / "r.yaml").read_text() == f"source: timm/{NAME}\nweights: w.safetensors\ndata: pictures\n"


@pytest.mark.parametrize("split", ["", "test"])
def test_folders_name_classes_that_have_no_names(tmp_path: Path, checkpoint: Path, pictures: Path, split: str) -> None:
    for label in ("owl", "cat", "dog"):
        (pictures / split / label).mkdir(parents=True)

    new = write_recipe(checkpoint, f"timm/{NAME}", pictures, tmp_path / "r.yaml")

    assert new.loaded.recipe.labels == ("cat", "dog", "owl")
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["labels"] == ["cat", "dog", "owl"]


def test_directory_of_timm_is_recognised(tmp_path: Path, checkpoint: Path, pictures: Path) -> None:
    directory = tmp_path / "hub"
    directory.mkdir()
    checkpoint.rename(directory / "model.safetensors")
    card = {"architecture": NAME, "num_classes": 3, "label_names": ["cat", "dog", "owl"]}
    (directory / "config.json").write_text(json.dumps(card))

    new = write_recipe(directory, None, pictures, tmp_path / "r.yaml")

    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["source"] == f"timm/{NAME}"
    assert new.loaded.recipe.labels == ("cat", "dog", "owl")


def test_exported_files_are_recognised(tmp_path: Path, pictures: Path) -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 3, 8, 8]), ("logits", ["n", 3]))
    ]
    mean = helper.make_node("ReduceMean", ["images"], ["logits"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph([mean], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), tmp_path / "n.onnx")
    program = torch.export.export(torch.nn.Conv2d(3, 2, 1).eval(), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "n.pt2")

    from_onnx = write_recipe(tmp_path / "n.onnx", None, pictures, tmp_path / "1.yaml").loaded.recipe
    from_pt2 = write_recipe(tmp_path / "n.pt2", None, pictures, tmp_path / "2.yaml").loaded.recipe

    assert (from_onnx.source.kind, from_onnx.task.task) == ("onnx", Task.CLASSIFY)
    assert (from_pt2.source.kind, from_pt2.task.task) == ("pt2", Task.SEGMENT)


def test_lone_tensors_ask_for_the_network_and_suggest_names(tmp_path: Path, checkpoint: Path, pictures: Path) -> None:
    with pytest.raises(SourceError, match=rf"say it with --source.*timm/{NAME}.*torchvision/mobilenet_v3_small"):
        write_recipe(checkpoint, None, pictures, tmp_path / "r.yaml")

    assert not (tmp_path / "r.yaml").exists()


def test_file_that_is_no_recipe_is_never_overwritten(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "r.yaml").write_text("mine")

    with pytest.raises(RecipeError, match="exists already and is no recipe"):
        write_recipe(None, f"timm/{NAME}", pictures, tmp_path / "r.yaml")

    assert (tmp_path / "r.yaml").read_text() == "mine"


def test_facts_that_are_missing_are_listed(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(RecipeError, match=r"the source does not say everything: .*labels: required") as refused:
        write_recipe(None, "module/saccade.models.networks.resnet:digits_classifier", pictures, tmp_path / "r.yaml")

    (note,) = refused.value.__notes__
    assert note.startswith(f"write this to {tmp_path / 'r.yaml'}, then")
    assert {"source", "data", "labels", "preprocess"} <= yaml.safe_load(note.partition("\n")[2]).keys()
    assert not (tmp_path / "r.yaml").exists()


def test_what_is_pasted_says_what_a_network_of_pictures_does_not_need(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "denoiser.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Conv2d(3, 3, 1)\n")
    with pytest.raises(RecipeError) as refused:
        write_recipe(None, "module/denoiser.py:build", pictures, tmp_path / "r.yaml")

    lines = refused.value.__notes__[0].splitlines()[1:]
    by_key = {text.partition(":")[0]: text for text in lines}
    assert "no such line for embed and image" in by_key.pop("labels")
    for key, word in (("task", "{task: image, picture: rgb}"), ("preprocess", "fit: tile")):
        assert word in by_key[key]
    text = "\n".join(by_key.values()).replace("{task: classify}", "{task: image, picture: rgb}")
    (tmp_path / "r.yaml").write_text(text.replace("fit: stretch", "fit: tile"))

    assert (
        write_recipe(None, "module/denoiser.py:build", pictures, tmp_path / "r.yaml").loaded.recipe.model == "denoiser"
    )


@pytest.mark.parametrize(
    ("checkpoint", "source", "text"),
    [
        (None, None, "name a checkpoint, or a network with --source"),
        ("absent.safetensors", None, "there is no such file"),
        ("net.pth", None, "is a pickle"),
        ("odd", None, "has neither `architecture`"),
        (None, "tim/resnet18", "did you mean 'timm'"),
        (None, "timm/resnt18", "did you mean resnet18"),
    ],
)
def test_what_no_source_takes_leaves_no_recipe(
    tmp_path: Path, pictures: Path, checkpoint: str | None, source: str | None, text: str
) -> None:
    (tmp_path / "net.pth").write_bytes(b"\x80\x04.")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("{}")

    with pytest.raises((SourceError, RecipeError), match=text):
        write_recipe(checkpoint and tmp_path / checkpoint, source, pictures, tmp_path / "r.yaml")

    assert not (tmp_path / "r.yaml").exists()


def test_summary_says_what_was_understood_and_that_weights_are_random(tmp_path: Path, pictures: Path) -> None:
    new = write_recipe(None, "torchvision/resnet50", pictures, tmp_path / "r.yaml")

    text = summary(new.loaded)

    assert (text["task"], text["input"]) == ("classify", "224x224")
    assert text["resize"].startswith("fit crop, shortest_edge 232")
    assert text["labels"] == "1000 (tench, goldfish, great white shark, …)"
    assert "allow_random_weights" in text["weights"]


def test_labels_with_commas_are_quoted_where_they_are_listed() -> None:
    assert first_labels(["tench, Tinca tinca", "cat", "dog", "owl"]) == '"tench, Tinca tinca", cat, dog, …'
    assert first_labels(["cat", "dog"]) == "cat, dog"


def test_data_that_is_no_folder_is_refused_with_the_layout_of_each_task(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no directory.*classifier, annotations\.json or data\.yaml for a detector"):
        write_recipe(None, f"timm/{NAME}", tmp_path / "nosuch", tmp_path / "r.yaml")


def test_commands_print_lines_or_one_document(tmp_path: Path, pictures: Path) -> None:
    given = ["--source", f"timm/{NAME}", "--data", str(pictures), "--out"]

    lines = CliRunner().invoke(app, ["init", *given, str(tmp_path / "1.yaml")])
    document = CliRunner().invoke(app, ["init", *given, str(tmp_path / "2.yaml"), "--json"])
    listed = CliRunner().invoke(app, ["sources", "timm/deit_tiny*"])
    names = CliRunner().invoke(app, ["sources", "timm/deit_tiny*", "--json"])

    assert f"source: timm/{NAME}" in lines.stdout
    assert "next: saccade-export check" in lines.stdout
    assert json.loads(document.stdout)["understood"]["model"] == NAME
    assert listed.stdout.splitlines()[:2] == ["timm/deit_tiny_distilled_patch16_224", "timm/deit_tiny_patch16_224"]
    assert json.loads(names.stdout)["networks"]["torchvision"] == []


def test_onnx_file_is_understood_in_words_and_a_second_init_updates(tmp_path: Path, pictures: Path) -> None:
    for label in ("cat", "dog", "owl"):
        (pictures / label).mkdir()
    table = np.concatenate([centred_boxes(42, (64, 32)), np.full((42, 4), 0.5, np.float32)], 1)
    path, out = tmp_path / "v5.onnx", tmp_path / "r.yaml"
    table_file(path, {"out": table}, size=(64, 32))

    first = write_recipe(path, None, pictures, out)
    origins = {each.word: each.origin for each in first.findings}
    out.write_text(out.read_text() + "variants: [fp32]  # mine\n")
    second = write_recipe(path, None, pictures, out)

    assert origins["outputs.layout"] == "said"
    assert origins["outputs.objectness"] == origins["outputs.units"] == "found"
    assert origins["outputs.suppression"] == origins["value_range"] == "assumed"
    assert "# assumed: boxes, suppression" in first.text
    assert first.loaded.recipe.labels == ("cat", "dog", "owl")
    assert second.text == f"{first.text}variants: [fp32]  # mine\n"


@pytest.mark.parametrize("rows", [42, 126])
def test_rows_that_fill_a_grid_say_a_detector(tmp_path: Path, pictures: Path, rows: int) -> None:
    for label in ("cat", "dog", "owl"):
        (pictures / label).mkdir()
    table = np.concatenate([centred_boxes(rows, (64, 32)), np.full((rows, 4), 0.5, np.float32)], 1)
    path = table_file(tmp_path / "v5.onnx", {"out": table}, size=(64, 32))

    written = write_recipe(path, None, pictures, tmp_path / "r.yaml")

    origins = {each.word: each.origin for each in written.findings}
    assert origins["outputs.layout"] == origins["task"] == "said"


def test_file_that_is_not_understood_leaves_no_recipe_and_lists_its_outputs(tmp_path: Path, pictures: Path) -> None:
    tables = {"a": np.zeros((3, 4, 5, 6), np.float32), "b": np.zeros(7, np.float32)}
    path = table_file(tmp_path / "net.onnx", tables)

    with pytest.raises(SourceError, match=r"not recognised by its outputs: 'a' \(n, 3, 4, 5, 6\); 'b' \(n, 7\)"):
        write_recipe(path, None, pictures, tmp_path / "r.yaml")

    assert not (tmp_path / "r.yaml").exists()


def test_pixels_that_the_recipe_describes_are_not_assumed_as_well(tmp_path: Path, pictures: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"scores": np.array([-1.0, 3.0], np.float32)})
    out = tmp_path / "r.yaml"
    mine = [
        "normalisation: {mean: [0.4, 0.45, 0.5], std: [0.2, 0.2, 0.2]}",
        "preprocess: {fit: stretch, channel_order: bgr}",
    ]
    out.write_text("\n".join(["source: onnx", *mine, ""]))

    new = write_recipe(path, None, pictures, out)
    found = {each.word: (each.value, each.origin) for each in new.findings}

    assert "value_range" not in new.text
    assert "assumed" not in new.text
    assert new.loaded.recipe.normalisation.mean == (0.4, 0.45, 0.5)
    assert found["preprocess"] == ("fit stretch, channel_order bgr", "said")
    assert found["normalisation"] == ("mean [0.4, 0.45, 0.5], std [0.2, 0.2, 0.2]", "said")


def test_file_for_any_size_asks_for_one(tmp_path: Path, pictures: Path) -> None:
    scores = {"scores": np.array([-1.0, 3.0], np.float32)}
    path = table_file(tmp_path / "net.onnx", scores, image=("n", 3, "height", "width"))

    with pytest.raises(RecipeError, match=r"does not say a size, so write one, such as \{width: 640"):
        write_recipe(path, None, pictures, tmp_path / "r.yaml")


def test_saliency_network_that_also_gives_features_is_its_first_map(tmp_path: Path, pictures: Path) -> None:
    map_, features = np.zeros((1, 32, 32), np.float32), np.zeros((64, 16, 16), np.float32)
    path = table_file(tmp_path / "net.onnx", {"map": map_, "features": features}, ends={"map": "Sigmoid"})

    new = write_recipe(path, None, pictures, tmp_path / "r.yaml")

    assert new.loaded.recipe.task.task == "segment"
    assert [each.origin for each in new.findings if each.word == "outputs.names"] == ["assumed"]


def test_heat_map_of_a_detector_is_no_segmentation(tmp_path: Path, pictures: Path) -> None:
    map_, sizes = np.zeros((1, 8, 8), np.float32), np.zeros((2, 8, 8), np.float32)
    path = table_file(tmp_path / "net.onnx", {"map": map_, "sizes": sizes}, ends={"map": "Sigmoid"})

    with pytest.raises(SourceError, match="not recognised by its outputs"):
        write_recipe(path, None, pictures, tmp_path / "r.yaml")


def test_words_at_the_top_belong_to_onnx_files(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"source: timm/{NAME}\nvalue_range: [0, 255]\ndata: pictures\n")

    with pytest.raises(RecipeError, match="value_range is a word about an ONNX file"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("folder", ["", "onnx"])
def test_labels_are_those_that_optimum_writes_beside_its_file(folder: str, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    file = table_file(tmp_path / folder / "model.onnx", {"logits": np.array([4.0, -9.0, 3.0], np.float32)})
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "owl", "1": "cat", "2": "dog"}}))

    new = write_recipe(file, None, pictures, tmp_path / "r.yaml")

    assert new.loaded.recipe.labels == ("owl", "cat", "dog")
    assert "labels: [owl, cat, dog]  # found in config.json beside the file" in new.text


@pytest.mark.parametrize(
    "given", ["no JSON", "{}", '{"id2label": {"0": "owl"}}', '{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}']
)
def test_a_config_that_names_other_classes_is_passed_over(given: str, tmp_path: Path, pictures: Path) -> None:
    file = table_file(tmp_path / "model.onnx", {"logits": np.array([4.0, -9.0], np.float32)})
    (tmp_path / "config.json").write_text(given)

    assert write_recipe(file, None, pictures, tmp_path / "r.yaml").loaded.recipe.labels == ("class 0", "class 1")


def test_data_that_contradicts_itself_leaves_the_recipe_as_it_was(tmp_path: Path, pictures: Path) -> None:
    for split in ("val", "valid"):
        (pictures / split).mkdir()
    path, out = table_file(tmp_path / "net.onnx", {"p": np.array([0.2, 0.7, 0.1], np.float32)}), tmp_path / "r.yaml"

    with pytest.raises(DataRefused, match="has both 'val' and 'valid'"):
        write_recipe(path, None, pictures, out)
    assert not out.exists()

    out.write_text("source: onnx\nweights: net.onnx\ndata: pictures\n")
    with pytest.raises(DataRefused, match="has both 'val' and 'valid'"):
        write_recipe(path, None, pictures, out)
    assert out.read_text() == "source: onnx\nweights: net.onnx\ndata: pictures\n"


def test_a_recipe_that_contradicts_its_file_is_left_as_it_was(tmp_path: Path, pictures: Path) -> None:
    path, out = table_file(tmp_path / "net.onnx", {"p": np.array([0.2, 0.7, 0.1], np.float32)}), tmp_path / "r.yaml"
    text = "source: onnx\nweights: old.onnx\ndata: pictures\ntask: {top_k: 9}\n"
    out.write_text(text)

    with pytest.raises(RecipeError, match="top_k 9 exceeds the 3 labels"):
        write_recipe(path, None, pictures, out)

    assert out.read_text() == text
