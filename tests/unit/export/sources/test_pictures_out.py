"""Networks whose answer is a picture: ONNX files that the recipe calls so, and transformers' by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper

from saccade.export.cli.init_onnx import settled_words
from saccade.export.convert.wrap import deployable_network
from saccade.export.errors import RecipeError, SourceError
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.sources import load_network

SIDE = 64
SCENES = {"dataset": "digit_scenes", "images": {"calibration": 32, "tuning": 16, "test": 24}}


def restorer(
    path: Path,
    *,
    scale: int = 1,
    factor: float = 1.0,
    offset: float = 0.0,
    whole: bool = False,
    name: str = "out",
) -> Path:
    """Each pixel repeated, times `factor`, plus `offset`; whole: minus the mean of the picture."""
    nodes = [helper.make_node("Resize", ["images", "", "scales"], ["large"], mode="nearest")]
    last = "large"
    if whole:
        nodes += [
            helper.make_node("GlobalAveragePool", ["large"], ["mean"]),
            helper.make_node("Sub", ["large", "mean"], ["centred"]),
        ]
        last = "centred"
    nodes += [
        helper.make_node("Mul", [last, "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], [name]),
    ]
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, SIDE * scale, SIDE * scale]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales"),
        numpy_helper.from_array(np.float32(factor), "factor"),
        numpy_helper.from_array(np.float32(offset), "offset"),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def one_channel(path: Path, name: str) -> Path:
    node = helper.make_node("ReduceMean", ["images"], [name], axes=[1], keepdims=1)
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, SIDE, SIDE]),
    ]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def loaded(folder: Path, **document: Any) -> LoadedRecipe:
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": SCENES, **document}))
    return load_recipe(folder / "recipe.yaml")


def answered(recipe: LoadedRecipe) -> tuple[int, ...]:
    spec = recipe.recipe.preprocess
    module = deployable_network(load_network(recipe.network_request()), recipe.recipe).module
    with torch.no_grad():
        return tuple(module(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8))[0].shape)


def test_a_file_that_enlarges_is_read_in_tiles(tmp_path: Path) -> None:
    restorer(tmp_path / "net.onnx", scale=2, factor=255.0)

    task = {"task": "image", "values": [0, 255]}
    recipe = loaded(tmp_path, source="onnx", weights="net.onnx", task=task, value_range=[0, 1])

    task, pixels = recipe.recipe.task, recipe.recipe.preprocess
    assert (task.picture, task.scale, task.values) == ("rgb", 2, (0.0, 255.0))
    assert (pixels.width, pixels.height, pixels.fit) == (SIDE, SIDE, "tile")
    assert recipe.recipe.labels == ("pictures",)
    assert answered(recipe) == (1, 2 * SIDE, 2 * SIDE, 3)


def test_a_file_that_sees_the_whole_picture_has_it_resized(tmp_path: Path) -> None:
    restorer(tmp_path / "net.onnx", whole=True)

    words = {"source": "onnx", "weights": "net.onnx", "value_range": [-1, 1]}
    recipe = loaded(tmp_path, **words, task={"task": "image", "picture": "rgb"})
    said = loaded(tmp_path, **words, task={"task": "image", "picture": "rgb"}, preprocess={"fit": "stretch"})

    assert recipe.recipe.preprocess.fit == "stretch"
    assert recipe.recipe.task.values == (-1.0, 1.0)
    assert recipe.fit_note.startswith("pictures are resized to 64x64, because far pixels are seen: ")
    assert said.fit_note == ""


def test_ranges_that_nobody_says_are_refused_with_the_lines(tmp_path: Path) -> None:
    restorer(tmp_path / "net.onnx", factor=255.0)
    words = {"source": "onnx", "weights": "net.onnx", "task": {"task": "image", "picture": "rgb"}}

    with pytest.raises(SourceError, match=r"write `value_range: \[0, 1\]`, or \[0, 255\] or \[-1, 1\], or let `sacc"):
        loaded(tmp_path, **words)
    with pytest.raises(SourceError, match=r"picture: rgb, values: \[0, 255\]\}`.*`value_range: \[0, 1\]`"):
        loaded(tmp_path, **words, value_range=[0, 1])
    with pytest.raises(SourceError, match=r"pixels become \[-2\.118, 2\.\d+\]"):
        loaded(tmp_path, **words, normalisation={"mean": [0.485, 0.485, 0.485], "std": [0.229, 0.229, 0.229]})


def test_one_channel_is_asked_for_unless_its_name_says_it(tmp_path: Path) -> None:
    one_channel(tmp_path / "net.onnx", "out")
    source = {"source": "onnx", "weights": "net.onnx"}
    with pytest.raises(SourceError, match=r"may be greys or depths: write `task: \{task: image, picture: grey\}`"):
        loaded(tmp_path, **source, task={"task": "image"})

    assert (
        loaded(tmp_path, **source, task={"task": "image", "picture": "grey"}, value_range=[0, 1]).recipe.preprocess.fit
        == "tile"
    )
    assert answered(loaded(tmp_path, **source, task={"task": "image", "picture": "depth"})) == (1, SIDE, SIDE)
    one_channel(tmp_path / "net.onnx", "predicted_depth")
    assert loaded(tmp_path, **source, task={"task": "image"}).recipe.task.picture == "depth"


def test_a_file_without_a_word_is_told_which_to_write(tmp_path: Path) -> None:
    restorer(tmp_path / "net.onnx", factor=0.9)
    with pytest.raises(RecipeError, match="task: required"):
        loaded(tmp_path, source="onnx", weights="net.onnx")
    with pytest.raises(SourceError, match=r"write `task: \{task: image, picture: rgb\}` for that"):
        settled_words(tmp_path / "net.onnx", tmp_path, None)

    words = settled_words(tmp_path / "net.onnx", tmp_path, "source: onnx\ntask: {task: image, picture: rgb}\n")

    assert words.has_labels
    assert "fit: tile" in words.lines["preprocess"]


SMALL = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96}
NECK = {"neck_hidden_sizes": [8, 12, 24, 48], "fusion_hidden_size": 16}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False}
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "dpt": ({**SMALL, **NECK, "image_size": 64, "backbone_out_indices": [0, 1, 2, 3]}, (1, 64, 64)),
    "depth_anything": (
        {
            **NECK,
            "backbone_config": {"model_type": "dinov2", **SMALL, "image_size": 56, "patch_size": 14, **STAGES},
            **{"reassemble_hidden_size": 48, "head_hidden_size": 8},
        },
        (1, 56, 56),
    ),
    "swin2sr": (
        {
            **{"image_size": 64, "embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 8, "upscale": 2},
            "upsampler": "pixelshuffledirect",
        },
        (1, 128, 128, 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_transformers_need_their_name_alone(tmp_path: Path, name: str) -> None:
    arguments, shape = NETWORKS[name]
    side = {"preprocess": {"width": 56, "height": 56, "fit": "stretch"}} if name == "depth_anything" else {}

    recipe = loaded(
        tmp_path,
        source={"kind": "transformers", "name": name, "arguments": arguments},
        task={"task": "image"},
        **side,
    )

    assert answered(recipe) == shape
    assert recipe.recipe.preprocess.fit == ("tile" if name == "swin2sr" else "stretch")
    assert recipe.recipe.task.picture == ("rgb" if name == "swin2sr" else "depth")


def test_a_program_is_read_in_tiles_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    batch = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(
        torch.export.export(layer, (torch.zeros(2, 3, SIDE, SIDE),), dynamic_shapes=batch), tmp_path / "n.pt2"
    )

    recipe = loaded(tmp_path, source="pt2", weights="n.pt2", task={"task": "image", "picture": "rgb"})

    assert (recipe.recipe.preprocess.fit, recipe.recipe.labels) == ("tile", ("pictures",))
    assert answered(recipe) == (1, SIDE, SIDE, 3)


def test_a_classifier_makes_no_pictures(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, source="timm/resnet18", task={"task": "image", "picture": "rgb"})

    with pytest.raises(SourceError, match="gives logits, and task: image needs pixels"):
        answered(recipe)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"task": {"task": "image"}}, "rgb, grey or depth"),
        ({"task": {"task": "image", "picture": "depth", "scale": 2}}, "a depth is answered as the network gives it"),
        ({"task": {"task": "image", "picture": "rgb", "values": [1, 0]}}, "values must ascend"),
        ({"task": {"task": "classify", "top_k": 1, "scale": 2}}, "belong to task: image"),
        ({"task": {"task": "classify", "top_k": 1}, "labels": ["a"]}, "fit: tile belongs to task: image"),
    ],
)
def test_words_that_do_not_fit_are_named(tmp_path: Path, document: dict[str, Any], words: str) -> None:
    tile = {"width": 32, "height": 32, "fit": "tile"}
    with pytest.raises(RecipeError, match=words):
        loaded(tmp_path, source="module/a:b", preprocess=tile, **document)


@pytest.mark.parametrize("scale", [1, 2])
def test_answers_that_overshoot_black_and_white_are_colours_from_0_to_1_all_the_same(
    tmp_path: Path, scale: int
) -> None:
    restorer(tmp_path / "net.onnx", scale=scale, factor=1.8, offset=-0.4)  # from -0.4 to 1.4

    recipe = loaded(
        tmp_path,
        source="onnx",
        weights="net.onnx",
        task={"task": "image", "picture": "rgb"},
        value_range=[0, 1],
    )

    assert recipe.recipe.task.values == (0.0, 1.0)


def test_answers_around_0_are_colours_from_minus_1(tmp_path: Path) -> None:
    restorer(tmp_path / "net.onnx", factor=2.0, offset=-1.0)

    with pytest.raises(SourceError, match=r"answers look as if their black and white were \[-1, 1\]"):
        loaded(
            tmp_path,
            source="onnx",
            weights="net.onnx",
            task={"task": "image", "picture": "rgb"},
            value_range=[0, 1],
        )
