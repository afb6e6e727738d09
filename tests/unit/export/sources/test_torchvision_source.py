"""torchvision as a source. Promises: presets, labels and answers of the library, without any download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional
from torchvision import models
from torchvision.models import get_model_weights

from saccade.export.errors import SourceError
from saccade.export.sources import library_transform, load_network, source_facts
from saccade.export.sources.torchvision_source import servable_names
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import Task
from tests.support.network_requests import network_request, source_spec

SEGMENTER = "torchvision/lraspp_mobilenet_v3_large"


@pytest.mark.parametrize(
    ("name", "side", "edge", "resample"),
    [
        ("resnet50", 224, 232, "bilinear"),
        ("resnet50.IMAGENET1K_V1", 224, 256, "bilinear"),
        ("swin_t", 224, 232, "bicubic"),
        ("inception_v3", 299, 342, "bilinear"),
        ("efficientnet_b7", 600, 600, "bicubic"),
    ],
)
def test_facts_are_the_preset_of_the_weights(name: str, side: int, edge: int, resample: str) -> None:
    facts = source_facts(source_spec(f"torchvision/{name}"), None)

    assert facts.preprocess is not None
    assert (facts.preprocess.fit, facts.preprocess.width, facts.preprocess.shortest_edge) == ("crop", side, edge)
    assert facts.preprocess.resample == resample
    assert facts.labels is not None
    assert (len(facts.labels), facts.labels[0]) == (1000, "tench")


def test_segmenter_shows_the_whole_picture_and_knows_its_background() -> None:
    facts = source_facts(source_spec("torchvision/fcn_resnet50"), None)

    assert facts.task is not None
    assert (facts.task.task, facts.task.background_id) == (Task.SEGMENT, 0)
    assert facts.preprocess is not None
    assert (facts.preprocess.fit, facts.preprocess.width, facts.preprocess.height) == ("letterbox", 520, 520)
    assert facts.labels is not None
    assert facts.labels[:2] == ("__background__", "aeroplane")


@pytest.mark.parametrize("name", ["resnet50", "swin_t", "inception_v3"])
def test_server_pixels_are_those_of_the_preset(name: str) -> None:
    request = network_request(f"torchvision/{name}")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 407, 3), np.uint8))
    transform = library_transform(request)
    preset = get_model_weights(name)["DEFAULT"].transforms()

    assert transform is not None
    normalised = transform(image)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (request.normalisation.mean, request.normalisation.std))
    found = preprocess(np.asarray(image), request.preprocess).transpose(2, 0, 1)

    assert np.array_equal(normalised, preset(image).numpy())
    assert np.abs(found - (normalised * std + mean) * 255).max() <= 1.01


def test_segmenter_s_pixels_are_resized_with_the_library_s_filter() -> None:
    request = network_request(SEGMENTER, width=96, height=96)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 300, 3), np.uint8))
    transform = library_transform(request)

    assert transform is not None
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (request.normalisation.mean, request.normalisation.std))
    expected = (transform(image) * std + mean) * 255
    found = preprocess(np.asarray(image), request.preprocess).transpose(2, 0, 1)

    assert expected.shape == (3, 48, 96)
    assert np.abs(found[:, 24:72] - expected).max() <= 1.01


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_segmenter_answers_at_its_stride_what_the_library_enlarges(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    library = models.get_model(name, weights=None, weights_backbone=None, num_classes=4, **_aux(name)).eval()
    save_file(library.state_dict(), tmp_path / "w.safetensors")
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))

    network = load_network(network_request(f"torchvision/{name}", tmp_path / "w.safetensors", classes=4))

    with torch.no_grad():
        logits = network.module(images)
        enlarged = functional.interpolate(logits, size=(96, 64), mode="bilinear", align_corners=False)
        assert torch.equal(enlarged, library(images)["out"])
    assert network.form == "dense_logits"
    assert logits.shape[2] < 96


def test_auxiliary_heads_of_a_checkpoint_are_left_out(tmp_path: Path) -> None:
    library = models.googlenet(num_classes=3, aux_logits=True, transform_input=True, init_weights=False).eval()
    save_file(library.state_dict(), tmp_path / "w.safetensors")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    network = load_network(network_request("torchvision/googlenet", tmp_path / "w.safetensors", classes=3)).module

    with torch.no_grad():
        assert torch.equal(network(images), library(images))


def test_size_of_the_recipe_reaches_a_transformer() -> None:
    request = network_request("torchvision/vit_b_32", width=96, height=96, classes=2)

    with torch.no_grad():
        assert load_network(request).module(torch.zeros(1, 3, 96, 96)).shape == (1, 2)


def test_features_are_refused_where_no_linear_layer_classifies() -> None:
    with pytest.raises(SourceError, match="leave `features` out"):
        load_network(network_request("torchvision/squeezenet1_1", extra_outputs=("features",)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet5O", "did you mean resnet50"),
        ("resnet50.absent", "there are: IMAGENET1K_V1, IMAGENET1K_V2"),
        ("quantized_resnet50", r"variants: \[int8-cpu\] quantizes it"),
        ("r3d_18", "takes clips"),
        ("raft_small", "takes pairs of frames"),
    ],
)
def test_name_that_cannot_be_served_is_named(name: str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        source_facts(source_spec(f"torchvision/{name}"), None)


def test_every_listed_classifier_and_segmenter_has_facts() -> None:
    names = [name for name in servable_names() if "detection" not in models.get_model_builder(name).__module__]

    assert len(names) > 80
    assert all(source_facts(source_spec(f"torchvision/{name}"), None).labels for name in names)


def _aux(name: str) -> dict[str, bool]:
    return {} if name.startswith("lraspp") else {"aux_loss": True}
