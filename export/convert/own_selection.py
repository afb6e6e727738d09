"""Tells whether rounding decides what a network selects inside: its best rows, or boxes that overlap too little to go.

A detector of two stages takes the best few of thousands of places, and suppression holds overlaps against a limit.
Where two places nearly tie at such a cut, one correct run takes the one and the next run the other, and later rows
follow. float32 beside float64 shows how far scores and boxes are rounded; a choice counts as one that rounding can turn
when it would be another one if they were rounded several times as far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from saccade.export.convert.suppression import nms_keep

_TIMES = 8.0  # another runtime adds up in another order, so its rounding is not the same but about as large
_DIRECTIONS = 4  # in which boxes and scores are moved, each to and fro
_TOP_K = torch.ops.aten.topk.default
_SUPPRESSION = torch.ops.saccade.nms_keep.default

Arguments = Sequence[Any]


def selections(graph: fx.Graph, first: int) -> frozenset[str]:
    """Returns the names of selecting nodes on which an output from number `first` on hangs."""
    (outputs,) = (node.args[0] for node in graph.nodes if node.op == "output")
    behind = [node for node in outputs[first:] if isinstance(node, fx.Node)]
    known = set(behind)
    while behind:
        new = [node for node in behind.pop().all_input_nodes if node not in known]
        known.update(new)
        behind.extend(new)
    return frozenset(node.name for node in known if node.target in (_TOP_K, _SUPPRESSION))


class Watched(fx.Interpreter):
    """Runs a traced program and keeps what its selecting nodes were given."""

    def __init__(self, module: fx.GraphModule, names: frozenset[str]) -> None:
        super().__init__(module)
        self.names = names
        self.given: dict[str, tuple[Any, Arguments]] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.name in self.names:
            self.given[n.name] = (n.target, self.fetch_args_kwargs_from_env(n)[0])
        return super().run_node(n)


def turned(target: Any, rounded: Arguments, exact: Arguments) -> int:
    """Counts the choices that rounding can turn, of a selection's arguments for one image in float32 and float64."""
    return _near_the_cut(rounded, exact) if target is _TOP_K else _suppressed_otherwise(rounded, exact)


def _near_the_cut(rounded: Arguments, exact: Arguments) -> int:
    """Rows that are taken and may change places with others, by their distance and the rounding of all rows.

    Of rows that are filled with one value the network does not mind which is taken. Such a value is one of float32,
    which what is computed in float64 is not.
    """
    scores, taken, *rest = exact
    axis = rest[0] if rest else -1
    scores, near = scores.movedim(axis, -1), rounded[0].movedim(axis, -1)
    if not taken < scores.shape[-1]:
        return 0
    is_largest = rest[1] if len(rest) > 1 else True
    order = torch.sort(scores if is_largest else -scores, -1, descending=True).values
    last, next_one = order[..., taken - 1 : taken], order[..., taken : taken + 1]
    room = 2**0.5 * _TIMES * _rounding(near, scores)
    inner = ((order - next_one)[..., :taken] <= room).sum(-1)
    outer = ((last - order)[..., taken:] <= room).sum(-1)
    is_filled = ((last == next_one) & (last == last.float())).squeeze(-1)
    return int(torch.where(is_filled, 0, torch.minimum(inner, outer)).sum())


def _suppressed_otherwise(rounded: Arguments, exact: Arguments) -> int:
    """The most boxes that are kept or go otherwise when boxes and scores are moved, always in the same directions."""
    boxes, scores, *limits = exact
    kept = nms_keep(boxes, scores, *limits)
    generator = torch.Generator().manual_seed(0)
    shifts = [_TIMES * _rounding_of_each(near, far) for near, far in zip(rounded[:2], exact[:2], strict=True)]
    most = 0
    for _ in range(_DIRECTIONS):
        moves = [torch.randn(shift.shape, generator=generator, dtype=shift.dtype) * shift for shift in shifts]
        for sign in (1.0, -1.0):
            other = nms_keep(boxes + sign * moves[0], scores + sign * moves[1], *limits)
            most = max(most, int((other != kept).sum()))
    return most


def _rounding(near: Tensor, exact: Tensor) -> Tensor:
    """Root mean square (..., 1) of what float32 is off, of the rows that are off at all: fills are not."""
    errors = (near.double() - exact).nan_to_num(0.0, 0.0, 0.0)
    count = (errors != 0).sum(-1, keepdim=True).clamp(min=1)
    return ((errors**2).sum(-1, keepdim=True) / count).sqrt()


def _rounding_of_each(near: Tensor, exact: Tensor) -> Tensor:
    """What float32 is off at each number, and no less than what it is off at most of those that are off at all.

    Large boxes are rounded by more than small ones.
    """
    errors = (near.double() - exact).nan_to_num(0.0, 0.0, 0.0).abs()
    off = errors[errors != 0]
    return errors.clamp(min=float(off.median())) if len(off) else errors
