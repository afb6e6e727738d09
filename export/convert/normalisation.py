"""Folds normalisation into the first convolution, which then takes raw pixels; the result is proven equal in float64.

A network expects `(pixel / 255 - mean) / std`. Scaling always folds into the first convolution's weights; shifting
folds into its bias only when it does not pad (padding is zero *after* normalisation). Otherwise one depthwise 1x1
convolution goes in front, which ONNX Runtime runs faster than elementwise Sub and Mul on image-sized tensors.

Only the front is proven: where one convolution alone reads the pixels, everything behind it reads what it read before.
So a network of gigabytes is neither copied nor run in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from saccade.export.errors import GraphError
from saccade.models.contract.specs import Normalisation

FoldMethod = Literal["first_convolution", "depthwise_convolution"]
PROOF_LIMIT = 1e-5  # relative L2 in float64; what is left is the rounding of the folded weights to float32
_PROOF_IMAGES = 2


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """A network that takes float pixels 0..255 and answers what the original answers on normalised input."""

    network: nn.Module
    method: FoldMethod
    relative_error: float


class _Reader(TorchFunctionMode):
    """Records which functions compute something new from one tensor, and which weights convolutions use."""

    def __init__(self, watched: Tensor) -> None:
        super().__init__()
        self.watched = watched
        self.readers: list[tuple[Callable[..., Any], Sequence[Any]]] = []
        self.weights: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [*args, *(kwargs or {}).values()]
        if any(each is self.watched for each in given) and isinstance(result, Tensor) and result is not self.watched:
            self.readers.append((func, args))
        if func is torch.conv2d and len(args) > 1:
            self.weights.append(args[1])
        return result


def normalise(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    """Turns float NCHW pixels 0..255 into what the network was trained on."""
    mean = torch.tensor(normalisation.mean, dtype=pixels.dtype).view(1, 3, 1, 1)
    std = torch.tensor(normalisation.std, dtype=pixels.dtype).view(1, 3, 1, 1)
    return (pixels / 255.0 - mean) / std


def fold_normalisation(network: nn.Module, normalisation: Normalisation, height: int, width: int) -> FoldedNetwork:
    """Folds into the first convolution where that is exact, else prepends a depthwise one.

    The result contains `network`, not a copy, and may change it. Raises GraphError as `proven_front` does.
    """
    convolution = _first_convolution(network, torch.zeros(1, 3, height, width))
    if convolution is not None and _takes_normalisation(convolution, normalisation):
        weight, bias = _folded_weights(convolution, normalisation)
        error = _error_of_convolution(convolution, weight, bias, normalisation)
        if error <= PROOF_LIMIT:
            convolution.weight.data = weight
            convolution.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
            return FoldedNetwork(network, "first_convolution", error)
    front, error = proven_front(normalisation)
    return FoldedNetwork(nn.Sequential(front, network).eval(), "depthwise_convolution", error)


def proven_front(normalisation: Normalisation) -> tuple[nn.Conv2d, float]:
    """Returns normalisation as a depthwise 1x1 convolution on pixels 0..255, and its error.

    Raises GraphError when float32 cannot hold it within PROOF_LIMIT.
    """
    front = _normalising_convolution(normalisation)
    error = _error_of_front(front, normalisation)
    if not error <= PROOF_LIMIT:
        raise GraphError(
            f"normalisation cannot be folded within {PROOF_LIMIT} (error {error:.1e}); check mean {normalisation.mean} "
            f"and std {normalisation.std}"
        )
    return front, error


def _normalising_convolution(normalisation: Normalisation) -> nn.Conv2d:
    front = nn.Conv2d(3, 3, 1, groups=3)
    std = torch.tensor(normalisation.std, dtype=torch.float64)
    front.weight.data = (1.0 / (255.0 * std)).float().view(3, 1, 1, 1)
    assert front.bias is not None
    front.bias.data = (-torch.tensor(normalisation.mean, dtype=torch.float64) / std).float()
    return front.eval().requires_grad_(False)


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """Returns |found - expected| / |expected| over all elements."""
    difference = torch.linalg.vector_norm((found - expected).double())
    return float(difference / torch.linalg.vector_norm(expected.double()).clamp_min(1e-30))


def flat_outputs(outputs: Any) -> list[Tensor]:
    """Returns the tensors of a nested tuple, list or dict of outputs, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    members = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for member in members for tensor in flat_outputs(member)]


def _first_convolution(network: nn.Module, pixels: Tensor) -> nn.Conv2d | None:
    """Returns the convolution that alone reads the input tensor, and reads nothing else; None without one."""
    with torch.no_grad(), _Reader(pixels) as reader:
        network(pixels)
    if len(reader.readers) != 1:
        return None
    func, args = reader.readers[0]
    if func is not torch.conv2d or args[0] is not pixels or sum(each is args[1] for each in reader.weights) != 1:
        return None
    # A computed weight (standardised, for example) belongs to no convolution and cannot be rewritten.
    owners = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.weight is args[1]]
    return owners[0] if len(owners) == 1 else None


def _takes_normalisation(convolution: nn.Conv2d, normalisation: Normalisation) -> bool:
    has_shift = any(mean != 0.0 for mean in normalisation.mean)
    return convolution.groups == 1 and not (has_shift and convolution.padding not in ((0, 0), "valid"))


def _folded_weights(convolution: nn.Conv2d, normalisation: Normalisation) -> tuple[Tensor, Tensor | None]:
    """Returns weight and bias for pixels 0..255 in float32."""
    std = torch.tensor(normalisation.std, dtype=torch.float64).view(1, 3, 1, 1)
    mean = torch.tensor(normalisation.mean, dtype=torch.float64).view(1, 3, 1, 1)
    weight = convolution.weight.data.double()
    bias = None if convolution.bias is None else convolution.bias.data
    if mean.any():
        shift = -(weight * mean / std).sum((1, 2, 3))
        bias = (shift if bias is None else bias.double() + shift).float()
    return (weight / (255.0 * std)).float(), bias


def _error_of_convolution(
    convolution: nn.Conv2d, weight: Tensor, bias: Tensor | None, normalisation: Normalisation
) -> float:
    """The relative L2 in float64 between the rewritten convolution on pixels and the original on normalised pixels."""
    sides = [
        4 * dilation * (size - 1) + 8 for size, dilation in zip(weight.shape[2:], convolution.dilation, strict=True)
    ]
    pixels = _proof_pixels(*sides)

    def applied(images: Tensor, kernel: Tensor, offset: Tensor | None) -> Tensor:
        return functional.conv2d(
            images,
            kernel.double(),
            None if offset is None else offset.double(),
            convolution.stride,
            convolution.padding,
            convolution.dilation,
        )

    old_bias = None if convolution.bias is None else convolution.bias.data
    expected = applied(normalise(pixels, normalisation), convolution.weight.data, old_bias)
    return relative_l2(applied(pixels, weight, bias), expected)


def _error_of_front(front: nn.Conv2d, normalisation: Normalisation) -> float:
    pixels = _proof_pixels(32, 32)
    assert front.bias is not None
    found = functional.conv2d(pixels, front.weight.double(), front.bias.double(), groups=3)
    return relative_l2(found, normalise(pixels, normalisation))


def _proof_pixels(height: int, width: int) -> Tensor:
    """Returns float64 noise of whole levels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (_PROOF_IMAGES, 3, height, width), generator=generator).double()
