"""Folds layers into their neighbours in place before tracing; every fold is proven equal, or the export fails.

Proofs run in float64, submodule by submodule, because float32 rounding of a deep network would hide their errors.
float32 weights survive the conversion to float64 and back, so no second network is needed in memory.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.convert.folding_hooks import call_hook, captured_arguments, hook_of
from saccade.export.convert.layer_pairs import NormPair, SumPair, find_pairs
from saccade.export.convert.normalisation import flat_outputs
from saccade.export.errors import GraphError
from saccade.export.graph.rewrites.torch_modules import replacement_of
from saccade.export.recipe import FoldingSpec

PROOF_LIMIT = 1e-5  # relative L2 in float64; what is left is the rounding of the folded weights to float32
_PROOF_ROWS = 2
_PROOF_SIDE = 16  # pixels; larger than any kernel


@dataclass(frozen=True)
class FoldProof:
    """One kind of fold: how often it was applied, and the worst difference in any submodule."""

    name: str
    layers: int
    relative_error: float  # L2 on random input


@dataclass(frozen=True, slots=True)
class FoldedResult:
    module: nn.Module  # the given network, changed in place
    proofs: tuple[FoldProof, ...]


def fold_network(network: nn.Module, spec: FoldingSpec, example: Tensor | tuple[Any, ...]) -> FoldedResult:
    """Replaces modules that do not convert, calls reparametrisation hooks, and merges layers, all in place.

    `example` holds the network's arguments. Raises GraphError when a fold does not give the same answer.
    """
    proofs = _Proofs()
    arguments = example if isinstance(example, tuple) else (example,)
    if getattr(network, "accepts_float64", True):
        with torch.no_grad():
            _fold_by_hooks(network, spec, arguments, proofs)
            _replace_classes(network, arguments, proofs)
            _merge_layers(network, spec, arguments, proofs)
    return FoldedResult(network, proofs.summary())


class _Proofs:
    """Collects the worst difference by kind of fold."""

    def __init__(self) -> None:
        self._errors_by_name: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, layer: str, error: float) -> None:
        if not error <= PROOF_LIMIT:  # NaN fails as well
            raise GraphError(
                f"folding ({name}) of {layer or 'the network'} changes its answer by {error:.1e} (relative L2), "
                f"allowed is {PROOF_LIMIT}; turn it off in the recipe's `folding`, or fix the module's own method"
            )
        self._errors_by_name[name].append(error)

    def summary(self) -> tuple[FoldProof, ...]:
        return tuple(FoldProof(name, len(errors), max(errors)) for name, errors in self._errors_by_name.items())


def _fold_by_hooks(network: nn.Module, spec: FoldingSpec, example: tuple[Any, ...], proofs: _Proofs) -> None:
    hooked = {name: hook for name, module in network.named_modules() if (hook := hook_of(module, spec))}
    # A hook of the whole network is for people who fold by hand; hooks of its parts suffice.
    if len(hooked) > 1 and spec.method is None:
        hooked.pop("", None)
    if not hooked:
        return
    arguments = captured_arguments(network, example, set(hooked))
    for name, module in list(network.named_modules()):
        # An earlier hook may have removed this module or changed its class.
        if name not in arguments or not _is_part(network, name, module):
            continue
        given = arguments[name]
        expected = _in_float64(module, given)
        folded = call_hook(module, hooked[name])
        if folded is not module:
            _replace(network, module, folded)
        proofs.add(hooked[name], name, _relative_error(_in_float64(folded, given), expected))


def _replace_classes(network: nn.Module, example: tuple[Any, ...], proofs: _Proofs) -> None:
    replacements = {
        name: replacement
        for name, module in network.named_modules()
        if (replacement := replacement_of(module)) is not None
    }
    if not replacements:
        return
    arguments = captured_arguments(network, example, set(replacements))
    for name, replacement in replacements.items():
        module = network.get_submodule(name)
        if name in arguments:
            expected = _in_float64(module, arguments[name])
            found = _in_float64(copy.deepcopy(replacement), arguments[name])
            proofs.add(type(module).__name__, name, _relative_error(found, expected))
        _replace(network, module, replacement)


def _merge_layers(network: nn.Module, spec: FoldingSpec, example: tuple[Any, ...], proofs: _Proofs) -> None:
    if not spec.batch_norm:
        return
    pairs = find_pairs(network, example)
    for pair in pairs.norms:
        error = _fold_norm(network, pair)
        proofs.add("batch_norm", _name_of(network, pair.linear), error)
    for total in pairs.sums:
        proofs.add("summed_linear", _name_of(network, total.first), _merge_sum(network, total))


def _fold_norm(network: nn.Module, pair: NormPair) -> float:
    """Moves scale and shift of a normalisation into weights and bias; its activation, if it has one, stays."""
    linear: Any = pair.linear
    given = (_random_input(linear),)
    before = nn.Sequential(copy.deepcopy(linear), pair.norm)
    expected = _in_float64(before, given)
    scale, shift = _scale_and_shift(pair.norm)
    weight = linear.weight.data.double()
    old_bias = 0.0 if linear.bias is None else linear.bias.data.double()
    linear.weight = nn.Parameter((weight * scale.view(-1, *[1] * (weight.ndim - 1))).float(), requires_grad=False)
    linear.bias = nn.Parameter((old_bias * scale + shift).float(), requires_grad=False)
    rest = getattr(pair.norm, "act", None)
    rest = rest if isinstance(rest, nn.Module) else nn.Identity()
    _replace(network, pair.norm, rest)
    return _relative_error(_in_float64(nn.Sequential(copy.deepcopy(linear), rest), given), expected)


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Returns both in float64, from two probes, because frozen variants do not expose their epsilon."""
    channels = norm.running_mean.shape[0]
    is_image = isinstance(norm, nn.BatchNorm2d) or not isinstance(norm, nn.modules.batchnorm._BatchNorm)
    shape = (1, channels, 1, 1) if is_image else (1, channels)
    has_activation = isinstance(getattr(norm, "act", None), nn.Module)
    if not has_activation and not hasattr(norm, "eps"):
        norm.double()
        shift = norm(torch.zeros(shape, dtype=torch.float64)).flatten()
        scale = norm(torch.ones(shape, dtype=torch.float64)).flatten() - shift
        norm.float()
        return scale, shift
    inverse = (norm.running_var.double() + norm.eps).rsqrt()
    scale = inverse if norm.weight is None else norm.weight.data.double() * inverse
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.data.double()


