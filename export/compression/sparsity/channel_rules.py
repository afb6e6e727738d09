"""States for each traced operator which channels must move together; an operator without a rule pins all its tensors.

A rule either joins elements that must move together (a convolution's output channel and its weight's first axis) or
pins elements that must stay where they are (pixels, answers, unknown territory).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from saccade.export.compression.sparsity.channel_elements import Elements, Ids, operator_name

Rule = Callable[[Elements, fx.Node], None]


def apply_rules(module: fx.GraphModule) -> Elements:
    """Returns the joins and pins of a whole graph; its inputs and outputs are pinned."""
    elements = Elements(module)
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            _RULES.get(operator_name(node), _pin_everything)(elements, node)
        elif node.op == "call_function" and operator_name(node) not in _SEVERAL_OUTPUTS:
            for source in node.all_input_nodes:
                if operator_name(node) not in _NO_EFFECT:
                    elements.pin_all(source)
        elif node.op in ("placeholder", "output"):
            for touched in (node, *node.all_input_nodes):
                elements.pin_all(touched)
    return elements


def _pin_everything(elements: Elements, node: fx.Node) -> None:
    for touched in (node, *node.all_input_nodes):
        elements.pin_all(touched)


def _elementwise(elements: Elements, node: fx.Node) -> None:
    """Joins axes aligned from the right; an axis of size one is broadcast and joins nothing."""
    out = elements.of(node)
    for source in node.all_input_nodes:
        axes = elements.of(source)
        for back in range(1, min(len(axes), len(out)) + 1):
            elements.join(axes[-back], out[-back])


def _convolution(elements: Elements, node: fx.Node) -> None:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(weight, fx.Node)
    bias = node.args[2] if len(node.args) > 2 else None
    groups = node.args[6] if len(node.args) > 6 else 1
    inputs, kernel, out = elements.of(source), elements.of(weight), elements.of(node)
    for axes in (inputs[2:], kernel[2:], out[2:]):
        for ids in axes:
            elements.pin(ids)
    elements.join(out[1], kernel[0])
    if isinstance(bias, fx.Node):
        elements.join(out[1], elements.of(bias)[0])
    channels, filters = elements.shape(source)[1], elements.shape(weight)[0]
    if groups == 1:
        elements.join(inputs[1], kernel[1])
    elif groups == channels == filters:
        elements.join(inputs[1], out[1])
    else:
        for ids in (inputs[1], kernel[1], out[1]):
            elements.pin(ids)


def _linear(elements: Elements, node: fx.Node) -> None:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(weight, fx.Node)
    inputs, kernel, out = elements.of(source), elements.of(weight), elements.of(node)
    elements.join(inputs[-1], kernel[1])
    elements.join(out[-1], kernel[0])
    if len(node.args) > 2 and isinstance(node.args[2], fx.Node):
        elements.join(out[-1], elements.of(node.args[2])[0])
    for left, right in zip(inputs[:-1], out[:-1], strict=True):
        elements.join(left, right)


def _matmul(elements: Elements, node: fx.Node) -> None:
    first, second = node.args[0], node.args[1]
    assert isinstance(first, fx.Node)
    assert isinstance(second, fx.Node)
    left, right, out = elements.of(first), elements.of(second), elements.of(node)
    if len(left) < 2 or len(right) < 2:
        return _pin_everything(elements, node)
    elements.join(left[-1], right[-2])
    elements.join(left[-2], out[-2])
    elements.join(right[-1], out[-1])
    for axes in (left, right):
        for back in range(3, len(axes) + 1):
            elements.join(axes[-back], out[-back])
    return None


def _attention(elements: Elements, node: fx.Node) -> None:
    """Joins the axes of softmax(q k') v; a mask or any other argument pins everything."""
    tensors = node.all_input_nodes
    if len(tensors) != 3:
        return _pin_everything(elements, node)
    query, key, value = (elements.of(tensor) for tensor in tensors)
    out = elements.of(node)
    elements.join(query[-1], key[-1])
    elements.join(value[-1], out[-1])
    elements.join(key[-2], value[-2])
    elements.join(query[-2], out[-2])
    for axes in (query, key, value):
        for ids, other in zip(axes[:-2], out[:-2], strict=True):
            elements.join(ids, other)
    return None


def _spatial(elements: Elements, node: fx.Node) -> None:
    """Handles pooling and resizing: batch and channels are joined, spatial positions are pinned."""
    source = node.all_input_nodes[0]
    inputs, out = elements.of(source), elements.of(node)
    for position, (left, right) in enumerate(zip(inputs, out, strict=True)):
        if position < 2:
            elements.join(left, right)
        else:
            elements.pin(left)
            elements.pin(right)


def _batch_norm(elements: Elements, node: fx.Node) -> None:
    source, *parameters = node.all_input_nodes
    inputs, out = elements.of(source), elements.of(node)
    for left, right in zip(inputs, out, strict=True):
        elements.join(left, right)
    for parameter in parameters:
        elements.join(elements.of(parameter)[0], out[1])


def _layer_norm(elements: Elements, node: fx.Node) -> None:
    """Joins the axes when only the last is normalised: its statistics do not depend on the order."""
    sizes = node.args[1]
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 1:
        return _pin_everything(elements, node)
    source, *parameters = node.all_input_nodes
    inputs, out = elements.of(source), elements.of(node)
    for left, right in zip(inputs, out, strict=True):
        elements.join(left, right)
    for parameter in parameters:
        elements.join(elements.of(parameter)[0], out[-1])
    return None


def _reduction(elements: Elements, node: fx.Node) -> None:
    """Joins the axes that are kept; sums, means and maxima do not depend on the order of what they reduce."""
    source = node.all_input_nodes[0]
    inputs, out = elements.of(source), elements.of(node)
    dims = node.args[1] if len(node.args) > 1 else None
    if not isinstance(dims, (list, tuple, int)):
        return _pin_everything(elements, node)
    reduced = {dim % len(inputs) for dim in ([dims] if isinstance(dims, int) else dims) if isinstance(dim, int)}
    kept = [axis for axis in range(len(inputs)) if axis not in reduced]
    targets = kept if len(out) == len(inputs) else range(len(kept))
    for axis, target in zip(kept, targets, strict=True):
        elements.join(inputs[axis], out[target])
    return None


def _permute(elements: Elements, node: fx.Node) -> None:
    source = node.all_input_nodes[0]
    inputs, out = elements.of(source), elements.of(node)
    order = list(range(len(inputs)))
    if operator_name(node) == "permute":
        order = [int(str(axis)) % len(inputs) for axis in _listed(node.args[1])]
    elif operator_name(node) == "transpose":
        first, second = (int(str(axis)) % len(inputs) for axis in node.args[1:3])
        order[first], order[second] = order[second], order[first]
    else:  # aten.t
        order.reverse()
    for target, axis in enumerate(order):
        elements.join(inputs[axis], out[target])


def _reshape(elements: Elements, node: fx.Node) -> None:
    """Joins unchanged axes; merged or split axes move as blocks of their outermost axis, and inner axes are pinned."""
    source = node.all_input_nodes[0]
    sizes_in, sizes_out = elements.shape(source), elements.shape(node)
    inputs, out = elements.of(source), elements.of(node)
    left = right = 0
    while left < len(sizes_in) and right < len(sizes_out):
        if _same(sizes_in[left], sizes_out[right]):
            elements.join(inputs[left], out[right])
            left, right = left + 1, right + 1
            continue
        ends = _equal_products(sizes_in, sizes_out, left, right)
        if ends is None:
            break
        _join_blocks(elements, inputs[left : ends[0]], out[right : ends[1]])
        left, right = ends
    for ids in (*inputs[left:], *out[right:]):
        elements.pin(ids)


def _same(first: Any, second: Any) -> bool:
    return isinstance(first, int) == isinstance(second, int) and str(first) == str(second)


def _equal_products(first: tuple[Any, ...], second: tuple[Any, ...], left: int, right: int) -> tuple[int, int] | None:
    """Returns the ends of the shortest runs of axes from `left` and `right` that hold equally many elements."""
    if not isinstance(first[left], int) or not isinstance(second[right], int):
        return None
    product_left, product_right = first[left], second[right]
    left, right = left + 1, right + 1
    while product_left != product_right:
        axes, position = (first, left) if product_left < product_right else (second, right)
        if position >= len(axes) or not isinstance(axes[position], int):
            return None
        if product_left < product_right:
            product_left, left = product_left * axes[position], left + 1
        else:
            product_right, right = product_right * axes[position], right + 1
    return left, right


def _join_blocks(elements: Elements, inputs: list[Ids | None], out: list[Ids | None]) -> None:
    """Joins (c, h, w) with (c h w), or the reverse: index c moves with its whole block."""
    many, one = (inputs, out) if len(inputs) > len(out) else (out, inputs)
    whole, outer = one[0], many[0]
    if len(one) != 1 or whole is None or outer is None or len(whole) % len(outer):
        for ids in (*inputs, *out):
            elements.pin(ids)
        return
    for ids in many[1:]:
        elements.pin(ids)
    elements.joins.append((np.repeat(outer, len(whole) // len(outer)), whole))


def _concatenate(elements: Elements, node: fx.Node) -> None:
    sources = [item for item in _listed(node.args[0]) if isinstance(item, fx.Node)]
    out = elements.of(node)
    axis = int(str(node.args[1] if len(node.args) > 1 else 0)) % len(out)
    start = 0
    for source in sources:
        inputs = elements.of(source)
        size = elements.shape(source)[axis]
        for position, (left, right) in enumerate(zip(inputs, out, strict=True)):
            if position != axis:
                elements.join(left, right)
        if not isinstance(size, int) or out[axis] is None:
            return _pin_everything(elements, node)
        part = out[axis]
        assert part is not None
        if inputs[axis] is None:
            elements.pin(part[start : start + size])
        else:
            elements.join(inputs[axis], part[start : start + size])
        start += size
    return None


def _item(elements: Elements, node: fx.Node) -> None:
    """Joins one part of a chunk or split with its source; any other item is pinned."""
    owner, index = node.args[0], node.args[1]
    assert isinstance(owner, fx.Node)
    source = owner.all_input_nodes[0]
    if operator_name(owner) not in _SEVERAL_OUTPUTS or not isinstance(index, int):
        elements.pin_all(node)
        return
    inputs, out = elements.of(source), elements.of(node)
    axis = _split_axis(owner) % len(inputs)
    if operator_name(owner) == "unbind":  # the outputs lack this axis
        _join_without(elements, inputs, out, axis)
        return
    parts = owner.meta["val"]
    start = sum(int(part.shape[axis]) for part in parts[:index])
    _join_slice(elements, inputs, out, axis, start)


def _split_axis(owner: fx.Node) -> int:
    place = 1 if operator_name(owner) == "unbind" else 2
    return int(str(owner.args[place])) if len(owner.args) > place else int(str(owner.kwargs.get("dim", 0)))


def _join_slice(elements: Elements, inputs: list[Ids | None], out: list[Ids | None], axis: int, start: int) -> None:
    for position, (left, right) in enumerate(zip(inputs, out, strict=True)):
        if position != axis:
            elements.join(left, right)
        elif left is not None and right is not None:
            elements.join(left[start : start + len(right)], right)
        else:
            elements.pin(left)


def _slice(elements: Elements, node: fx.Node) -> None:
    source = node.all_input_nodes[0]
    inputs, out = elements.of(source), elements.of(node)
    axis = int(str(node.args[1] if len(node.args) > 1 else 0)) % len(inputs)
    start = node.args[2] if len(node.args) > 2 else 0
    step = node.args[4] if len(node.args) > 4 else 1
    size = elements.shape(source)[axis]
    if step != 1 or len(node.all_input_nodes) > 1 or not isinstance(start or 0, int) or not isinstance(size, int):
        return _pin_everything(elements, node)
    first = int(str(start or 0))
    _join_slice(elements, inputs, out, axis, max(first + size, 0) if first < 0 else first)
    return None


def _select(elements: Elements, node: fx.Node) -> None:
    source = node.all_input_nodes[0]
    inputs, out = elements.of(source), elements.of(node)
    _join_without(elements, inputs, out, int(str(node.args[1])) % len(inputs))


def _join_without(elements: Elements, inputs: list[Ids | None], out: list[Ids | None], axis: int) -> None:
    """Joins the remaining axes after one index of `axis` was taken out."""
    elements.pin(inputs[axis])
    kept = [ids for position, ids in enumerate(inputs) if position != axis]
    for left, right in zip(kept, out, strict=True):
        elements.join(left, right)


def _unsqueeze(elements: Elements, node: fx.Node) -> None:
    out = elements.of(node)
    axis = int(str(node.args[1])) % len(out)
    kept = [ids for position, ids in enumerate(out) if position != axis]
    for left, right in zip(elements.of(node.all_input_nodes[0]), kept, strict=True):
        elements.join(left, right)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


_SEVERAL_OUTPUTS = {"chunk", "split", "split_with_sizes", "unbind"}
_NO_EFFECT = {"_assert_tensor_metadata", "sym_size", "_assert_scalar"}
_ELEMENTWISE = (
    *("relu", "relu6", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu"),
    *(
        "elu",
        "clamp",
        "clamp_min",
        "clamp_max",
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "abs",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
    ),
    *("pow", "clone", "contiguous", "alias", "detach", "dropout", "to", "_to_copy", "expand", "where"),
    *("softmax", "log_softmax"),
)
_SPATIAL = (
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_SPATIAL, _spatial),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduction),
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    **dict.fromkeys(("reshape", "view", "flatten", "_unsafe_view", "unflatten"), _reshape),
    "conv2d": _convolution,
    "linear": _linear,
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "cat": _concatenate,
    "getitem": _item,
    "slice": _slice,
    "select": _select,
    "unsqueeze": _unsqueeze,
}
