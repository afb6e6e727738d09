"""Rewrites of whole graphs. Promises: what torch computes, before and after, at a batch the trace did not see."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.export.graph.onnx_graph import op_counts
from saccade.export.graph.rewrites.antialiased_resize import use_products_for_antialiased_resize
from saccade.export.graph.rewrites.fourier import use_products_for_fourier
from saccade.export.graph.rewrites.patches_to_image import use_transposed_convolution_for_patches
from saccade.export.qualification.parity import relative_l2

Rewrite = Callable[[onnx.ModelProto], int]
LIMIT = 1e-5
SIDE = 12


@pytest.fixture(autouse=True)
def _quiet_exporter() -> Iterator[None]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    yield
    logging.getLogger("torch.onnx").setLevel(logging.NOTSET)


class Fourier(nn.Module):
    """A global filter (GFNet): spectrum, product with weights, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(3, SIDE, SIDE // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, dim=(2, 3), norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(spectrum, s=(SIDE, SIDE), dim=(2, 3), norm="ortho")


class ComplexFourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft(x, dim=1)
        return torch.fft.ifft(spectrum * spectrum, dim=1).real


class Patches(nn.Module):
    """Overlapping patches added at their places."""

    def __init__(self, kernel: tuple[int, int], **geometry: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.geometry = kernel, geometry

    def forward(self, x: Tensor) -> Tensor:
        columns = functional.unfold(x, self.kernel, **self.geometry)  # type: ignore[arg-type]
        return functional.fold(columns, (SIDE, SIDE), self.kernel, **self.geometry)  # type: ignore[arg-type]


class Antialiased(nn.Module):
    def __init__(self, mode: str, size: tuple[int, int]) -> None:
        super().__init__()
        self.mode, self.size = mode, size

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, size=self.size, mode=self.mode, antialias=True, align_corners=False)


@pytest.mark.parametrize(
    ("network", "rewrite", "operator", "count"),
    [
        (Fourier(), use_products_for_fourier, "DFT", 4),
        (ComplexFourier(), use_products_for_fourier, "DFT", 2),
        (Patches((3, 3), padding=(1, 1), stride=(2, 2)), use_transposed_convolution_for_patches, "Col2Im", 1),
        (
            Patches((3, 2), padding=(1, 0), stride=(3, 2), dilation=(2, 1)),
            use_transposed_convolution_for_patches,
            "Col2Im",
            1,
        ),
        (Antialiased("bilinear", (7, 5)), use_products_for_antialiased_resize, "Resize", 1),
        (Antialiased("bicubic", (5, 30)), use_products_for_antialiased_resize, "Resize", 1),
    ],
    ids=["global filter", "complex", "patches", "dilated patches", "smaller", "cubic"],
)
def test_rewritten_operator_is_gone_and_the_answer_stays(
    network: nn.Module, rewrite: Rewrite, operator: str, count: int
) -> None:
    model = converted(network)
    assert op_counts(model.graph.node)[operator] == count
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images).numpy()

    assert rewrite(model) == count

    onnx.checker.check_model(model)
    assert operator not in op_counts(model.graph.node)
    assert relative_l2(run(model, images), expected) < LIMIT


@pytest.mark.parametrize(
    "rewrite",
    [use_products_for_fourier, use_transposed_convolution_for_patches, use_products_for_antialiased_resize],
)
def test_graph_without_the_pattern_is_left_alone(rewrite: Rewrite) -> None:
    model = converted(nn.Conv2d(3, 2, 3))
    before = model.SerializeToString(deterministic=True)

    assert rewrite(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def converted(network: nn.Module) -> onnx.ModelProto:
    torch.manual_seed(0)
    images = torch.randn(2, 3, SIDE, SIDE)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(network.eval(), (images,), dynamic_shapes=shapes, strict=False)
    made = torch.onnx.export(program, dynamo=True, opset_version=20, input_names=["images"], verbose=False)
    assert made is not None
    return made.model_proto


def run(model: onnx.ModelProto, images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = session.run(None, {"images": images.numpy()})[0]
    return answer
