"""Replaces parts of transformers that no tracer follows, with the same numbers in a stable order."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def make_traceable(model: nn.Module) -> None:
    """Side effect: two names mean something else in the library files that `model` is written in, from now on.

    - `len(tensor)` is a plain number to Python, which fixes the batch; there it gives `tensor.shape[0]`.
    - `torch_compilable_check` compares shapes by an operator that has no ONNX form; shapes are fixed here, so that
      tracing itself is the check.
    """
    for name in {type(module).__module__ for module in model.modules()}:
        if name.startswith("transformers.models."):
            vars(sys.modules[name])["len"] = _symbolic_len
            if "torch_compilable_check" in vars(sys.modules[name]):
                vars(sys.modules[name])["torch_compilable_check"] = _no_check


class QueriesInOrder(TorchFunctionMode):
    """While active, the best `count` rows of a selection come in the order of their positions, not of their scores.

    Queries are a set, so the answer is the same; but two that score alike would swap rows at the smallest rounding.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        result = func(*args, **options)
        if func is not torch.topk or options.get("dim") != 1 or self.count not in (*args[1:], options.get("k")):
            return result
        chosen, _ = torch.sort(result[1], dim=1)
        return torch.gather(args[0], 1, chosen), chosen


def _symbolic_len(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) else builtins.len(value)


def _no_check(*_: Any, **__: Any) -> None:
    return None
