"""Embedders of the libraries. Promises: the library's own vectors, of checkpoints with or without a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from saccade.export.errors import RecipeError, SourceError
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.sources import load_network
from saccade.models.contract.specs import Task

SIDE = 64
IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
SIDES = {
    "text_config": {**SMALL, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2},
    "vision_config": {**SMALL, "image_size": SIDE, "patch_size": 16},
}


def loaded(folder: Path, source: Any, weights: Path | None = None, **sections: Any) -> LoadedRecipe:
    """A recipe with pictures in two folders."""
    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "pictures" / label / "1.png")
    document = {
        "source": source,
        "data": "pictures",
        "task": {"task": "embed"},
        "preprocess": {"width": SIDE, "height": SIDE, "fit": "stretch"},
        **({} if weights is None else {"weights": str(weights)}),
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_recipe(path)


def vectors_of(recipe: LoadedRecipe) -> torch.Tensor:
    network = load_network(recipe.network_request())
    assert network.form == "vectors"
    with torch.no_grad():
        found: torch.Tensor = network.module(IMAGES)
    assert found.shape == (2, recipe.recipe.task.dim)
    return found


def test_three_lines_are_enough_for_a_network_of_a_library(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, "timm/resnet18").recipe

    assert (recipe.task.task, recipe.task.dim) == (Task.EMBED, 512)
    assert recipe.labels == ("cat", "dog")


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "convnext_atto"])
@pytest.mark.parametrize("has_classifier", [True, False])
def test_timm_gives_what_its_own_pooling_gives(tmp_path: Path, name: str, has_classifier: bool) -> None:
    torch.manual_seed(1)
    network = timm.create_model(name, num_classes=7 if has_classifier else 0).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(IMAGES), pre_logits=True)

    found = vectors_of(loaded(tmp_path, f"timm/{name}", tmp_path / "w.safetensors"))

    assert torch.allclose(found, expected, atol=1e-5)


def test_a_timm_network_without_classifier_needs_no_task(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, "timm/vit_base_patch16_siglip_224", task={}, preprocess={}).recipe

    assert (recipe.task.task, recipe.task.dim) == (Task.EMBED, 768)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_gives_what_its_last_layer_reads(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    network = models.get_model(name, weights=None, num_classes=7).eval()
    # Saved from DataParallel, as training scripts do.
    save_file({f"module.{key}": value for key, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(IMAGES)
    source = {"kind": "torchvision", "name": name, "arguments": {"num_classes": 7}}

    found = vectors_of(loaded(tmp_path, source, tmp_path / "w.safetensors"))

    assert torch.allclose(found, seen[0], atol=1e-5)


@pytest.mark.parametrize(("name", "reason"), [("squeezenet1_0", "no.* with 1000"), ("fcn_resnet50", "no vector")])
def test_networks_without_a_vector_say_so(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        load_network(loaded(tmp_path, f"torchvision/{name}", task={"task": "embed", "dim": 9}).network_request())


def saved(folder: Path, network: Any) -> Path:
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_networks_for_pictures_and_texts_give_their_image_features(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **SIDES)
    network = transformers.AutoModel.from_config(config).eval()
    directory = saved(tmp_path / kind, network)
    {"clip": transformers.CLIPImageProcessor, "siglip": transformers.SiglipImageProcessor}[kind]().save_pretrained(
        directory
    )
    recipe = loaded(tmp_path, "transformers", directory, task={})  # config.json says the rest
    with torch.no_grad():
        expected = network.get_image_features(IMAGES)

    assert recipe.recipe.task.task is Task.EMBED
    assert torch.allclose(vectors_of(recipe), getattr(expected, "pooler_output", expected), atol=1e-5)


def test_the_picture_s_side_alone_gives_its_projection(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.CLIPVisionConfig(**SIDES["vision_config"], projection_dim=24)
    network = transformers.CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():
        expected = network(IMAGES).image_embeds

    found = vectors_of(loaded(tmp_path, "transformers", saved(tmp_path / "clip", network)))

    assert torch.allclose(found, expected, atol=1e-5)


def test_a_backbone_gives_what_it_pools_and_a_classifier_what_its_last_layer_reads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.Dinov2Config(**SMALL, image_size=SIDE, patch_size=16, mlp_ratio=2, num_labels=5)
    backbone = transformers.Dinov2Model(config).eval()
    classifier = transformers.Dinov2ForImageClassification(config).eval()
    seen: list[torch.Tensor] = []
    classifier.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        pooled = backbone(IMAGES).pooler_output
        classifier(IMAGES)

    of_backbone = loaded(tmp_path, "transformers", saved(tmp_path / "backbone", backbone))
    of_classifier = loaded(tmp_path, "transformers", saved(tmp_path / "classifier", classifier))

    assert torch.allclose(vectors_of(of_backbone), pooled, atol=1e-5)
    assert torch.allclose(vectors_of(of_classifier), seen[0], atol=1e-5)


def test_a_classifier_stays_one_where_nobody_asks_for_vectors(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, "timm/resnet18", task={}, labels=[f"class {number}" for number in range(1000)]).recipe

    assert (recipe.task.task, recipe.task.dim) == (Task.CLASSIFY, 0)


class Vectors(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(2).mean(2) - 0.3


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """Three numbers per picture, which may as well be scores of three classes."""
    path = tmp_path / "network.onnx"
    dynamic = ({0: torch.export.Dim("n", max=64)},)
    torch.onnx.export(Vectors().eval(), (IMAGES,), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    return path


def test_vectors_of_a_file_are_believed_where_the_recipe_says_so(tmp_path: Path, onnx_file: Path) -> None:
    found = vectors_of(loaded(tmp_path, "onnx", onnx_file))

    assert torch.allclose(found, Vectors()(IMAGES), atol=1e-5)


def test_vectors_of_a_saved_program_are_believed_where_the_recipe_says_so(tmp_path: Path) -> None:
    dynamic = ({0: torch.export.Dim("n", max=64)},)
    torch.export.save(torch.export.export(Vectors().eval(), (IMAGES,), dynamic_shapes=dynamic), tmp_path / "n.pt2")

    found = vectors_of(loaded(tmp_path, "pt2", tmp_path / "n.pt2"))

    assert torch.allclose(found, Vectors()(IMAGES), atol=1e-5)


def test_a_module_says_how_many_numbers_it_gives(tmp_path: Path) -> None:
    (tmp_path / "own_vectors.py").write_text(
        "from torch import nn\ndef network():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    source = {"kind": "module", "factory": "own_vectors.py:network"}

    with pytest.raises(RecipeError, match="dim ≥ 1"):
        loaded(tmp_path, source)
    assert vectors_of(loaded(tmp_path, source, task={"task": "embed", "dim": 3})).shape == (2, 3)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"task": "classify", "top_k": 1, "dim": 3}, "dim belongs to task: embed"),
        ({"task": "embed", "top_k": 3}, "top_k"),
    ],
)
def test_words_of_another_task_are_refused(tmp_path: Path, task: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        loaded(tmp_path, "timm/resnet18", task=task, labels=["a", "b"])


def test_a_length_that_the_vectors_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"task\.dim is 7, and the network's vectors have 512 numbers: leave it out"):
        loaded(tmp_path, "timm/resnet18", task={"task": "embed", "dim": 7})
