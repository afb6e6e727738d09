"""Wraps a classifier so that it returns, besides its logits, the features that its last layer reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from saccade.export.errors import SourceError


class WithFeatures(nn.Module):
    """Logits (n, classes), then the input of the classifier layer (n, features)."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.layer_name = classifier_layer(network, classes, "extra_outputs: leave `features` out")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append(inputs[0])

        handle = self.network.get_submodule(self.layer_name).register_forward_pre_hook(note)
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        return logits, seen[0].flatten(1)


def classifier_layer(network: nn.Module, classes: int, remedy: str) -> str:
    """The last linear layer with one output per class. Raises SourceError with the remedy when there is none."""
    found: list[str] = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    if not found:
        raise SourceError(
            f"features are what the last linear layer reads, and {type(network).__name__} has none with {classes} "
            f"outputs; {remedy}"
        )
    return found[-1]
