"""Settles the layout of a detector's outputs; shapes, names, metadata and values must agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import AGREEING, are_unordered, have_no_area, is_end2end
from saccade.export.sources.onnx_fits import (
    ANCHORS_PER_CELL,
    ASK,
    axes_origin,
    centres_origin,
    count_from_cells,
    ensure_ids_are_labels,
    ensure_no_background,
    ensure_one_kind_of_scores,
    ensure_same_rows,
    ensure_yolox_grid,
    grid_counts,
    origin_of_rows,
)
from saccade.export.sources.onnx_pairs import boxes_and_scores
from saccade.export.sources.onnx_parts import parts_of
from saccade.export.sources.onnx_queries import query_scores
from saccade.export.sources.onnx_signs import FileSigns, Found, Origin, OutputSign
from saccade.export.sources.onnx_ultralytics import ultralytics_layout
from saccade.export.sources.onnx_words import Layout, OutputWords, SuppressionWords

MAX_CLASSES = 4096  # suppression keeps a score per class and candidate
_MASK_COEFFICIENTS = 32
_YOLOV5_IOU = 0.45  # the overlap at which YOLOv5's detect.py suppresses
_YOLOX_SUPPRESSION = SuppressionWords(iou=0.45, per_class=False)  # of its demo for ONNX files
_FAR = 10.0  # no box in shares of the picture reaches this far, on any picture
_RELATIVE = 2.0  # a box that reaches this far, and not further, is in shares of the picture


@dataclass(slots=True)
class Detector:
    """Settled words and the class count; None: only the recipe's labels can tell."""

    words: OutputWords
    classes: int | None = None
    findings: list[Found] = field(default_factory=list)


def detector_of(
    signs: FileSigns,
    outputs: tuple[OutputSign, ...],
    given: OutputWords,
    labels: int | None,
    hint: int | None,
    coefficients: int = 0,  # of masks, behind the classes of each row
) -> Detector:
    """Raises SourceError naming the word to write, where layout, values and labels do not agree."""
    facts = signs.ultralytics
    if not coefficients and (given.layout == "yolov8-seg" or (facts is not None and facts.task == "segment")):
        coefficients = _MASK_COEFFICIENTS
    reading = _Reading(signs, outputs, given, labels, hint, coefficients)
    layout = reading.layout()
    match layout:
        case "detr":
            return reading.queries()
        case "boxes":
            return reading.boxes()
        case _:
            return reading.rows(layout)


