"""Makes embedders of classifiers, and finds out how many numbers a network's vectors have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.sources.class_features import classifier_layer


def without_classifier(network: nn.Module, classes: int) -> str:
    """Replaces the last linear layer, so that the network returns what it read; returns the layer's name.

    Side effect: changes `network`. Raises SourceError when it has no such layer.
    """
    name = classifier_layer(network, classes, "task: embed needs another network, or a module")
    network.set_submodule(name, nn.Identity())
    return name


def tensors_beside(tensors: Mapping[str, Tensor], layers: Collection[str]) -> dict[str, Tensor]:
    """The tensors that belong to none of these layers."""
    prefixes = tuple(f"{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


def vector_size(build: Callable[[], nn.Module], width: int, height: int) -> int:
    """How many numbers the network that `build` makes gives a picture. Raises SourceError when these are no vectors.

    Shapes are first computed without memory; a network that reads values on its way is built and run once.
    """
    try:
        with torch.device("meta"):
            found = _shape(build(), torch.zeros(1, 3, height, width))
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        network = build()
        try:
            found = _shape(network, torch.zeros(1, 3, height, width))
        except (RuntimeError, ValueError, TypeError) as error:
            raise SourceError(
                f"the network does not take pictures of {width}x{height}: {str(error).partition(chr(10))[0]}; write a "
                "`preprocess` of the size that it was made for"
            ) from error
    if len(found) < 2 or any(side != 1 for side in found[2:]):
        raise SourceError(f"task: embed needs one vector per picture, and this network returns {found}; pool it")
    return found[1]


def _shape(network: nn.Module, images: Tensor) -> tuple[int, ...]:
    with torch.no_grad():
        vectors = network.eval()(images)
    if not isinstance(vectors, Tensor):
        raise SourceError(
            f"task: embed needs one vector per picture, and this network returns {type(vectors).__name__}"
        )
    return tuple(vectors.shape)
