"""Turns raw network outputs into the answer of the task: the tensors that `saccade.models.contract.specs` names.

Every head is cheap in ONNX Runtime: upsampling is two small matrix products (measured 1.8x faster than Resize).
Detection has its own file, `detection_heads.py`; tests compare all heads with the plain form in `plain_answers.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.export.convert.bilinear import bilinear_matrix
from saccade.export.convert.detection_heads import BoxesHead, CandidatesHead, InstancesHead
from saccade.export.convert.normalisation import flat_outputs
from saccade.export.convert.picture_head import PictureHead
from saccade.export.network import Network
from saccade.models.contract.specs import PreprocessSpec, TaskSpec

RAW_TENSORS = {
    "logits": 1,
    "probabilities": 1,
    "dense_logits": 1,
    "boxes": 2,
    "candidates": 3,
    "prototype_masks": 5,
    "box_masks": 4,
    "vectors": 1,
    "pixels": 1,
}  # names of a network's outputs, by form
LEAST_NUMBER = 2.0**-14  # half precision's smallest normal number: a vector of smaller ones has no direction there


def answer_head(network: Network, task: TaskSpec, classes: int, preprocess: PreprocessSpec, raw: Any) -> nn.Module:
    """Returns the head that fits a network's form; `raw` is what the network answers to one image."""
    match network.form:
        case "logits":
            return ClassifyHead(task.top_k, "sigmoid" if task.multi_label else "softmax", task.temperature)
        case "probabilities":
            return ClassifyHead(task.top_k, "none", task.temperature)
        case "dense_logits":
            height, width = flat_outputs(raw)[0].shape[2:]
            return SegmentHead((height, width), (preprocess.height, preprocess.width))
        case "boxes":
            return BoxesHead(task.max_detections, network.suppression)
        case "candidates":
            return CandidatesHead(task.max_detections, classes, network.suppression)
        case "prototype_masks" | "box_masks":
            return InstancesHead(RAW_TENSORS[network.form], task.max_detections, classes, network.suppression)
        case "vectors":
            return EmbedHead()
        case "pixels":
            found_height, found_width = flat_outputs(raw)[0].shape[-2:]
            return PictureHead(task, preprocess, (found_height, found_width))


class ClassifyHead(nn.Module):
    """Turns scores (n, classes) into the best `top_k` classes as probabilities; `none`: they are some already.

    A temperature other than 1 divides the logits, as Guo et al. (2017) do: it changes scores, and no order of them.
    """

    def __init__(self, top_k: int, activation: Literal["softmax", "sigmoid", "none"], temperature: float = 1.0) -> None:
        super().__init__()
        self.top_k = top_k
        self.activation = activation
        self.temperature = temperature

    def forward(self, raw: Any) -> tuple[Tensor, Tensor]:
        found = flat_outputs(raw)[0]
        if self.temperature != 1.0:
            logits = found.clamp_min(LEAST_NUMBER).log() if self.activation == "none" else found
            found = functional.softmax(logits / self.temperature, dim=1)
        elif self.activation != "none":
            found = torch.sigmoid(found) if self.activation == "sigmoid" else functional.softmax(found, dim=1)
        scores, class_ids = torch.topk(found, self.top_k, dim=1)
        return scores, class_ids.to(torch.int32)


class EmbedHead(nn.Module):
    """Turns vectors (n, dim) into vectors of length 1; one without a direction stays zeros, which the server refuses.

    Each is divided by its largest number first. Then the sum of squares lies between 1 and dim: it neither overflows
    nor vanishes in half precision, whatever the network's scale is.
    """

    def forward(self, raw: Any) -> tuple[Tensor]:
        vectors = flat_outputs(raw)[0].flatten(1)
        scaled = vectors / vectors.abs().amax(dim=1, keepdim=True).clamp_min(LEAST_NUMBER)
        length = scaled.square().sum(dim=1, keepdim=True).sqrt()
        return (scaled / length.clamp_min(0.5),)


class SegmentHead(nn.Module):
    """Turns logits (n, classes, h, w) into a class mask of the model's input size: bilinear upsampling, then argmax."""

    rows: Tensor
    columns: Tensor

    def __init__(self, logits_size: tuple[int, int], mask_size: tuple[int, int]) -> None:
        super().__init__()
        self.is_full_size = logits_size == mask_size
        self.register_buffer("rows", bilinear_matrix(logits_size[0], mask_size[0]))  # (mask height, logits height)
        self.register_buffer("columns", bilinear_matrix(logits_size[1], mask_size[1]).T.contiguous())

    def forward(self, raw: Any) -> tuple[Tensor]:
        logits = flat_outputs(raw)[0]
        if not self.is_full_size:
            logits = torch.matmul(self.rows, torch.matmul(logits, self.columns))
        return (logits.argmax(dim=1).to(torch.uint8),)