@dataclass(slots=True)
class _Reading:
    signs: FileSigns
    outputs: tuple[OutputSign, ...]
    given: OutputWords
    labels: int | None  # class count of the recipe or the file
    hint: int | None  # classes that the data shows; some of the file's may be missing there
    coefficients: int  # mask coefficients of each row
    findings: list[Found] = field(default_factory=list)

    def layout(self) -> Layout:
        if self.given.layout is not None:
            self.findings.append(("outputs.layout", self.given.layout, "said", "by the recipe"))
            return self.given.layout
        found, origin, why = self._layout()
        self.findings.append(("outputs.layout", found, origin, why))
        return found

    def _layout(self) -> tuple[Layout, Origin, str]:
        shapes = [output.shape for output in self.outputs]
        names = {output.tensor.name for output in self.outputs}
        if {"logits", "pred_boxes"} <= names:
            return "detr", "said", "by the names logits and pred_boxes"
        if len(shapes) > 1:
            return "boxes", "said", f"by the shapes of {self._listed()}"
        (output,) = self.outputs
        if len(output.shape) != 2 or None in output.shape:
            raise SourceError(f"{self.signs.file} is no detector that is known by its output {output}; {ASK}")
        rows, columns = int(output.shape[0] or 0), int(output.shape[1] or 0)
        if self.signs.ultralytics is not None:
            return ultralytics_layout(self.signs, self.signs.ultralytics, output, self.coefficients)
        origin, why = origin_of_rows(self.signs, output, self.coefficients)
        if origin == "found":
            return "end2end", origin, why
        if rows < columns:
            return "yolov8-seg" if self.coefficients else "yolov8", origin, why
        if count_from_cells(self.signs, output):
            return "yolox", "found", "boxes count from their cells, on a grid of strides 8, 16 and 32"
        return "yolov5", origin, why

    def rows(self, layout: Layout) -> Detector:
        """Settles one tensor that holds boxes and scores."""
        output = self.outputs[0]
        if len(output.shape) != 2:
            raise SourceError(f"{self.signs.file}: layout {layout} reads (rows, numbers) per picture, found {output}")
        is_turned = layout in ("yolov8", "yolov8-seg")
        width = output.shape[0] if is_turned else output.shape[1]
        if width is None:
            raise SourceError(
                f"{self.signs.file} leaves the shape of {output} open; write width and height in `preprocess`"
            )
        if layout == "end2end":
            return self._end2end(output)
        if layout == "yolox":
            ensure_yolox_grid(self.signs, output)
        objectness, classes = self._objectness(layout, output, width)
        if self.given.layout is None and ("outputs.objectness", "assumed") in [each[:3:2] for each in self.findings]:
            why = f"from the shape of {output}: yolov8's rows, turned, have it too, with objectness: false"
            self.findings[0] = ("outputs.layout", layout, "assumed", why)
        values = self._table(output, is_turned)
        boxes = None if values is None else values[..., :4]
        first = 5 if objectness else 4
        scores = None if values is None else values[..., 4 : first + classes]
        if values is not None and self.signs.ultralytics is None and self.given.scores is None:
            ensure_one_kind_of_scores(self.signs, output, values[..., 4 : first + classes])
        kind = "cxcywh" if layout == "yolox" else self._corners(boxes, "cxcywh")
        words = {
            "layout": layout,
            "objectness": objectness,
            "boxes": kind,
            "units": "pixels" if layout == "yolox" else self._units(boxes),
            "scores": self._scores(scores),
            "suppression": self._suppression(layout),
            "names": (output.tensor.name,),
        }
        return self._detector(words, classes)

    def _end2end(self, output: OutputSign) -> Detector:
        if output.shape[1] != 6 + self.coefficients:
            raise SourceError(f"{self.signs.file}: layout end2end reads rows of 6 numbers, found {output}")
        if output.values is not None and not is_end2end(output.values, is_declared=self.signs.ultralytics is not None):
            raise SourceError(
                f"{self.signs.file}: {output} has rows of 6 numbers, which are not x1 y1 x2 y2, a score in 0..1 and a "
                f"whole class number; {ASK}"
            )
        facts = self.signs.ultralytics
        classes = self.labels if facts is None or facts.names is None else len(facts.names)
        if classes is not None and output.values is not None and output.values[..., 5].max(initial=0) >= classes:
            raise SourceError(
                f"{self.signs.file} answers class {int(output.values[..., 5].max())}, and there are {classes} labels"
            )
        if classes is None and output.values is not None:
            classes = self._shown_classes(output.values[..., 5])
        # Rows of no box have the score 0, and their numbers show nothing.
        boxes = None if output.values is None else output.values[output.values[..., 4] > 0][None, :, :4]
        words = {
            "layout": "end2end",
            "objectness": False,
            "boxes": self._corners(boxes, "xyxy"),
            "units": self._units(boxes),
            "scores": "probabilities",
            "suppression": self.given.suppression or "none",
            "names": (output.tensor.name,),
        }
        return self._detector(words, classes)

    def queries(self) -> Detector:
        """Settles DETR and similar networks, with logits and boxes per query."""
        by_name = {output.tensor.name: output for output in self.outputs}
        if self.given.names is None and {"logits", "pred_boxes"} <= by_name.keys():
            logits, boxes = by_name["logits"], by_name["pred_boxes"]
        elif len(self.outputs) == 2:
            boxes, logits = boxes_and_scores(self.signs, (self.outputs[0], self.outputs[1]), self.given, self.findings)
        else:
            raise SourceError(
                f"{self.signs.file}: layout detr reads logits and boxes; write outputs.names of {self._listed()}"
            )
        if len(logits.shape) != 2 or len(boxes.shape) != 2 or boxes.shape[1] != 4 or logits.shape[1] is None:
            raise SourceError(
                f"{self.signs.file}: layout detr reads logits (queries, classes) and boxes (queries, 4), found "
                f"{self._listed()}"
            )
        ensure_same_rows(self.signs, (logits, boxes))
        kind, classes = query_scores(self.signs.file, logits, self.given.scores, self.labels, self.hint, self.findings)
        words = {
            "layout": "detr",
            "objectness": False,
            "boxes": self._corners(boxes.values, "cxcywh"),
            "units": self._units(boxes.values),
            "scores": kind,
            "suppression": self.given.suppression or "none",
            "names": (logits.tensor.name, boxes.tensor.name),
        }
        return self._detector(words, classes)

    def boxes(self) -> Detector:
        """Settles boxes with separate scores."""
        parts = parts_of(self.signs, self.outputs, self.given, self.findings)
        boxes, scores, ids = parts.boxes, parts.scores, parts.ids
        if ids is not None:
            ensure_ids_are_labels(self.signs, ids, self.labels)
        columns = boxes.shape[1]
        if columns == 4 and self.given.scores is None:
            ensure_no_background(self.signs, scores, self.labels or self.hint)
        classes: int | None = self._shown_classes(ids.values) if ids is not None else self.labels
        if columns == 4 and ids is None:
            classes = scores.shape[1]
            if self.labels not in (None, classes):
                raise SourceError(f"{self.signs.file}: {scores} has {classes} classes; there are {self.labels} labels")
        is_finished = ids is not None
        values = boxes.values
        kind = None if values is None else scores.values if columns == 4 else values[..., 4]
        words = {
            "layout": "boxes",
            "objectness": False,
            "boxes": self._corners(None if values is None else values[..., :4], "xyxy"),
            "units": self._units(None if values is None else values[..., :4]),
            "scores": self._scores(kind),
            "suppression": self.given.suppression or ("none" if is_finished else self._suppression("boxes")),
            "names": parts.names,
        }
        return self._detector(words, classes)

    def _shown_classes(self, ids: NDArray[Any] | None) -> int | None:
        """Classes of rows with class ids: as many as the data shows, where the ids that were seen are among them."""
        if self.labels is not None or self.hint is None or ids is None or not 0 <= ids.max(initial=0) < self.hint:
            return self.labels
        why = "as many as the data shows: the file does not say how many classes its numbers count"
        self.findings.append(("classes", self.hint, "assumed", why))
        return self.hint

    def _objectness(self, layout: Layout, output: OutputSign, width: int) -> tuple[bool, int]:
        """Whether the fifth number is objectness, and how many classes that leaves."""
        usual = layout in ("yolov5", "yolox")
        classes = {flag: width - (5 if flag else 4) - self.coefficients for flag in (True, False)}
        if self.given.objectness is not None:
            chosen = self.given.objectness
        elif self.labels is not None and layout == "yolov5":
            fitting = [flag for flag in (usual, not usual) if classes[flag] == self.labels]
            if not fitting:
                raise SourceError(
                    f"{self.signs.file}: {output} has room for {classes[True]} classes with objectness or "
                    f"{classes[False]} without; there are {self.labels} labels. Write the file's `labels`, or {ASK}"
                )
            chosen = fitting[0]
            self.findings.append(("outputs.objectness", chosen, "found", f"{width} numbers for {self.labels} labels"))
        else:
            chosen = usual and classes[True] > 0
            if layout == "yolov5":
                chosen, origin, why = self._objectness_seen(output, classes, chosen)
                self.findings.append(("outputs.objectness", chosen, origin, why))
        if self.labels not in (None, classes[chosen]):
            raise SourceError(
                f"{self.signs.file}: {output} as layout {layout} has {classes[chosen]} classes; there are "
                f"{self.labels} labels. Write the file's `labels`, or {ASK}"
            )
        return chosen, classes[chosen]

    def _objectness_seen(self, output: OutputSign, classes: dict[bool, int], chosen: bool) -> tuple[bool, Origin, str]:
        anchors = output.shape[0]
        if anchors in [ANCHORS_PER_CELL * count for count in grid_counts(self.signs.size)]:
            return True, "found", f"{anchors} anchors are three per cell, as in YOLOv3 to v7"
        fitting = [flag for flag, count in classes.items() if count == self.hint]
        if fitting:
            return fitting[0], "found", f"{output.shape[1]} numbers for the {self.hint} classes of the data"
        return chosen, "assumed", "the usual form of this layout; with `labels` it would be known"

    def _corners(self, boxes: NDArray[Any] | None, usual: Literal["xyxy", "cxcywh"]) -> str:
        if self.given.boxes is not None:
            # Ultralytics' own rule needs no values: an untrained network may give any, above all to drawn pictures.
            is_known = self.signs.ultralytics is not None and usual == "xyxy"
            if self.given.boxes == "xyxy" and boxes is not None and not is_known and are_unordered(boxes):
                raise SourceError(
                    f"{self.signs.file}: outputs.boxes: xyxy, but of most boxes x2 is left of x1, or y2 above y1; "
                    "write `boxes: cxcywh` if they are centres with sizes"
                )
            return self.given.boxes
        if boxes is None or have_no_area(boxes):
            return self._assumed("outputs.boxes", usual)
        if np.mean((boxes[..., 2] >= boxes[..., 0]) & (boxes[..., 3] >= boxes[..., 1])) >= AGREEING:
            found = "xyxy"
            origin: Origin = "said"
            why = "by the file: Ultralytics' own rule"
            if self.signs.ultralytics is None or usual != "xyxy":
                origin, why = axes_origin(self.signs, boxes, is_relative=self._reach(boxes) <= _RELATIVE)
        elif np.mean((boxes[..., 2] >= 0) & (boxes[..., 3] >= 0)) >= AGREEING:
            origin = "found"
            found, why = "cxcywh", "by order and sign of the four numbers"
            if self.signs.ultralytics is None and "detr" not in [value for _, value, *_ in self.findings]:
                origin, why = centres_origin(self.signs, boxes, is_relative=self._reach(boxes) <= _RELATIVE)
        else:
            raise SourceError(
                f"{self.signs.file}: its boxes are neither corners (x2 is left of x1) nor centres with sizes (some are "
                f"negative); {ASK}"
            )
        self.findings.append(("outputs.boxes", found, origin, why))
        return found

    def _units(self, boxes: NDArray[Any] | None) -> str:
        is_seen = boxes is not None and not have_no_area(boxes)
        most = self._reach(boxes) if boxes is not None else 0.0
        found = "relative" if most <= _RELATIVE else "pixels"
        if self.given.units is not None:
            is_wrong = most > _FAR if self.given.units == "relative" else found == "relative"
            if is_seen and is_wrong:
                raise SourceError(
                    f"{self.signs.file}: outputs.units: {self.given.units}, but its boxes reach to {most:.4g}; write "
                    f"`units: {found}`"
                )
            return self.given.units
        if not is_seen:
            return self._assumed("outputs.units", "pixels")
        self.findings.append(("outputs.units", found, "found", f"boxes reach to {most:.4g}"))
        return found

    @staticmethod
    def _reach(boxes: NDArray[Any]) -> float:
        return float(np.abs(boxes).max(initial=0.0))

    def _scores(self, scores: NDArray[Any] | None) -> str:
        is_unit = scores is None or bool(scores.min(initial=0.0) >= 0.0 and scores.max(initial=0.0) <= 1.0)
        if self.given.scores == "logits":
            raise SourceError(
                f"{self.signs.file}: outputs.scores: logits means one softmax, which this layout does not have; write "
                "sigmoid or probabilities"
            )
        if self.given.scores == "probabilities" and not is_unit:
            raise SourceError(f"{self.signs.file}: outputs.scores: probabilities, but they leave 0..1")
        if self.given.scores is not None:
            return self.given.scores
        if scores is None:
            return self._assumed("outputs.scores", "probabilities")
        if not is_unit and scores.min() >= 0:
            raise SourceError(
                f"{self.signs.file}: what would be scores reaches {scores.max():.4g} and is never negative, so it is "
                f"neither probabilities nor raw scores; {ASK}"
            )
        found = "probabilities" if is_unit else "sigmoid"
        why = f"values from {scores.min():.3g} to {scores.max():.3g}" if scores.size else "values none"
        is_open = not is_unit and scores.ndim == 3 and scores.shape[2] > 1
        why += ", of which each is taken for itself; they do not show whether a softmax is meant" if is_open else ""
        self.findings.append(("outputs.scores", found, "assumed" if is_open else "found", why))
        return found

    def _suppression(self, layout: Layout) -> SuppressionWords | Literal["none"]:
        if self.given.suppression is not None:
            return self.given.suppression
        facts = self.signs.ultralytics
        is_said = facts is not None
        words = SuppressionWords(iou=_YOLOV5_IOU) if facts is not None and facts.is_yolov5 else SuppressionWords()
        words = _YOLOX_SUPPRESSION if facts is None and layout == "yolox" else words
        origin: Origin = "said" if is_said else "assumed"
        why = "by the file: what Ultralytics predicts with" if is_said else "the file says nothing of it"
        self.findings.append(("outputs.suppression", words.model_dump(), origin, why))
        return words

    def _assumed(self, word: str, value: str) -> str:
        self.findings.append(
            (word, value, "assumed", "nothing was seen of it: the file did not run, or gave empty boxes")
        )
        return value

    def _detector(self, words: dict[str, Any], classes: int | None) -> Detector:
        return Detector(OutputWords.model_validate({**self.given.model_dump(), **words}), classes, self.findings)

    def _table(self, output: OutputSign, is_turned: bool) -> NDArray[Any] | None:
        values = output.values
        return values if values is None or not is_turned else values.transpose(0, 2, 1)

    def _listed(self) -> str:
        return "; ".join(str(output) for output in self.outputs)
