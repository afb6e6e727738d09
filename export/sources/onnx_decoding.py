"""Turns a file's outputs into one of the forms of `export/network.py`, inside the graph.

Each row of a detector is taken with its best class only, as the libraries that such files come from do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.export.network import RawForm, Suppression
from saccade.export.sources.onnx_fits import yolox_grid
from saccade.export.sources.onnx_words import OutputWords, SuppressionWords

_SCORE_FLOOR = 0.001  # rows below it are no candidates for suppression


@dataclass(frozen=True, slots=True)
class Decoding:
    """What stands behind the file, and the form that comes of it."""

    module: nn.Module  # takes the list of the outputs that were chosen
    form: RawForm
    suppression: Suppression | None = None
    dense_outputs: int = 0  # of the file's own, which `module` hands on behind the form's


class ClassScores(nn.Module):
    """Scores (n, C) or (n, C, 1, 1); one probability p becomes the two classes (1 - p, p)."""

    def __init__(self, words: OutputWords) -> None:
        super().__init__()
        self.has_sigmoid = words.scores == "sigmoid"

    def forward(self, outputs: list[Tensor]) -> Tensor:
        scores = outputs[0].flatten(1)
        scores = torch.sigmoid(scores) if self.has_sigmoid else scores
        return torch.cat([1.0 - scores, scores], 1) if scores.shape[1] == 1 else scores


class FirstTensor(nn.Module):
    """The output as it is: vectors (n, dim) or (n, dim, 1, 1)."""

    def forward(self, outputs: list[Tensor]) -> Tensor:
        return outputs[0].flatten(1)


class FirstPicture(nn.Module):
    """The output as it is: (n, c, h, w) or (n, h, w)."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last

    def forward(self, outputs: list[Tensor]) -> Tensor:
        return outputs[0].permute(0, 3, 1, 2) if self.channels_last else outputs[0]


class DenseScores(nn.Module):
    """Scores per class and pixel, (n, classes, h, w); from one channel, or from class ids (n, h, w) or (n, 1, h, w)."""

    def __init__(self, words: OutputWords, classes: int, *, channels_last: bool) -> None:
        super().__init__()
        self.words = words
        self.classes = classes
        self.channels_last = channels_last

    def forward(self, outputs: list[Tensor]) -> Tensor:
        scores = outputs[0]
        scores = scores.unsqueeze(1) if scores.ndim == 3 else scores
        scores = scores.permute(0, 3, 1, 2) if self.channels_last else scores
        if scores.shape[1] == 1 and self.words.threshold is None:  # ids per pixel
            ids = torch.arange(self.classes, device=scores.device).view(1, -1, 1, 1)
            return (scores.to(torch.int64) == ids).to(torch.float32)
        if scores.shape[1] > 1:
            return scores
        foreground = torch.sigmoid(scores) if self.words.scores == "sigmoid" else scores
        assert self.words.threshold is not None
        return torch.cat([torch.full_like(foreground, self.words.threshold), foreground], 1)


