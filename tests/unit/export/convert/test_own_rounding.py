"""A traced program in float64. Promises: every number is, and the program itself stays as it was."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from saccade.export.convert.own_rounding import OwnRounding


class Differences(nn.Module):
    """A difference of nearly equal numbers: float32 keeps two digits of it, float64 ten."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Buffer(torch.tensor(1e5))
        self.scale = nn.Parameter(torch.tensor(1e-3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.to(torch.float32) * self.scale
        more = torch.ones(images.shape[0]) / 3 + torch.arange(0.0, 1.0)  # of torch's default type
        return images, (pixels + self.offset - self.offset).mean((1, 2, 3)) + more


def test_program_runs_in_float64_and_stays_float32_itself() -> None:
    images = torch.full((2, 3, 4, 3), 7, dtype=torch.uint8)
    program = torch.export.export(Differences(), (images,))

    (found,) = OwnRounding(program, 1).answers(images.numpy())

    assert found.dtype == np.float64
    np.testing.assert_allclose(found, 0.007 + 1 / 3, rtol=1e-9)
    assert program.module()(images)[1].dtype == torch.float32
    assert abs(program.module()(images)[1][0].item() - 0.007 - 1 / 3) > 1e-4
