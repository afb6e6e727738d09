"""Request parameters: every unknown name or bad value is refused, with what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import msgspec

from saccade.models.contract.extras import ExtraKind, ExtraOutput, asked_for, mask_of
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.specs import Task, TaskSpec
from saccade.service.errors import BadParameter
from saccade.service.vision.embedding import VectorEncoding, VectorType
from saccade.service.vision.explanation import ExplainFormat
from saccade.service.vision.produced import ImageFormat
from saccade.service.vision.segmentation import MaskFormat

_NAMES_BY_TASK = {
    Task.CLASSIFY: ("top_k",),
    Task.DETECT: ("score_threshold", "max_detections"),
    Task.SEGMENT: ("mask_format",),
    Task.INSTANCES: ("score_threshold", "max_detections", "mask_format"),
    Task.EMBED: ("encoding", "embedding_dtype"),
    Task.IMAGE: ("image_format",),
}
_DEEDS = {ExtraKind.EXPLAIN: "explain its answers", ExtraKind.TRUST: "tell unfamiliar pictures"}
_NAMES_OF_ALL = ("deadline_ms", "variant", "allow_cheaper", "explain", "trust", "quality")


class GivenParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters that a request gave, in its query or as JSON; None where it gave none."""

    top_k: int | None = None
    score_threshold: float | None = None
    max_detections: int | None = None
    mask_format: MaskFormat | None = None
    encoding: VectorEncoding | None = None
    embedding_dtype: VectorType | None = None
    image_format: ImageFormat | None = None
    deadline_ms: float | None = None
    variant: str | None = None
    allow_cheaper: bool | None = None
    explain: ExplainFormat | None = None
    quality: bool | None = None
    trust: bool | None = None

    @property
    def asked(self) -> int:
        """The mask of the extra outputs that it asks for."""
        explain = ExtraKind.EXPLAIN.bit if self.explain is not None else 0
        return explain | (ExtraKind.TRUST.bit if self.trust else 0)


NOTHING_GIVEN = GivenParameters()


@dataclass(frozen=True, slots=True)
class Parameters:
    """All parameters, complete and checked against the model."""

    top_k: int
    score_threshold: float
    max_detections: int
    mask_format: MaskFormat
    deadline_ms: float
    names_deadline: bool  # whether the request gave a deadline
    variant: str | None
    allow_cheaper: bool
    encoding: VectorEncoding = "json"
    embedding_dtype: VectorType = "float32"
    extras: tuple[ExtraOutput, ...] = ()  # outputs that the answer has besides
    asked: int = 0  # their mask, see models/contract/extras.py
    explain: ExplainFormat = "grid"
    quality: bool = False  # whether the answer says how good the picture is
    image_format: ImageFormat = "png"
    counts_trust: bool = False  # whether the metric counts the score of trust, which the answer may be without


@dataclass(frozen=True, slots=True)
class DeadlineRule:
    default_ms: float
    max_ms: float


def parse_given(values: Mapping[str, Any], *, is_text: bool) -> GivenParameters:
    """Checks types and names. `is_text`: all values are strings, as in a query. Raises BadParameter."""
    unknown = [name for name in values if name not in GivenParameters.__struct_fields__]
    if unknown:
        allowed = ", ".join(GivenParameters.__struct_fields__)
        raise BadParameter(f"unknown parameter {unknown[0]!r}; parameters are: {allowed}")
    try:
        given = msgspec.convert(dict(values), GivenParameters, strict=not is_text)
    except msgspec.ValidationError as error:
        raise BadParameter(f"parameter value refused: {error}{_allowed(str(error))}") from error
    for name, value in values.items():
        if value is not None and getattr(given, name) is None:  # msgspec takes the word for nothing
            raise BadParameter(f"parameter {name!r} is {value!r}; leave it out, or give it a value")
    return given


def _allowed(refusal: str) -> str:
    """The words that a refused parameter may have, where they are few."""
    hints = get_type_hints(GivenParameters)
    kinds = next((get_args(hints[name]) for name in hints if f"$.{name}`" in refusal), ())
    words = ["true", "false"] if bool in kinds else [word for kind in kinds for word in get_args(kind)]
    return f"; {', '.join(words)} are allowed" if words else ""


