"""Makes normalisation free. Promises: the first convolution takes raw pixels, and equality is measured, not assumed.

A network expects `(pixel / 255 - mean) / std`. Scaling always folds into the first convolution's weights; shifting
folds into its bias only when it does not pad (padding is zero *after* normalisation). Otherwise one depthwise 1x1
convolution goes in front, which ONNX Runtime runs faster than elementwise Sub and Mul on image-sized tensors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from export.errors import GraphError
from models.specs import Normalisation

FoldMethod = Literal["first_convolution", "depthwise_convolution"]
PROOF_LIMIT = 1e-5  # relative L2 in float64; what is left is the rounding of the folded weights to float32
_PROOF_IMAGES = 2


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """A network that takes float pixels 0..255 and answers what the original answers on normalised input."""

    network: nn.Module
    method: FoldMethod
    relative_error: float


def _double(network: nn.Module) -> nn.Module:
    """A float64 copy: float32 rounding of a deep network would drown the difference that the proof is about."""
    return copy.deepcopy(network).double()


def normalise(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    """Float NCHW pixels 0..255 to what the network was trained on."""
    mean = torch.tensor(normalisation.mean, dtype=pixels.dtype).view(1, 3, 1, 1)
    std = torch.tensor(normalisation.std, dtype=pixels.dtype).view(1, 3, 1, 1)
    return (pixels / 255.0 - mean) / std


def fold_normalisation(network: nn.Module, normalisation: Normalisation, height: int, width: int) -> FoldedNetwork:
    """Folds into the first convolution where that is exact, else prepends a depthwise one.

    Raises GraphError when neither reproduces the network within PROOF_LIMIT.
    """
    pixels = torch.randint(
        0, 256, (_PROOF_IMAGES, 3, height, width), generator=torch.Generator().manual_seed(0)
    ).float()
    expected = flat_outputs(_double(network)(normalise(pixels.double(), normalisation)))
    candidates: list[tuple[FoldMethod, nn.Module | None]] = [
        ("first_convolution", _folded_into_first(network, normalisation, pixels)),
        ("depthwise_convolution", _behind_depthwise(network, normalisation)),
    ]
    errors = []
    for method, candidate in candidates:
        if candidate is None:
            continue
        found = flat_outputs(_double(candidate)(pixels.double()))
        error = max(relative_l2(*pair) for pair in zip(found, expected, strict=True))
        if error <= PROOF_LIMIT:
            return FoldedNetwork(candidate, method, error)
        errors.append(f"{method} {error:.1e}")
    raise GraphError(f"normalisation cannot be folded within {PROOF_LIMIT}: {', '.join(errors)}")


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, over all elements."""
    difference = torch.linalg.vector_norm((found - expected).double())
    return float(difference / torch.linalg.vector_norm(expected.double()).clamp_min(1e-30))


def flat_outputs(outputs: Any) -> list[Tensor]:
    """Tensors of a nested tuple, list or dict of outputs, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    members = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for member in members for tensor in flat_outputs(member)]


def _folded_into_first(network: nn.Module, normalisation: Normalisation, pixels: Tensor) -> nn.Module | None:
    """A copy with scale (and shift) inside its first convolution; None when its form does not allow that."""
    folded = copy.deepcopy(network)
    convolution = _first_convolution(folded, pixels)
    if convolution is None or convolution.groups != 1:
        return None
    has_shift = any(mean != 0.0 for mean in normalisation.mean)
    if has_shift and (convolution.padding != (0, 0)):
        return None
    std = torch.tensor(normalisation.std, dtype=torch.float64).view(1, 3, 1, 1)
    weight = convolution.weight.data.double()
    if has_shift:
        mean = torch.tensor(normalisation.mean, dtype=torch.float64).view(1, 3, 1, 1)
        shift = -(weight * mean / std).sum((1, 2, 3))
        old = torch.zeros_like(shift) if convolution.bias is None else convolution.bias.data.double()
        convolution.bias = nn.Parameter((old + shift).float(), requires_grad=False)
    convolution.weight.data = (weight / (255.0 * std)).float()
    return folded


def _first_convolution(network: nn.Module, pixels: Tensor) -> nn.Conv2d | None:
    """The one convolution that reads the input tensor itself."""
    readers: list[nn.Conv2d] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs[0] is pixels and isinstance(module, nn.Conv2d):
            readers.append(module)

    handles = [module.register_forward_pre_hook(note) for module in network.modules()]
    network(pixels)
    for handle in handles:
        handle.remove()
    return readers[0] if len(readers) == 1 else None


def _behind_depthwise(network: nn.Module, normalisation: Normalisation) -> nn.Module:
    front = nn.Conv2d(3, 3, 1, groups=3)
    std = torch.tensor(normalisation.std, dtype=torch.float64)
    front.weight.data = (1.0 / (255.0 * std)).float().view(3, 1, 1, 1)
    assert front.bias is not None
    front.bias.data = (-torch.tensor(normalisation.mean, dtype=torch.float64) / std).float()
    return nn.Sequential(front, network).eval().requires_grad_(False)