class YoloRows(nn.Module):
    """One tensor of boxes and class scores to candidates, and the tensor itself.

    With prototypes behind it, candidates have their mask coefficients, and both tensors go on.
    """

    cells: Tensor
    strides: Tensor

    def __init__(self, words: OutputWords, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.words = words
        self.classes = classes
        self.size = size
        cells, strides = _grid(size) if words.layout == "yolox" else (torch.zeros(1, 2), torch.zeros(1, 1))
        self.register_buffer("cells", cells)  # (anchors, 2) x y
        self.register_buffer("strides", strides)  # (anchors, 1)

    def forward(self, outputs: list[Tensor]) -> tuple[Tensor, ...]:
        rows, *prototypes = outputs
        channels = prototypes[0].shape[1] if prototypes else 0
        if self.words.layout == "end2end":
            found = self._corners(rows[..., :4]), rows[..., 4], rows[..., 5].to(torch.int64)
            return (
                (*found, rows[..., 6 : 6 + channels], *prototypes, rows, *prototypes) if prototypes else (*found, rows)
            )
        axis = 1 if self.words.layout in ("yolov8", "yolov8-seg") else 2
        first = 5 if self.words.objectness else 4
        boxes, scores = rows.narrow(axis, 0, 4), self._probabilities(rows.narrow(axis, first, self.classes))
        best, class_ids = scores.amax(axis), scores.argmax(axis)
        if self.words.objectness:
            best = best * self._probabilities(rows.select(axis, 4))
        boxes = boxes.transpose(1, 2) if axis == 1 else boxes
        if self.words.layout == "yolox":
            centres = (boxes[..., :2] + self.cells) * self.strides
            boxes = torch.cat([centres, torch.exp(boxes[..., 2:]) * self.strides], 2)
        candidates = self._corners(boxes), best, class_ids
        if not prototypes:
            return (*candidates, rows)
        coefficients = rows.narrow(axis, first + self.classes, channels)
        coefficients = coefficients.transpose(1, 2) if axis == 1 else coefficients
        return (*candidates, coefficients, *prototypes, rows, *prototypes)

    def _probabilities(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores) if self.words.scores == "sigmoid" else scores

    def _corners(self, boxes: Tensor) -> Tensor:
        return corners(boxes, self.words, self.size)


class QueryBoxes(nn.Module):
    """Logits (n, queries, columns) and boxes (n, queries, 4) to candidates; both go on as they are."""

    def __init__(self, words: OutputWords, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.words = words
        self.classes = classes
        self.size = size

    def forward(self, outputs: list[Tensor]) -> tuple[Tensor, ...]:
        logits, boxes = outputs
        # Sigmoid heads rank (query, class) pairs, of which one query may give several; softmax heads give one each.
        # Behind the last class may stand a column for 'nothing', which only a softmax has.
        is_choice = self.words.scores == "logits" or logits.shape[2] > self.classes
        if is_choice:
            scores = functional.softmax(logits, 2) if self.words.scores == "logits" else logits
            scores = scores[..., : self.classes]
            best, class_ids = scores.max(2)
            return corners(boxes, self.words, self.size), best, class_ids, logits, boxes
        scores = torch.sigmoid(logits) if self.words.scores == "sigmoid" else logits
        return corners(boxes, self.words, self.size), scores, logits, boxes


class BoxDecoder(nn.Module):
    """Decodes boxes with their scores, class ids and number of detections, given in two to four tensors."""

    def __init__(self, words: OutputWords, size: tuple[int, int]) -> None:
        super().__init__()
        self.words = words
        self.size = size

    def forward(self, outputs: list[Tensor]) -> tuple[Tensor, ...]:
        if outputs[0].shape[2] == 5:  # boxes and score in one
            rows, class_ids = outputs
            return corners(rows[..., :4], self.words, self.size), rows[..., 4], class_ids.to(torch.int64)
        boxes, scores = corners(outputs[0], self.words, self.size), outputs[1]
        scores = torch.sigmoid(scores) if self.words.scores == "sigmoid" else scores
        if len(outputs) == 2:
            return boxes, scores
        if len(outputs) == 4:  # rows from the count on may hold anything
            rows = torch.arange(scores.shape[1], device=scores.device)
            scores = torch.where(rows < outputs[3].reshape(-1, 1), scores, torch.zeros((), dtype=scores.dtype))
        return boxes, scores, outputs[2].to(torch.int64)


def corners(boxes: Tensor, words: OutputWords, size: tuple[int, int]) -> Tensor:
    """(n, k, 4) x1 y1 x2 y2 in pixels of the network's input; size: (width, height)."""
    if words.boxes == "cxcywh":
        half = boxes[..., 2:] / 2.0
        boxes = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], 2)
    if words.units == "relative":
        boxes = boxes * torch.tensor([*size, *size], dtype=boxes.dtype)
    return boxes


def detection_decoding(words: OutputWords, columns: int, classes: int, size: tuple[int, int]) -> Decoding:
    """For settled words; columns: of the first tensor, where `boxes` has five when it holds the score too, and `detr`
    one more than there are classes when the last is 'nothing'."""
    given = words.suppression
    suppression = (
        Suppression(given.iou, _SCORE_FLOOR, per_class=given.per_class) if isinstance(given, SuppressionWords) else None
    )
    match words.layout:
        case "detr":
            form: RawForm = "candidates" if words.scores == "logits" or columns > classes else "boxes"
            return Decoding(QueryBoxes(words, classes, size), form, suppression, dense_outputs=2)
        case "boxes":
            is_dense = columns == 4 and words.names is not None and len(words.names) == 2
            return Decoding(BoxDecoder(words, size), "boxes" if is_dense else "candidates", suppression)
        case _:
            rows = YoloRows(words, classes, size)
            if words.names is not None and len(words.names) == 2:
                return Decoding(rows, "prototype_masks", suppression, dense_outputs=2)
            return Decoding(rows, "candidates", suppression, dense_outputs=1)


def _grid(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    cells, strides = yolox_grid(size)
    return torch.from_numpy(cells), torch.from_numpy(strides)