def merged(query: GivenParameters, body: GivenParameters) -> GivenParameters:
    """Query and body together. Raises BadParameter when they give different values for one parameter."""
    if body == NOTHING_GIVEN:
        return query
    values: dict[str, Any] = {}
    for name in GivenParameters.__struct_fields__:
        from_query, from_body = getattr(query, name), getattr(body, name)
        if from_query is not None and from_body is not None and from_query != from_body:
            raise BadParameter(f"parameter {name!r} is {from_query!r} in the query and {from_body!r} in the body")
        values[name] = from_body if from_query is None else from_query
    return GivenParameters(**values)


def complete(given: GivenParameters, manifest: Manifest, rule: DeadlineRule) -> Parameters:
    """Fills in defaults and checks ranges. Raises BadParameter."""
    spec = manifest.task
    _ensure_applicable(given, spec)
    asked = _asked(given, manifest)
    if given.quality and manifest.quality is None:
        why = "the answer is a picture itself" if spec.task is Task.IMAGE else "export it again to ask for quality"
        raise BadParameter(f"this version does not say what its pictures are like: {why}")
    class_count = spec.top_k if spec.task is Task.CLASSIFY else 0
    default_k = class_count if spec.multi_label else min(5, class_count)
    return Parameters(
        top_k=_whole("top_k", given.top_k, default_k, 1, class_count),
        score_threshold=_number("score_threshold", given.score_threshold, spec.score_threshold, 0.0, 1.0),
        max_detections=_whole("max_detections", given.max_detections, spec.max_detections, 1, spec.max_detections),
        mask_format=given.mask_format or "rle",
        deadline_ms=_number("deadline_ms", given.deadline_ms, rule.default_ms, 0.0, rule.max_ms),
        names_deadline=given.deadline_ms is not None,
        variant=given.variant,
        allow_cheaper=given.allow_cheaper is not False,
        encoding=given.encoding or "json",
        embedding_dtype=given.embedding_dtype or "float32",
        extras=asked_for(manifest.extras, asked),
        asked=asked,
        explain=given.explain or "grid",
        quality=given.quality is True,
        image_format=given.image_format or "png",
    )


def given_for(kinds: Iterable[ExtraKind]) -> dict[str, Any]:
    """The parameters that ask for these extra outputs, as a protocol without words of its own for them needs."""
    words: dict[ExtraKind, dict[str, Any]] = {ExtraKind.EXPLAIN: {"explain": "grid"}, ExtraKind.TRUST: {"trust": True}}
    return {name: value for kind in kinds for name, value in words[kind].items()}


def _asked(given: GivenParameters, manifest: Manifest) -> int:
    """The mask of what is asked for. Raises BadParameter where no variant of the version has it."""
    asked = given.asked
    if asked and manifest.task.task is Task.IMAGE:  # each tile would have its own
        raise BadParameter("explain and trust do not apply to an image model: its answer is the picture")
    for kind in ExtraKind:
        if asked & kind.bit & ~mask_of(manifest.extras):
            reasons = {str(variant.detail.get(f"no_{kind}", "")) for variant in manifest.variants} - {""}
            why = "; ".join(sorted(reasons)) or "it was exported without it"
            raise BadParameter(f"{manifest.model}/{manifest.version} cannot {_DEEDS[kind]}: {why}")
    return asked


def _ensure_applicable(given: GivenParameters, spec: TaskSpec) -> None:
    names = ("top_k", "score_threshold") if spec.multi_label else _NAMES_BY_TASK[spec.task]
    allowed = (*names, *_NAMES_OF_ALL)
    for name in GivenParameters.__struct_fields__:
        if getattr(given, name) is not None and name not in allowed:
            article = "an" if spec.task in (Task.EMBED, Task.IMAGE) else "a"
            raise BadParameter(
                f"{name!r} does not apply to {article} {spec.task} model; its parameters are: {', '.join(allowed)}"
            )


def _whole(name: str, given: int | None, default: int, low: int, high: int) -> int:
    if given is None:
        return default
    return int(_number(name, given, default, low, high))


def _number(name: str, given: float | None, default: float, low: float, high: float) -> float:
    if given is None:
        return default
    if not low <= given <= high:  # refuses NaN, too
        raise BadParameter(f"{name} is {given!r:.20}, allowed are {low:g} to {high:g}")
    return given
