"""Tells a wrong conversion from a network whose own answer hangs on rounding, by running the network in float64.

Where attention or normalisation enlarges the last digits of float32 at every layer, two correct runs of one network
differ. A picture with such an answer proves nothing about a file, and is left out of the proof. Where rounding decides
only what the network selects inside (`own_selection.py`), as many rows prove nothing as it can turn.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from saccade.export.convert.own_selection import Watched, selections, turned


class OwnRounding:
    """A traced program in float64, and what its float32 form selects; made when first asked.

    What cannot run in float64, such as a part that is an ONNX file, raises then.
    """

    def __init__(self, program: Any, first: int) -> None:
        """`first`: number of the first output that counts."""
        self._program, self._first = program, first

    def answers(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The outputs from `first` on, in float64."""
        with torch.inference_mode():
            return [tensor.numpy() for tensor in self._exact(torch.from_numpy(images))[self._first :]]

    def turned(self, images: NDArray[np.uint8]) -> int:
        """How many of the choices on which these outputs hang rounding can turn, for one image (1, h, w, 3)."""
        names = selections(self._plain.graph, self._first)
        if not names:
            return 0
        rounded, exact = Watched(self._plain, names), Watched(self._exact, names)
        with torch.inference_mode():
            for each in (rounded, exact):
                each.run(torch.from_numpy(images))
        return sum(turned(target, given, exact.given[name][1]) for name, (target, given) in rounded.given.items())

    @cached_property
    def _plain(self) -> Any:
        return self._program.module()

    @cached_property
    def _exact(self) -> Any:
        return _doubled(self._program)


def _doubled(program: Any) -> Any:
    module = copy.deepcopy(program.module()).double()  # a copy, because the weights are the program's
    for name, value in vars(module).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(module, name, value.double())
    for node in module.graph.nodes:
        node.args = map_aggregate(node.args, _double_type)
        node.kwargs = {**map_aggregate(node.kwargs, _double_type), **_own_type(node)}
    module.recompile()
    return module


def _own_type(node: fx.Node) -> dict[str, torch.dtype]:
    """What makes a tensor of its own, such as `ones`, takes torch's default type unless it is told."""
    made, schema = node.meta.get("val"), getattr(node.target, "_schema", None)
    takes = schema is not None and any(
        argument.kwarg_only and argument.name == "dtype" for argument in schema.arguments
    )
    is_told = node.kwargs.get("dtype") is not None
    is_float = isinstance(made, Tensor) and made.dtype is torch.float32
    return {"dtype": torch.float64} if takes and is_float and not is_told else {}


def _double_type(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
