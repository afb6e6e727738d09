"""Tells which of two tables of rows holds boxes and which scores, by names and values together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import AGREEING, LARGEST_SCORE, sum_to_one
from saccade.export.sources.onnx_signs import FileSigns, Found, Origin, OutputSign
from saccade.export.sources.onnx_words import OutputWords

Kind = Literal["boxes", "scores", "ids", ""]
Pair = tuple[OutputSign, OutputSign]
_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("box", "boxes", "bbox", "bboxes", "loc", "locs", "location", "locations"), "boxes"),
    **dict.fromkeys(("coord", "coords", "coordinates", "rect", "rects", "xyxy", "xywh", "cxcywh"), "boxes"),
    **dict.fromkeys(("det", "dets", "reg", "regression", "corners"), "boxes"),
    **dict.fromkeys(("score", "scores", "conf", "confs", "confidence", "confidences"), "scores"),
    **dict.fromkeys(("logit", "logits", "prob", "probs", "probability", "probabilities"), "scores"),
    **dict.fromkeys(("cls", "class", "classes", "category", "categories", "label", "labels", "id", "ids"), "ids"),
}
_ENDINGS: tuple[tuple[str, Kind], ...] = (
    ("box", "boxes"),
    ("boxes", "boxes"),
    ("score", "scores"),
    ("scores", "scores"),
)
_MOSTLY = 0.5  # share of rows; what fewer of them are, the table is not
_SPREAD = 0.3  # of the largest number; the middle four fifths of places lie at least so far apart


def words_of(name: str) -> list[str]:
    """The words of an output's name, in small letters: detectionBoxes:0 is detection, boxes."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[^a-zA-Z]+", " ", name).lower().split()


def kind_of_name(name: str) -> Kind:
    """What a name says; the last word that says something decides, as in box_scores."""
    for word in reversed(words_of(name)):
        if word in _WORDS:
            return _WORDS[word]
        for ending, kind in _ENDINGS:
            if word.endswith(ending):
                return kind
    return ""


def boxes_and_scores(signs: FileSigns, pair: Pair, given: OutputWords, findings: list[Found]) -> Pair:
    """Two tables (rows, 4) and (rows, classes) as boxes and scores; of four classes, both have the same shape.

    The recipe's `names` say the order, boxes first (layout detr: scores first), unless values contradict them. What
    was decided is added to `findings`. Raises SourceError where names and values contradict each other or tell nothing.
    """
    turned = (pair[1], pair[0])
    if pair[0].shape[1] != 4 or pair[1].shape[1] != 4:
        found = pair if pair[0].shape[1] == 4 else turned
        if given.names is None and (_by_names(found) == 1 or _is_choice(found[0])):
            raise SourceError(
                f"{signs.file}: {found[0]} has the four columns that boxes have, and {found[1]} has not, but "
                f"{'their names say' if _by_names(found) == 1 else 'the rows of the first sum to 1, which says'} that "
                f"the first holds scores; write `outputs: {{layout: ..., names: [boxes, scores]}}` with the names of "
                "outputs that hold four numbers per box and a score per class, or export the network with such outputs"
            )
        return found
    named, (seen, is_certain) = _by_names(pair), _by_values(pair)
    order = "scores first" if given.layout == "detr" else "boxes first"
    if given.names is not None:
        said = 1 if given.layout == "detr" else 0
        is_denied = seen not in (None, said) and (is_certain or (named != said and given.boxes is None))
        if is_denied:
            raise SourceError(
                f"{signs.file}: outputs.names gives {pair[said]} as boxes, and its numbers are more like scores than "
                f"those of {pair[1 - said]}; write `outputs: {_words(pair, 1 - said, given)}`, {order}"
                + ("" if is_certain else ", or keep the order and say with `boxes: xyxy` or `boxes: cxcywh` what it is")
            )
        return turned if said else pair
    if named is None and seen is None:
        raise SourceError(
            f"{signs.file}: {pair[0]} and {pair[1]} have the same shape, and neither names nor values tell which holds "
            f"boxes; write outputs.names, {order}: `names: [{_listed(pair)}]` or `names: [{_listed(turned)}]`, and "
            f"`layout: {given.layout or 'boxes'}`"
        )
    if named is not None and seen not in (None, named):
        raise SourceError(
            f"{signs.file} contradicts itself: {pair[named]} is named as boxes are, and the numbers of "
            f"{pair[1 - named]} are more like boxes; write outputs.names, {order}, with `boxes: xyxy` or "
            f"`boxes: cxcywh`: `names: [{_listed(pair)}]` or `names: [{_listed(turned)}]`, and "
            f"`layout: {given.layout or 'boxes'}`"
        )
    first = named if named is not None else seen
    chosen = turned if first else pair
    origin: Origin = "said" if named is not None else "found"
    why = {
        (True, True): "by their names, and their numbers agree",
        (True, False): "by their names; their numbers do not tell boxes from scores",
        (False, True): "by their numbers: corners or sizes, and scores",
    }[named is not None, seen is not None]
    names = [each.tensor.name for each in (reversed(chosen) if given.layout == "detr" else chosen)]
    findings.append(("outputs.names", names, origin, why))
    return chosen


