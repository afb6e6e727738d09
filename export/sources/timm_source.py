"""Loads timm's networks; size, resize rule and normalisation are those of the library's `pretrained_cfg`.

The evaluation size is `input_size` with `crop_pct`, as `timm.data.resolve_model_data_config` gives them; the larger
`test_input_size` of some networks is taken by naming it: `arguments: {img_size: 288}`.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.class_features import WithFeatures
from saccade.export.sources.crop_rule import crop_at_size
from saccade.export.sources.library_pixels import as_library_transform
from saccade.export.sources.names import generic_labels, unknown_name
from saccade.export.sources.specs import SourceSpec, TimmSource
from saccade.export.sources.vectors import tensors_beside, vector_size
from saccade.export.sources.weights import RANDOM_WEIGHTS_SEED, fitted_tensors, load_tensors, misfits_of, state_dict_of
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec

_TOP_K = 5
_SUBSETS = {  # class counts whose meaning timm knows
    1000: "imagenet-1k",
    11821: "imagenet-12k",
    21841: "imagenet-22k",
}
_CONFIG_NAME = "config.json"
_DATA_KEYS = frozenset({"input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes"})
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Networks without classifier are embedders. Raises SourceError for an unknown name, or input that is not RGB."""
    assert isinstance(source, TimmSource)
    config = _weights_config(weights)
    card = _card(source, config)
    classes = int(source.arguments.get("num_classes", card.num_classes))
    width, height = _size(source, card)

    def embedding_dim(width: int, height: int) -> int:
        return vector_size(lambda: build(source, weights, 0, (width, height)), width, height)

    has_classes = classes > 0
    return SourceFacts(
        task=TaskSpec(task=Task.CLASSIFY, top_k=min(_TOP_K, classes)) if has_classes else None,
        labels=_labels(config, card, classes) if has_classes else None,
        preprocess=_preprocess(card, width, height),
        normalisation=Normalisation(mean=_triple(card.mean), std=_triple(card.std)),
        crop_share=card.crop_pct,
        is_embedder=not has_classes,
        embedding_dim=embedding_dim,
    )


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the arguments or the weights do not fit."""
    source = request.source
    assert isinstance(source, TimmSource)
    is_embedder = request.task.task is Task.EMBED
    size = (request.preprocess.width, request.preprocess.height)
    network = build(source, request.weights, 0 if is_embedder else request.classes, size)
    if request.weights is not None:
        _load_weights(network, request.weights, _classifier_names(source, request.weights) if is_embedder else ())
    network = network.eval().requires_grad_(False)
    if is_embedder:
        return Network(network, "vectors")
    if "features" in request.extra_outputs:
        return Network(WithFeatures(network, request.classes).eval(), "logits", extra_outputs=("features",))
    return Network(network, "logits")


def build(source: TimmSource, weights: Path | None, classes: int, size: tuple[int, int]) -> nn.Module:
    """The network with random weights, for `size` (width, height); without classes it returns pooled features."""
    config = _weights_config(weights)
    card = _card(source, config)
    arguments = {"num_classes": classes} | (config.get("model_args") or {}) | source.arguments
    arguments |= {} if classes else {"num_classes": 0}
    if card.fixed_input_size and size != (card.input_size[2], card.input_size[1]):
        arguments.setdefault("img_size", (size[1], size[0]))
    elif not card.fixed_input_size:
        arguments.pop("img_size", None)  # it already chose the preprocessing, and the network takes any size
    torch.manual_seed(RANDOM_WEIGHTS_SEED)
    try:
        network: nn.Module = timm.create_model(_full_name(source, config), pretrained=False, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise SourceError(
            f"source.arguments {arguments} do not fit timm/{card.architecture}: {error}; "
            "they go to timm.create_model, and preprocess.width and height must be a size that the network takes"
        ) from error
    return network


def digest(source: SourceSpec) -> str:
    return f"timm {version('timm')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """`timm.data.create_transform` at the recipe's size; None where another resize rule was chosen."""
    source = request.source
    assert isinstance(source, TimmSource)
    card = _card(source, _weights_config(request.weights))
    width, height = request.preprocess.width, request.preprocess.height
    if request.preprocess != _preprocess(card, width, height):
        return None
    return as_library_transform(
        create_transform(
            input_size=(3, height, width),
            interpolation=card.interpolation,
            mean=request.normalisation.mean,
            std=request.normalisation.std,
            crop_pct=card.crop_pct,
            crop_mode=card.crop_mode,
        )
    )


