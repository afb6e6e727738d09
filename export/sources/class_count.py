"""Finds how many classes a checkpoint was trained for, from the shape of its classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saccade.export.errors import SourceError
from saccade.export.network import SourceFacts
from saccade.export.sources.specs import SourceSpec, TimmSource, TorchvisionSource
from saccade.export.sources.weights import shapes_of

if TYPE_CHECKING:
    from torch import nn


def class_count(source: SourceSpec, weights: Path, facts: SourceFacts) -> int | None:
    """The checkpoint's class count where it differs from the network's; None where it does not, or nobody can say.

    Compares with the network's default form, built without memory: the classifier differs in its first dimension only.
    """
    if not isinstance(source, TimmSource | TorchvisionSource) or facts.labels is None or facts.preprocess is None:
        return None
    import torch  # here because it takes seconds, and most sources end above

    classes, size = len(facts.labels), (facts.preprocess.width, facts.preprocess.height)
    found = shapes_of(weights)
    try:
        with torch.device("meta"):
            network = _built(source, weights, classes, size)
    except (RuntimeError, NotImplementedError, SourceError):
        return None  # some networks read values while they are built
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    counts = {
        found[name][0]
        for name, shape in wanted.items()
        if shape and shape[0] == classes and name in found and found[name][1:] == shape[1:] and found[name] != shape
    }
    return counts.pop() if len(counts) == 1 else None


def _built(source: TimmSource | TorchvisionSource, weights: Path, classes: int, size: tuple[int, int]) -> nn.Module:
    if isinstance(source, TimmSource):
        from saccade.export.sources import timm_source

        return timm_source.build(source, weights, classes, size)
    from saccade.export.sources import torchvision_source

    return torchvision_source.build(source, classes, size)
