"""The deploy module. Promises: answer, extras, raw ends in that order; bars become zeros; a fixed batch is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.export.convert.padding import BarsToZero, plain_content_mask, plain_input
from saccade.export.convert.trace import traced
from saccade.export.convert.wrap import deployable_network, output_names
from saccade.export.errors import SourceError
from saccade.export.network import Network
from saccade.export.recipe import Recipe
from saccade.models.contract.specs import Normalisation, PreprocessSpec
from tests.support.conversion import ConvertedModule

SIDE = 16
GREY = 114
NORMALISATION = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


class Classifier(nn.Module):
    """Logits, then features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2, 1)
        self.classify = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images).mean((2, 3))
        return self.classify(features), features


class SeesTheMask(nn.Module):
    """What reaches the network: the images and the mask, as a segmenter's logits."""

    def forward(self, images: Tensor, inside: Tensor | None = None) -> Tensor:
        if inside is None:
            inside = torch.ones_like(images[:, 0], dtype=torch.bool)
        return torch.cat([images, inside.unsqueeze(1).to(images.dtype)], dim=1)


class LoopsOverImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = Classifier()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.network(image.unsqueeze(0))[0] for image in images])


def recipe(**sections: Any) -> Recipe:
    values = {
        "model": "m",
        "source": "module/a:b",
        "task": {"task": "classify", "top_k": 2},
        "labels": ["a", "b", "c"],
        "preprocess": {"width": SIDE, "height": SIDE, "fit": "stretch"},
        "normalisation": NORMALISATION.model_dump(),
        "data": "./pictures",
    }
    return Recipe.model_validate(values | sections)


def built(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return module.eval().requires_grad_(False)


def pictures(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_extra_outputs_follow_the_answer_in_the_recipe_s_order() -> None:
    wanted = recipe(extra_outputs=["features", "logits"])
    network = Network(built(Classifier()), "logits", extra_outputs=("features",))
    (inputs,) = plain_input(network, pictures(), NORMALISATION, wanted.preprocess)
    logits, features = network.module(inputs)

    deploy = deployable_network(network, wanted).module
    outputs = dict(zip(output_names(wanted, deploy(pictures())), deploy(pictures()), strict=True))

    assert list(outputs) == ["scores", "class_ids", "features", "logits", "network_0"]
    torch.testing.assert_close(outputs["features"], features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs["logits"], logits, rtol=1e-4, atol=1e-5)


def test_parameters_of_a_part_that_is_a_file_count_too() -> None:
    module = built(Classifier())
    plain = deployable_network(Network(module, "logits"), recipe()).parameters
    module.body.parameter_count = 1000  # as `OnnxNetwork` has, whose tensors torch does not see

    assert plain == 3 * 4 * 9 + 4 + 4 * 3 + 3
    assert deployable_network(Network(module, "logits"), recipe()).parameters == plain + 1000


def test_converted_graph_keeps_every_output_apart() -> None:
    wanted = recipe(extra_outputs=["features", "logits"])
    network = Network(built(Classifier()), "logits", extra_outputs=("features",))
    deploy = deployable_network(network, wanted).module

    converted = ConvertedModule(deploy, (pictures(2),))

    names = [output.name for output in converted.model.graph.output]
    assert len(set(names)) == 5
    for found, expected in zip(converted(pictures()), deploy(pictures()), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_extra_output_that_the_network_lacks_is_refused() -> None:
    with pytest.raises(SourceError, match="no 'features' output"):
        deployable_network(Network(built(Classifier()), "logits"), recipe(extra_outputs=["features"]))


def letterboxed() -> Tensor:
    """Bars on the right, at the bottom, on neither side, and everywhere; grey within a picture is no bar."""
    images = pictures(4)
    images[0, :, 10:] = GREY
    images[1, 12:] = GREY
    images[1, :, 4] = GREY
    images[3] = GREY
    return images


def test_bars_are_zero_behind_normalisation_and_the_mask_tells_them() -> None:
    preprocess = PreprocessSpec(width=SIDE, height=SIDE, fit="letterbox", anchor="top_left", pad_value=GREY)
    wanted = recipe(task={"task": "segment"}, labels=["a", "b", "c", "d"], preprocess=preprocess)
    network = Network(built(SeesTheMask()), "dense_logits", zero_bars=True, takes_padding_mask=True)

    *_, seen = deployable_network(network, wanted).module(letterboxed())

    images, inside = plain_input(network, letterboxed(), NORMALISATION, preprocess)
    assert inside.sum(dim=(1, 2)).tolist() == [160, 192, 256, 256]
    assert torch.equal(seen[:, 3] > 0, inside)
    torch.testing.assert_close(seen[:, :3], images, rtol=1e-4, atol=1e-5)


def test_bars_are_found_in_a_converted_graph() -> None:
    front = nn.Conv2d(3, 3, 1, groups=3).eval().requires_grad_(False)
    bars = BarsToZero(front, built(SeesTheMask()), (SIDE, SIDE), GREY, takes_mask=True).eval()
    pixels = letterboxed().permute(0, 3, 1, 2).float()

    (found,) = ConvertedModule(bars, (pixels[:2],))(pixels)

    np.testing.assert_array_equal(found[:, 3] > 0, plain_content_mask(letterboxed(), GREY).numpy())


def test_stretched_images_have_no_bars() -> None:
    network = Network(built(SeesTheMask()), "dense_logits", zero_bars=True, takes_padding_mask=True)

    *_, seen = deployable_network(network, recipe(task={"task": "segment"}, labels=list("abcd"))).module(letterboxed())

    assert bool((seen[:, 3] == 1).all())


def test_bars_on_the_left_are_refused() -> None:
    preprocess = {"width": SIDE, "height": SIDE, "fit": "letterbox"}

    with pytest.raises(SourceError, match="say top_left"):
        deployable_network(Network(built(SeesTheMask()), "dense_logits", zero_bars=True), recipe(preprocess=preprocess))


def test_network_that_fixes_the_batch_is_traced_for_one_image() -> None:
    deploy = deployable_network(Network(built(LoopsOverImages()), "logits"), recipe()).module

    trace = traced(deploy, pictures(1))

    assert trace.not_batchable_reason
    assert trace.outputs[0].shape[0] == 1


def test_network_that_batches_is_traced_for_any_number() -> None:
    deploy = deployable_network(Network(built(Classifier()), "logits"), recipe()).module

    trace = traced(deploy, pictures(1))

    assert trace.not_batchable_reason == ""
    assert trace.program.module()(pictures(3))[0].shape[0] == 3


@pytest.mark.parametrize(
    ("written", "made", "told"), [(2, 1, "write `scale: 1`"), (1, 4, "write `scale: 4`"), (1, 1.5, "no scale of whole")]
)
def test_a_wrong_scale_is_named(written: int, made: float, told: str) -> None:
    task = {"task": "image", "picture": "rgb", "scale": written}
    network = Network(nn.Upsample(scale_factor=made), "pixels")

    with pytest.raises(SourceError, match=rf"task.scale is {written}, and the network makes .* of 16x16: {told}"):
        deployable_network(network, recipe(task=task, labels=["pictures"]))
