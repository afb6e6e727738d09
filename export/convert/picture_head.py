"""Turns a network's picture into the answer: channels last, 0 to 1, or depths of the input's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.convert.bilinear import bilinear_matrix
from saccade.export.convert.normalisation import flat_outputs
from saccade.models.contract.specs import PreprocessSpec, TaskSpec


class PictureHead(nn.Module):
    """Takes (n, 3, h, w), (n, 1, h, w) or (n, h, w)."""

    rows: Tensor
    columns: Tensor

    def __init__(self, task: TaskSpec, preprocess: PreprocessSpec, found: tuple[int, int]) -> None:
        super().__init__()
        self.kind = task.picture
        self.low, self.span = task.values[0], task.values[1] - task.values[0]
        self.is_bgr = preprocess.channel_order == "bgr"
        self.resizes = self.kind == "depth" and found != (preprocess.height, preprocess.width)
        self.register_buffer("rows", bilinear_matrix(found[0], preprocess.height))
        self.register_buffer("columns", bilinear_matrix(found[1], preprocess.width).T.contiguous())

    def forward(self, raw: Any) -> tuple[Tensor]:
        found = flat_outputs(raw)[0]
        if self.kind != "rgb":
            found = found if found.ndim == 3 else found[:, 0]
        if self.kind == "depth":
            # A tensor that is two outputs of a graph needs two names.
            return (torch.matmul(self.rows, torch.matmul(found, self.columns)) if self.resizes else found.clone(),)
        shown = ((found - self.low) / self.span).clamp(0.0, 1.0)
        if self.kind == "grey":
            return (shown,)
        shown = shown[:, [2, 1, 0]] if self.is_bgr else shown
        return (shown.permute(0, 2, 3, 1).contiguous(),)
