"""Removes channels from a traced network, or silences them at full width, so that both can be compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from saccade.export.compression.sparsity.channel_elements import Elements, Ids, operator_name

_RESHAPES = ("view", "reshape", "_unsafe_view", "expand")


def narrowed(module: fx.GraphModule, elements: Elements, removed: NDArray[np.bool_]) -> fx.GraphModule:
    """Returns a copy without the removed elements; `removed` is a mask (elements,) that covers whole bundles."""
    narrow = copy.deepcopy(module)
    for name, axis, gone in _touched(narrow, elements, removed):
        tensor = narrow.get_parameter(name) if name in dict(narrow.named_parameters()) else narrow.get_buffer(name)
        kept = tensor.detach().index_select(axis, torch.from_numpy(np.flatnonzero(~gone)))
        owner, _, attribute = name.rpartition(".")
        is_parameter = isinstance(tensor, nn.Parameter)
        setattr(narrow.get_submodule(owner), attribute, nn.Parameter(kept, False) if is_parameter else kept)
    widths = _Widths(elements, removed)
    for node, original in zip(narrow.graph.nodes, module.graph.nodes, strict=True):
        if node.op == "call_function":
            _resize(node, original, widths)
    narrow.recompile()
    return narrow


def silenced(module: fx.GraphModule, elements: Elements, removed: NDArray[np.bool_]) -> fx.GraphModule:
    """Returns a copy of full width in which no layer reads the removed elements: their weight columns are zero."""
    silent = copy.deepcopy(module)
    parameters, columns = dict(silent.named_parameters()), reading_axes(silent)
    for name, axis, gone in _touched(silent, elements, removed):
        if (name, axis) in columns:
            parameters[name].detach().index_fill_(axis, torch.from_numpy(np.flatnonzero(gone)), 0.0)
    return silent


def reading_axes(module: fx.GraphModule) -> set[tuple[str, int]]:
    """Returns every weight with the axis along which a layer reads its input."""
    parameters = dict(module.named_parameters())
    return {column for node in module.graph.nodes for column in _columns(node, parameters)}


def widths_of(module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every weight that an operator reads, by layer."""
    state: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    used = [str(node.target) for node in module.graph.nodes if node.op == "get_attr" and node.users]
    return {
        name.rpartition(".")[0]: tuple(state[name].shape)
        for name in used
        if name.endswith(".weight") and name in state and state[name].ndim > 1
    }


def _touched(
    module: fx.GraphModule, elements: Elements, removed: NDArray[np.bool_]
) -> list[tuple[str, int, NDArray[np.bool_]]]:
    """Yields the parameters and buffers that shrink: name, axis, and the indices that are removed."""
    state: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found = []
    for name, axis, start in elements.owners:
        if name in state and start < len(removed):
            gone = removed[start : start + state[name].shape[axis]]
            if gone.any():
                found.append((name, axis, gone))
    return found


def _columns(node: fx.Node, parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Yields the weight axes along which a layer reads its input."""
    name = operator_name(node) if node.op == "call_function" else ""
    if name in ("conv2d", "linear"):
        weight = node.args[1]
        assert isinstance(weight, fx.Node)
        yield str(weight.target), 1
    elif name in ("matmul", "bmm"):
        for place, factor in enumerate(node.args[:2]):
            if isinstance(factor, fx.Node) and str(factor.target) in parameters:
                yield str(factor.target), parameters[str(factor.target)].ndim - (2 if place else 1)


class _Widths:
    """Tells how long each axis is once the removed elements are gone."""

    def __init__(self, elements: Elements, removed: NDArray[np.bool_]) -> None:
        self._elements = elements
        self._removed = removed

    def axes(self, node: fx.Node) -> list[Ids | None]:
        return self._elements.of(node)

    def kept(self, ids: Ids | None, size: Any) -> Any:
        """Returns the length that is left of an axis; `size` when the axis has no element ids."""
        if ids is None or ids.max() >= len(self._removed):
            return size
        return int((~self._removed[ids]).sum())


def _resize(node: fx.Node, original: fx.Node, widths: _Widths) -> None:
    """Writes the narrow network's sizes into the node's arguments."""
    name = operator_name(node)
    if name == "conv2d" and len(node.args) > 6 and node.args[6] != 1:
        node.update_arg(6, _groups(original, widths))
    elif name in _RESHAPES:
        sizes = node.args[1]
        assert isinstance(sizes, (list, tuple))
        node.update_arg(1, _sizes(sizes, widths.axes(original), widths))
    elif name == "unflatten":
        axis, sizes = node.args[1], node.args[2]
        assert isinstance(axis, int)
        assert isinstance(sizes, (list, tuple))
        axes = widths.axes(original)
        first = axis % (len(axes) - len(sizes) + 1)
        node.update_arg(2, _sizes(sizes, axes[first : first + len(sizes)], widths))
    elif name in ("chunk", "split", "split_with_sizes"):
        _resize_parts(node, original, widths)
    elif name == "slice":
        _resize_slice(node, original, widths)


def _groups(original: fx.Node, widths: _Widths) -> int:
    """Returns the group count: a depthwise convolution has one group per channel, all others keep their count."""
    source, groups = original.args[0], original.args[6]
    assert isinstance(source, fx.Node)
    assert isinstance(groups, int)
    channels = widths.axes(source)[1]
    return int(widths.kept(channels, groups)) if channels is not None and len(channels) == groups else groups


def _sizes(sizes: Any, axes: list[Ids | None], widths: _Widths) -> list[Any]:
    return [
        widths.kept(ids, size) if isinstance(size, int) and size > 1 else size
        for size, ids in zip(sizes, axes, strict=True)
    ]


def _resize_parts(node: fx.Node, original: fx.Node, widths: _Widths) -> None:
    """Writes the sizes of a split's parts; a chunk becomes a split with sizes, because parts may become unequal."""
    source = original.args[0]
    assert isinstance(source, fx.Node)
    axes = widths.axes(source)
    axis = int(str(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))) % len(axes)
    whole = axes[axis]
    if whole is None or widths.kept(whole, len(whole)) == len(whole):
        return
    sizes, start = [], 0
    for part in original.meta["val"]:
        length = int(part.shape[axis])
        sizes.append(widths.kept(whole[start : start + length], length))
        start += length
    node.target = torch.ops.aten.split_with_sizes.default
    node.args = (node.args[0], sizes, axis)
    node.kwargs = {}


def _resize_slice(node: fx.Node, original: fx.Node, widths: _Widths) -> None:
    source = original.args[0]
    assert isinstance(source, fx.Node)
    axes = widths.axes(source)
    axis = int(str(node.args[1] if len(node.args) > 1 else 0)) % len(axes)
    whole = axes[axis]
    if whole is None or widths.kept(whole, len(whole)) == len(whole):
        return
    first, last, _ = slice(*node.args[2:4]).indices(len(whole))
    start = widths.kept(whole[:first], 0) if first else 0
    node.args = (node.args[0], axis, start, start + (widths.kept(whole[first:last], 0) if last > first else 0))
    node.kwargs = {}