class Nothing(nn.Module):
    """A module that adds nothing to a sum; it replaces a layer that was merged into its neighbour."""

    def forward(self, _: Tensor) -> float:
        return 0.0


def _merge_sum(network: nn.Module, pair: SumPair) -> float:
    """Merges two linear layers that read the same features and are added, such as averaged heads, into one."""
    given = (_random_input(pair.first),)
    first, second = (_in_float64(copy.deepcopy(layer), given)[0] for layer in (pair.first, pair.second))
    weight = pair.first.weight.data.double() + pair.second.weight.data.double()
    biases = [layer.bias.data.double() for layer in (pair.first, pair.second) if layer.bias is not None]
    pair.first.weight = nn.Parameter(weight.float(), requires_grad=False)
    if biases:
        pair.first.bias = nn.Parameter(torch.stack(biases).sum(0).float(), requires_grad=False)
    _replace(network, pair.second, Nothing())
    return _relative_error(_in_float64(copy.deepcopy(pair.first), given), [first + second])


def _random_input(linear: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if isinstance(linear, nn.Linear):
        return torch.randn(_PROOF_ROWS * _PROOF_SIDE, linear.in_features, generator=generator)
    spans = [d * (k - 1) + 1 for d, k in zip(linear.dilation, linear.kernel_size, strict=True)]
    sides = [max(span, _PROOF_SIDE) for span in spans]
    return torch.randn(_PROOF_ROWS, linear.in_channels, *sides, generator=generator)


def _in_float64(module: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    """Returns the module's outputs in float64; its weights are float32 again afterwards."""
    doubled = tuple(_mapped(argument, lambda tensor: tensor.double()) for argument in arguments)
    try:
        return flat_outputs(module.double()(*doubled))
    finally:
        module.float()


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_mapped(member, change) for member in value)
    return value


def _relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    gaps = [
        float((left - right).norm() / right.norm().clamp_min(1e-30))
        for left, right in zip(found, expected, strict=True)
    ]
    return max(gaps)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replaces `old` wherever the network holds it."""
    for parent, name in list(_places(network, old)):
        setattr(parent, name, new)


def _places(network: nn.Module, wanted: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for parent in network.modules():
        for name, child in parent._modules.items():
            if child is wanted:
                yield parent, name


def _is_part(network: nn.Module, name: str, module: nn.Module) -> bool:
    try:
        return network.get_submodule(name) is module
    except AttributeError:
        return False


def _name_of(network: nn.Module, wanted: nn.Module) -> str:
    return next(str(name) for name, module in network.named_modules() if module is wanted)
