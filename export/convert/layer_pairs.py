"""Finds pairs of layers that can be merged by running the network once and watching who reads which tensor.

Calls of torch's functions are watched, so any code between two modules counts as a reader.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

LINEAR_MAPS = (nn.Conv1d, nn.Conv2d, nn.Linear)
# these read a tensor's shape, never its values
_SHAPE_ONLY = frozenset({"size", "dim", "numel", "__get__", "is_floating_point", "stride", "is_contiguous", "__len__"})


@dataclass(frozen=True, slots=True)
class NormPair:
    """A linear map whose output only a batch normalisation reads; each is called once."""

    linear: nn.Module
    norm: nn.Module


@dataclass(frozen=True, slots=True)
class SumPair:
    """Two linear layers that read the same tensor and whose outputs are only added to each other."""

    first: nn.Linear
    second: nn.Linear


@dataclass(frozen=True, slots=True)
class LayerPairs:
    norms: tuple[NormPair, ...]
    sums: tuple[SumPair, ...]


def find_pairs(network: nn.Module, example: tuple[Any, ...]) -> LayerPairs:
    """Runs the network on the arguments `example` and returns the pairs that can be merged, in order of calls."""
    flow = _LayerTrace()
    handles = [
        hook
        for module in network.modules()
        if isinstance(module, LINEAR_MAPS) or is_batch_norm(module)
        for hook in (module.register_forward_pre_hook(flow.enter), module.register_forward_hook(flow.leave))
    ]
    try:
        with torch.no_grad(), flow:
            flow.note_outputs(network(*example))
    finally:
        for handle in handles:
            handle.remove()
    return LayerPairs(tuple(flow.norm_pairs()), tuple(flow.sum_pairs()))


def is_batch_norm(module: nn.Module) -> bool:
    """Recognises batch normalisation with stored statistics, also the frozen classes of detection libraries."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.track_running_stats
    return "FrozenBatchNorm" in type(module).__name__


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One call of a function between modules."""

    name: str


class _LayerTrace(TorchFunctionMode):
    """Records which layer made a tensor, and which calls read it."""

    def __init__(self) -> None:
        super().__init__()
        self._maker: dict[int, nn.Module] = {}  # linear layer by the id of its output
        self._readers: dict[int, list[nn.Module | _Call]] = defaultdict(list)  # readers by the id of such an output
        self._calls: dict[nn.Module, int] = defaultdict(int)
        self._inputs: dict[nn.Module, Tensor] = {}
        self._kept: list[Tensor] = []  # keeps tensors alive, because ids are unique only among live objects
        self._inside = 0

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._calls[module] += 1
        if args and isinstance(args[0], Tensor):
            self._note_readers(args[:1], module)
            self._inputs[module] = args[0]
        self._inside += 1

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inside -= 1
        if isinstance(module, LINEAR_MAPS) and isinstance(output, Tensor):
            self._maker[id(output)] = module
            self._kept.append(output)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        name = getattr(func, "__name__", "")
        if self._inside or name in _SHAPE_ONLY:
            return result
        read = args[:1] if name in ("reshape_as", "view_as", "expand_as") else tree_flatten((args, given))[0]
        if name == "flatten" and isinstance(self._maker.get(id(args[0])), nn.Linear):
            # Rows of features, normalised as one long batch: the flattened tensor represents the linear layer's output.
            self._maker[id(result)] = self._maker[id(args[0])]
            self._kept.append(result)
            return result
        self._note_readers(read, _Call(name))
        return result

    def note_outputs(self, outputs: Any) -> None:
        """Records that the caller reads what the network returns."""
        self._note_readers(tree_flatten(outputs)[0], _Call("return"))

    def norm_pairs(self) -> list[NormPair]:
        readers: dict[nn.Module, list[nn.Module | _Call]] = defaultdict(list)
        for tensor, maker in self._maker.items():
            readers[maker].extend(self._readers[tensor])
        return [
            NormPair(maker, reader[0])
            for maker, reader in readers.items()
            if self._calls[maker] == 1
            and len(reader) == 1
            and isinstance(reader[0], nn.Module)
            and is_batch_norm(reader[0])
            and self._calls[reader[0]] == 1
        ]

    def sum_pairs(self) -> list[SumPair]:
        by_addition: dict[_Call, list[nn.Linear]] = defaultdict(list)
        for tensor, maker in self._maker.items():
            readers = self._readers[tensor]
            if isinstance(maker, nn.Linear) and self._calls[maker] == 1 and len(readers) == 1:
                call = readers[0]
                if isinstance(call, _Call) and call.name in ("add", "__add__"):
                    by_addition[call].append(maker)
        pairs = [(makers[0], makers[1]) for makers in by_addition.values() if len(makers) == 2]
        return [SumPair(*pair) for pair in pairs if self._inputs[pair[0]] is self._inputs[pair[1]]]

    def _note_readers(self, tensors: Iterable[Any], reader: nn.Module | _Call) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor) and id(tensor) in self._maker:
                self._readers[id(tensor)].append(reader)
