"""Loads torchvision's networks; size, resize rule, normalisation and labels are those of the library's weights.

A name may carry the weights whose rules apply, `resnet50.IMAGENET1K_V1`; without, they are the library's default.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import functional
from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.class_features import WithFeatures
from saccade.export.sources.library_pixels import as_library_transform
from saccade.export.sources.names import generic_labels, unknown_name
from saccade.export.sources.specs import SourceSpec, TorchvisionSource
from saccade.export.sources.vectors import tensors_beside, vector_size, without_classifier
from saccade.export.sources.weights import RANDOM_WEIGHTS_SEED, fitted_tensors, load_tensors, state_dict_of
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec

_TOP_K = 5
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")  # heads that only training uses
_REFUSED = {  # by the library's module: why, and what to do instead
    "quantization": "runs on PyTorch's own int8 kernels; take the float network, and variants: [int8-cpu] quantizes it",
    "video": "takes clips; networks of single images can be served",
    "optical_flow": "takes pairs of frames; networks of single images can be served",
}
_WITH_KEY_POINTS = "keypointrcnn_"  # refused by `torchvision_detection`
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Raises SourceError for an unknown name and for networks that do not take single images."""
    assert isinstance(source, TorchvisionSource)
    family, card = _family_and_card(source)
    if family == "detection":
        from saccade.export.sources import torchvision_detection  # imports detectors, which few recipes need

        return torchvision_detection.facts(source, weights)
    preset = card.transforms()
    categories = tuple(card.meta["categories"])
    classes = int(source.arguments.get("num_classes", len(categories)))
    labels = categories if classes == len(categories) else generic_labels(classes)
    normalisation = Normalisation(mean=tuple(preset.mean), std=tuple(preset.std))
    if family == "segmentation":
        task = TaskSpec(task=Task.SEGMENT, background_id=0)
        return SourceFacts(task, labels, _segmentation_pixels(preset), normalisation)
    task = TaskSpec(task=Task.CLASSIFY, top_k=min(_TOP_K, classes))
    pixels = _classification_pixels(preset)

    def embedding_dim(width: int, height: int) -> int:
        return vector_size(lambda: _embedder(source, (width, height))[0], width, height)

    share = preset.crop_size[0] / preset.resize_size[0]
    return SourceFacts(task, labels, pixels, normalisation, share, embedding_dim=embedding_dim)


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the arguments or the weights do not fit."""
    source = request.source
    assert isinstance(source, TorchvisionSource)
    family, _ = _family_and_card(source)
    is_embedder = request.task.task is Task.EMBED
    if is_embedder and family in ("segmentation", "detection"):
        raise SourceError(
            f"source: torchvision/{source.name} gives no vector per picture: take a classifier, or a module"
        )
    if family == "detection":
        from saccade.export.sources import torchvision_detection

        return torchvision_detection.load(request)
    size = (request.preprocess.width, request.preprocess.height)
    network, left_out = _embedder(source, size) if is_embedder else (build(source, request.classes, size), ())
    if request.weights is not None:
        tensors = tensors_beside(fitted_tensors(network, state_dict_of(request.weights)), left_out)
        inference = {name: tensor for name, tensor in tensors.items() if not _is_auxiliary(name)}
        load_tensors(network, inference, request.weights.name)
    network = network.eval().requires_grad_(False)
    if is_embedder:
        return Network(network, "vectors")
    if family == "segmentation":
        return Network(StrideLogits(network).eval(), "dense_logits")
    if "features" in request.extra_outputs:
        return Network(WithFeatures(network, request.classes).eval(), "logits", extra_outputs=("features",))
    return Network(network, "logits")


def build(source: TorchvisionSource, classes: int, size: tuple[int, int]) -> nn.Module:
    """The network with random weights for `size` (width, height), without heads that only training uses."""
    name = source.name.partition(".")[0]
    arguments: dict[str, Any] = {"num_classes": classes, **_builder_defaults(name, size), **source.arguments}
    torch.manual_seed(RANDOM_WEIGHTS_SEED)
    try:
        network: nn.Module = models.get_model(name, weights=None, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise SourceError(
            f"source.arguments {arguments} do not fit torchvision/{name}: {error}; "
            "they go to the library's builder, and preprocess.width and height must be a size that the network takes"
        ) from error
    return network


def _embedder(source: TorchvisionSource, size: tuple[int, int]) -> tuple[nn.Module, tuple[str, ...]]:
    """The network without its classifier, and that layer's name, under which a checkpoint may hold any class count."""
    _, card = _family_and_card(source)
    classes = int(source.arguments.get("num_classes", len(card.meta["categories"])))
    network = build(source, classes, size)
    return network, (without_classifier(network, classes),)


