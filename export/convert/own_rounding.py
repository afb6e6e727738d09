"""Tells a wrong conversion from a network whose own answer hangs on rounding, by running the network in float64.

Where attention or normalisation enlarges the last digits of float32 at every layer, two correct runs of one network
differ. A picture with such an answer proves nothing about a file, and is left out of the proof.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import map_aggregate

Run = Callable[[NDArray[np.uint8]], Sequence[NDArray[Any]]]


def in_float64(program: Any, first: int) -> Run:
    """Returns the traced program in float64; answers (from output `first` on) are float64.

    The copy is made at the first call. What cannot run in float64, such as a part that is an ONNX file, raises then.
    """
    modules: list[Any] = []

    def run(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        if not modules:
            modules.append(_doubled(program))
        with torch.inference_mode():
            return [tensor.numpy() for tensor in modules[0](torch.from_numpy(images))[first:]]

    return run


def _doubled(program: Any) -> Any:
    module = copy.deepcopy(program.module()).double()  # a copy, because the weights are the program's
    for name, value in vars(module).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(module, name, value.double())
    for node in module.graph.nodes:
        node.args = map_aggregate(node.args, _double_type)
        node.kwargs = map_aggregate(node.kwargs, _double_type)
    module.recompile()
    return module


def _double_type(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
