"""timm as a source. Promises: the library's own facts, transform and answers, without any download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform
from saccade.export.recipe import load_recipe
from saccade.export.sources import library_transform, load_network, source_digest, source_facts
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import Task
from tests.support.network_requests import network_request, source_spec

SMALL = "timm/mobilenetv3_small_050"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Weights and card as timm saves them for the hub."""
    network = timm.create_model("mobilenetv3_small_050", num_classes=3)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    card = {
        "architecture": "mobilenetv3_small_050",
        "num_classes": 3,
        "label_names": ["cat", "dog", "owl"],
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "crop_mode": "squash",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(card))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "side", "edge", "resample", "mean"),
    [
        ("resnet50", 224, 235, "bicubic", 0.485),
        ("resnet50.tv_in1k", 224, 256, "bilinear", 0.485),
        ("levit_128s", 224, 248, "bicubic", 0.485),
        ("nasnetalarge", 331, 363, "bicubic", 0.5),
        ("cait_xxs24_224", 224, 224, "bicubic", 0.485),
        ("mixer_b16_224", 224, 256, "bicubic", 0.5),
    ],
)
def test_facts_are_the_pretrained_cfg(name: str, side: int, edge: int, resample: str, mean: float) -> None:
    facts = source_facts(source_spec(f"timm/{name}"), None)

    assert facts.preprocess is not None
    assert (facts.preprocess.fit, facts.preprocess.rounding) == ("crop", "floor")
    assert (facts.preprocess.width, facts.preprocess.height, facts.preprocess.shortest_edge) == (side, side, edge)
    assert facts.preprocess.resample == resample
    assert facts.normalisation is not None
    assert facts.normalisation.mean[0] == mean
    assert facts.task is not None
    assert (facts.task.task, facts.task.top_k) == (Task.CLASSIFY, 5)
    assert facts.labels is not None
    assert (len(facts.labels), facts.labels[0]) == (1000, "tench, Tinca tinca")


def test_number_of_classes_in_the_arguments_makes_generic_labels() -> None:
    facts = source_facts(source_spec({"kind": "timm", "name": "resnet18", "arguments": {"num_classes": 3}}), None)

    assert facts.labels == ("class 0", "class 1", "class 2")
    assert facts.task is not None
    assert facts.task.top_k == 3


def test_card_in_the_weights_directory_wins(directory: Path) -> None:
    request = network_request("timm", directory)

    assert source_facts(source_spec("timm"), directory).labels == ("cat", "dog", "owl")
    assert (request.preprocess.fit, request.preprocess.width, request.preprocess.resample) == (
        "stretch",
        64,
        "bilinear",
    )
    with torch.no_grad():
        assert load_network(request).module(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "size", "image_size"),
    [
        ("resnet50", None, (301, 407)),
        ("vit_base_patch16_clip_224", None, (640, 333)),
        ("resnetv2_50x1_bit", (96, 96), (200, 100)),
        ("volo_d1_224", (288, 192), (311, 500)),
    ],
)
def test_server_pixels_are_those_of_the_library(
    tmp_path: Path, name: str, size: tuple[int, int] | None, image_size: tuple[int, int]
) -> None:
    given = {} if size is None else {"preprocess": {"width": size[0], "height": size[1]}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"source": f"timm/{name}", "data": "pictures", **given}))
    request = load_recipe(tmp_path / "r.yaml").network_request()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*image_size, 3), np.uint8))
    transform = library_transform(request)

    assert transform is not None
    expected = _levels(transform, image, request.normalisation.mean, request.normalisation.std)
    found = preprocess(np.asarray(image), request.preprocess).transpose(2, 0, 1)

    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1.01


def test_no_library_transform_for_another_resize_rule() -> None:
    request = network_request(SMALL)
    stretched = request.preprocess.model_copy(update={"fit": "stretch", "shortest_edge": None})

    assert library_transform(request) is not None
    assert library_transform(network_request(SMALL, preprocess=stretched)) is None


@pytest.mark.parametrize(
    ("name", "side"),
    [("mobilenetv3_small_050", 96), ("vit_tiny_patch16_224", 96), ("levit_128s", 192)],
)
def test_size_of_the_recipe_reaches_the_architecture(name: str, side: int) -> None:
    request = network_request(f"timm/{name}", width=side, height=side, classes=4)

    with torch.no_grad():
        logits = load_network(request).module(torch.zeros(1, 3, side, side))

    assert logits.shape == (1, 4)


def test_answer_is_the_library_s(directory: Path) -> None:
    request = network_request(SMALL, directory / "model.safetensors", classes=3)
    library = timm.create_model(
        "mobilenetv3_small_050", num_classes=3, checkpoint_path=str(directory / "model.safetensors")
    )
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        assert torch.equal(load_network(request).module(images), library.eval()(images))


def test_position_grid_of_another_size_is_resampled_by_the_library(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    save_file(network.state_dict(), tmp_path / "w.safetensors")

    request = network_request("timm/vit_tiny_patch16_224", tmp_path / "w.safetensors", width=96, height=96, classes=2)
    loaded = load_network(request).module

    assert loaded.state_dict()["pos_embed"].shape == (1, 1 + 6 * 6, 192)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])


def test_features_are_what_the_classifier_reads() -> None:
    network = load_network(network_request(SMALL, extra_outputs=("features",)))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        logits, features = network.module(images)
        again = network.module.network.get_classifier()(features)

    assert network.extra_outputs == ("features",)
    assert torch.allclose(logits, again)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("timm/resnet5O", "did you mean resnet50, .*saccade-export sources 'resnet"),
        ("timm/resnet50.absent", r"Tags of resnet50: resnet50\.a1_in1k"),
        ("timm", "needs a name, such as timm/resnet50"),
        ({"kind": "timm", "name": "resnet18", "arguments": {"in_chans": 1}}, "images have 3"),
    ],
)
def test_name_that_does_not_fit_is_named(source: str | dict[str, Any], text: str) -> None:
    with pytest.raises(SourceError, match=text):
        source_facts(source_spec(source), None)


def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(SourceError, match=r"'colour': 3.*timm\.create_model"):
        load_network(network_request({"kind": "timm", "name": "resnet18", "arguments": {"colour": 3}}))


def test_directory_of_another_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')

    with pytest.raises(SourceError, match="use source: transformers"):
        source_facts(source_spec("timm"), tmp_path)


def test_digest_depends_on_name_and_arguments() -> None:
    digests = {
        source_digest(network_request(source))
        for source in (SMALL, "timm/resnet18", {"kind": "timm", "name": "resnet18", "arguments": {"num_classes": 3}})
    }

    assert len(digests) == 3
    assert source_digest(network_request(SMALL)) in digests


def _levels(
    transform: LibraryTransform, image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray[Any, Any]:
    """The library's normalised floats as 8-bit levels (3, h, w)."""
    channels = (3, 1, 1)
    return (transform(image) * np.reshape(std, channels) + np.reshape(mean, channels)) * 255