def _weights_config(weights: Path | None) -> dict[str, Any]:
    """config.json of a directory as timm saves it; empty where there is none. Raises SourceError."""
    if weights is None or not (path := weights / _CONFIG_NAME).is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise SourceError(
            f"{path} names no `architecture`, so timm did not save it; "
            "use source: transformers for a directory of that library"
        )
    return config


def _full_name(source: TimmSource, config: dict[str, Any]) -> str:
    name = source.name or config.get("architecture")
    if name is None:
        raise SourceError("source: timm needs a name, such as timm/resnet50, or a weights directory with config.json")
    return str(name)


def _card(source: TimmSource, config: dict[str, Any]) -> Any:
    """timm's PretrainedCfg, overridden by what the weights' own config.json says. Raises SourceError."""
    name = _full_name(source, config)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown_name("timm", name, timm.list_models())
    try:
        card = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{architecture}.*")
        raise SourceError(f"source: {error} Tags of {architecture}: {', '.join(tags) or 'none'}") from error
    if card is None:  # a name that timm gave up; its successor is among the nearest
        raise unknown_name("timm", name, timm.list_models())
    stored = config.get("pretrained_cfg", {}) | {key: config[key] for key in ("num_classes",) if key in config}
    card = replace(card, **{key: value for key, value in stored.items() if key in _DATA_KEYS})
    if card.input_size[0] != 3 or source.arguments.get("in_chans", 3) != 3:
        raise SourceError(f"source: timm/{name} takes {card.input_size[0]} channels; images have 3")
    return card


def _classifier_names(source: TimmSource, weights: Path | None) -> tuple[str, ...]:
    """Names of the layers that tell classes, which an embedder's checkpoint may still hold."""
    names = _card(source, _weights_config(weights)).classifier or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _size(source: TimmSource, card: Any) -> tuple[int, int]:
    """(width, height)"""
    given = source.arguments.get("img_size")
    if given is None:
        return card.input_size[2], card.input_size[1]
    height, width = (given, given) if isinstance(given, int) else given
    return int(width), int(height)


def _labels(config: dict[str, Any], card: Any, classes: int) -> tuple[str, ...]:
    names = config.get("label_names")
    if names and len(names) == classes:
        described = config.get("label_descriptions") or {}
        return tuple(str(described.get(name, name)) for name in names)
    if classes == card.num_classes and classes in _SUBSETS:
        return tuple(ImageNetInfo(_SUBSETS[classes]).label_descriptions())
    return generic_labels(classes)


def _preprocess(card: Any, width: int, height: int) -> PreprocessSpec:
    """What `timm.data.create_transform` does in evaluation."""
    resample: Resample = card.interpolation
    before_crop = (math.floor(width / card.crop_pct), math.floor(height / card.crop_pct))
    match card.crop_mode:
        case "squash" if card.crop_pct == 1.0:
            return PreprocessSpec(width=width, height=height, fit="stretch", resample=resample)
        case "squash":
            return PreprocessSpec(
                width=width, height=height, fit="crop", resize_to=before_crop, resample=resample, pad_value=0
            )
        case "border":
            # timm's bars have a colour per channel, the mean; ours are its average grey.
            grey = round(255 * sum(card.mean) / 3)
            return PreprocessSpec(width=width, height=height, fit="letterbox", pad_value=grey, resample=resample)
        case _:
            known = PreprocessSpec(
                width=width, height=height, fit="crop", cover=before_crop, resample=resample, pad_value=0
            )
            return PreprocessSpec.model_validate(known.model_dump() | crop_at_size(known, card.crop_pct, width, height))


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _load_weights(network: nn.Module, path: Path, left_out: tuple[str, ...]) -> None:
    """Tensors as they are, or through the architecture's own filter: original names, other position grids."""
    tensors: Any = tensors_beside(fitted_tensors(network, state_dict_of(path)), left_out)
    if misfits_of(network, tensors) and (filtered := _filtered(network, tensors)) is not None:
        tensors = filtered
    load_tensors(network, tensors, path.name)


def _filtered(network: nn.Module, tensors: Any) -> dict[str, Tensor] | None:
    """timm's `checkpoint_filter_fn` of the architecture, where its answer fits."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted = convert(dict(tensors), network)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, AssertionError):
        return None  # not a checkpoint that the filter knows: the misfits of the original say more
    if not isinstance(converted, dict) or misfits_of(network, converted):
        return None
    return converted