def digest(source: SourceSpec) -> str:
    return f"torchvision {version('torchvision')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """The preset of the library's weights at the recipe's size; None where another resize rule was chosen.

    Segmentation presets resize to any size, a deploy graph has one: their filter is compared at that size's scale.
    """
    source = request.source
    assert isinstance(source, TorchvisionSource)
    family, card = _family_and_card(source)
    if family == "detection":
        from saccade.export.sources import torchvision_detection

        return torchvision_detection.library_transform(request)
    preset, given = card.transforms(), request.preprocess
    preset.mean, preset.std = list(request.normalisation.mean), list(request.normalisation.std)
    known = _segmentation_pixels(preset) if family == "segmentation" else _classification_pixels(preset)
    free = ("width", "height", "shortest_edge")  # a recipe's size is the library's rule at that size
    if given.shortest_edge is None and known.shortest_edge is not None:
        return None
    if given != known.model_copy(update={name: getattr(given, name) for name in free}):
        return None
    if family == "segmentation":
        return as_library_transform(lambda image: _segmentation_input(preset, image, given))
    preset.crop_size, preset.resize_size = [given.height, given.width], [given.shortest_edge]
    return as_library_transform(preset)


class StrideLogits(nn.Module):
    """Logits at the network's own stride: the library enlarges them bilinearly, and the answer head does that too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        self.classifier = network.get_submodule("classifier")

    def forward(self, images: Tensor) -> Tensor:
        features: OrderedDict[str, Tensor] = self.backbone(images)
        # LRASPP's head reads two maps by name, the others' the last one.
        logits: Tensor = self.classifier(features.get("out", features))
        return logits


def _family_and_card(source: TorchvisionSource) -> tuple[str, Any]:
    """The library's module (`models` for classifiers) and one entry of the network's weights enum."""
    name, _, tag = source.name.partition(".")
    try:
        builder = models.get_model_builder(name)
    except ValueError:
        raise unknown_name("torchvision", name, servable_names()) from None
    family = _family(builder)
    if family in _REFUSED:
        raise SourceError(f"source: torchvision/{name} {_REFUSED[family]}")
    cards = models.get_model_weights(name)
    if not tag:
        return family, cards.DEFAULT
    if tag not in cards.__members__:
        raise SourceError(
            f"source: torchvision/{name} has no weights {tag!r}; there are: {', '.join(cards.__members__)}"
        )
    return family, cards[tag]


def servable_names() -> list[str]:
    """Every name that is not refused."""
    return [
        name
        for name in models.list_models()
        if _family(models.get_model_builder(name)) not in _REFUSED and not name.startswith(_WITH_KEY_POINTS)
    ]


def _family(builder: Any) -> str:
    package: str = builder.__module__.rpartition(".")[0]
    return package.rpartition(".")[2]


def _builder_defaults(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """What inference needs and the builder does not assume."""
    width, height = size
    module = models.get_model_builder(name).__module__
    match module.rpartition("torchvision.models.")[2].partition("."):
        case ("segmentation", _, _):
            return {"weights_backbone": None}  # the default would be downloaded
        case ("googlenet" | "inception", _, _):
            # The library's checkpoints expect inputs scaled as in TensorFlow, and say so only to its own loader.
            return {"aux_logits": False, "init_weights": False, "transform_input": True}
        case ("vision_transformer", _, _):
            return {"image_size": height}
        case ("maxvit", _, _):
            return {"input_size": (height, width)}
        case _:
            return {}


def _classification_pixels(preset: ImageClassification) -> PreprocessSpec:
    (side,), (edge,) = preset.crop_size, preset.resize_size
    return PreprocessSpec(
        width=side,
        height=side,
        fit="crop",
        shortest_edge=edge,
        rounding="floor",
        resample=_resample(preset),
        antialias=bool(preset.antialias),
        pad_value=0,
    )


def _segmentation_pixels(preset: SemanticSegmentation) -> PreprocessSpec:
    """The preset lets the longer side grow; a graph of one size shows the whole picture within its square instead."""
    (edge,) = preset.resize_size
    return PreprocessSpec(
        width=edge, height=edge, fit="letterbox", resample=_resample(preset), antialias=bool(preset.antialias)
    )


def _segmentation_input(preset: SemanticSegmentation, image: Any, given: PreprocessSpec) -> Tensor:
    scale = min(given.width / image.width, given.height / image.height)
    size = [max(1, round(image.height * scale)), max(1, round(image.width * scale))]
    resized = functional.resize(image, size, interpolation=preset.interpolation, antialias=preset.antialias)
    pixels = functional.convert_image_dtype(functional.pil_to_tensor(resized), torch.float)
    normalised: Tensor = functional.normalize(pixels, mean=preset.mean, std=preset.std)
    return normalised


def _resample(preset: ImageClassification | SemanticSegmentation) -> Resample:
    name: Resample = preset.interpolation.value
    return name


def _is_auxiliary(name: str) -> bool:
    return any(f".{prefix}" in f".{name}" for prefix in _AUXILIARY)  # behind a wrapper's prefix as well