def _words(pair: Pair, boxes: int, given: OutputWords) -> str:
    chosen = (pair[boxes], pair[1 - boxes])
    ordered = chosen[::-1] if given.layout == "detr" else chosen
    return f"{{layout: {given.layout or 'boxes'}, names: [{_listed(ordered)}]}}"


def _listed(outputs: Sequence[OutputSign]) -> str:
    return ", ".join(each.tensor.name for each in outputs)


def _by_names(pair: Pair) -> int | None:
    """Which of the two is named as boxes are, or is left where the other is named as scores are."""
    kinds = ["scores" if kind == "ids" else kind for kind in (kind_of_name(each.tensor.name) for each in pair)]
    match kinds:
        case ["boxes", "scores" | ""] | ["", "scores"]:
            return 0
        case ["scores" | "", "boxes"] | ["scores", ""]:
            return 1
    return None


def _by_values(pair: Pair) -> tuple[int | None, bool]:
    """Which of the two holds numbers of boxes, and whether the other way round is impossible."""
    first, second = (each.values for each in pair)
    if first is None or second is None or not first.size or not second.size:
        return None, False
    possible = [may_be_boxes(boxes) and may_be_scores(scores) for boxes, scores in ((first, second), (second, first))]
    if possible[0] != possible[1]:
        return (0 if possible[0] else 1), True
    for is_like in (_are_corners, _are_centres):
        like = [is_like(first), is_like(second)]
        if like[0] != like[1]:
            return (0 if like[0] else 1), False
        if like[0]:
            break
    return None, False


def may_be_boxes(values: NDArray[Any]) -> bool:
    """Whether numbers (pictures, rows, 4) can be corners or places with sizes, and are no choice among four."""
    if sum_to_one(values, 2):
        return False
    return max(_ordered(values), _sized(values)) >= _MOSTLY


def may_be_scores(values: NDArray[Any]) -> bool:
    """Whether numbers are in 0..1, or raw with some below 0, and none as large as pixels' places are."""
    least, most = float(values.min()), float(values.max())
    return (least < 0.0 or most <= 1.0) and max(-least, most) <= LARGEST_SCORE


def _ordered(values: NDArray[Any]) -> float:
    return float(np.mean((values[..., 2] >= values[..., 0]) & (values[..., 3] >= values[..., 1])))


def _sized(values: NDArray[Any]) -> float:
    return float(np.mean((values[..., 2] >= 0) & (values[..., 3] >= 0)))


def _are_corners(values: NDArray[Any]) -> bool:
    return _ordered(values) >= AGREEING and _are_spread(values)


def _are_centres(values: NDArray[Any]) -> bool:
    return _sized(values) >= AGREEING and _are_spread(values)


def _are_spread(values: NDArray[Any]) -> bool:
    """Whether the first two columns take places all over the picture; scores are mostly near 0, or all alike."""
    least, most = np.quantile(values[..., :2], (0.1, 0.9), axis=(0, 1))
    return bool(((most - least) >= _SPREAD * float(np.abs(values).max())).all())


def _is_choice(output: OutputSign) -> bool:
    return output.values is not None and output.values.ndim == 3 and sum_to_one(output.values, 2)
