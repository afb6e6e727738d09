"""Numbers every index of every tensor axis in a traced graph as an element, and collects which ones belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

Ids = NDArray[np.int64]


class Elements:
    """The elements of all axes of a graph's tensors; joined elements move together, pinned elements never move."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._axes: dict[str, list[Ids | None]] = {}
        self.owners: list[tuple[str, int, int]] = []  # (tensor, axis, first element) of every axis, in order
        self.count = 0
        self.joins: list[tuple[Ids, Ids]] = []
        self.pins: list[Ids] = []

    def shape(self, node: fx.Node) -> tuple[Any, ...]:
        """Returns sizes per axis, symbolic ones included; () for a value other than a tensor."""
        if node.op == "get_attr":
            return tuple(_attribute(self._module, str(node.target)).shape)
        value = node.meta.get("val")
        return tuple(value.shape) if isinstance(value, torch.Tensor) else ()

    def of(self, node: fx.Node) -> list[Ids | None]:
        """Returns element ids per axis; None for an axis of size one or of unknown size."""
        name = str(node.target) if node.op == "get_attr" else node.name
        if name not in self._axes:
            self._axes[name] = [self._new(name, axis, size) for axis, size in enumerate(self.shape(node))]
        return self._axes[name]

    def join(self, first: Ids | None, second: Ids | None) -> None:
        if first is not None and second is not None:
            if len(first) == len(second):
                self.joins.append((first, second))
            else:
                self.pins += [first, second]

    def pin(self, ids: Ids | None) -> None:
        if ids is not None:
            self.pins.append(ids)

    def pin_all(self, node: fx.Node) -> None:
        for ids in self.of(node):
            self.pin(ids)

    def _new(self, name: str, axis: int, size: Any) -> Ids | None:
        if not isinstance(size, int) or size < 2:
            return None
        self.owners.append((name, axis, self.count))
        self.count += size
        return np.arange(self.count - size, self.count)


def operator_name(node: fx.Node) -> str:
    """Returns `conv2d` for aten.conv2d.default."""
    return str(getattr(node.target, "__name__", node.target)).removeprefix("aten.").partition(".")[0].rstrip("_")


def _attribute(module: fx.GraphModule, path: str) -> torch.Tensor:
    owner: Any = module
    for part in path.split("."):
        owner = getattr(owner, part)
    tensor: torch.Tensor = owner
    return tensor
