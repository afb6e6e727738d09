"""Request parameters: every unknown name and every bad value is refused with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from saccade.models.contract.specs import Task
from saccade.service.errors import BadParameter
from saccade.service.vision.parameters import DeadlineRule, GivenParameters, Parameters, complete, merged, parse_given
from tests.support.versions import manifest_for

RULE = DeadlineRule(default_ms=1000.0, max_ms=5000.0)


def completed(task: Task, **given: Any) -> Parameters:
    return complete(GivenParameters(**given), manifest_for("digits", 1, task), RULE)


def test_query_text_becomes_typed_values() -> None:
    given = parse_given(
        {"top_k": "3", "score_threshold": "0.5", "mask_format": "none", "variant": "fp32"}, is_text=True
    )

    assert given == GivenParameters(top_k=3, score_threshold=0.5, mask_format="none", variant="fp32")


def test_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BadParameter, match=r"unknown parameter 'topk'; parameters are: top_k, score_threshold"):
        parse_given({"topk": 3}, is_text=False)


@pytest.mark.parametrize(
    ("values", "is_text"),
    [
        ({"top_k": "three"}, True),
        ({"top_k": "1.5"}, True),
        ({"top_k": ""}, True),
        ({"top_k": "3"}, False),  # JSON has numbers; text in their place is a mistake
        ({"top_k": True}, False),
        ({"mask_format": "jpeg"}, True),
        ({"score_threshold": "high"}, True),
        ({"variant": 3}, False),
        ({"top_k": "1" * 5000}, True),
    ],
)
def test_value_of_the_wrong_kind_is_refused_by_name(values: dict[str, Any], is_text: bool) -> None:
    with pytest.raises(BadParameter, match=rf"parameter value refused: .*{next(iter(values))}"):
        parse_given(values, is_text=is_text)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [({"explain": "heat"}, "grid, png are allowed"), ({"trust": "yes"}, "true, false are allowed")],
)
def test_few_words_that_are_allowed_are_said(given: dict[str, Any], allowed: str) -> None:
    with pytest.raises(BadParameter, match=f"{allowed}$"):
        parse_given(given, is_text=True)


def test_word_for_nothing_is_no_value() -> None:
    with pytest.raises(BadParameter, match="'top_k' is 'null'; leave it out"):
        parse_given({"top_k": "null"}, is_text=True)

    assert parse_given({"top_k": None}, is_text=False) == GivenParameters()


def test_query_and_body_add_up() -> None:
    both = merged(GivenParameters(top_k=3), GivenParameters(deadline_ms=50.0))

    assert both == GivenParameters(top_k=3, deadline_ms=50.0)
    assert merged(GivenParameters(top_k=3), GivenParameters(top_k=3)).top_k == 3


def test_contradiction_between_query_and_body_is_refused() -> None:
    with pytest.raises(BadParameter, match="'top_k' is 3 in the query and 4 in the body"):
        merged(GivenParameters(top_k=3), GivenParameters(top_k=4))


def test_defaults_come_from_the_model_and_the_server() -> None:
    classify, detect, segment = completed(Task.CLASSIFY), completed(Task.DETECT), completed(Task.SEGMENT)

    assert (classify.top_k, classify.deadline_ms, classify.variant) == (5, 1000.0, None)
    assert (detect.score_threshold, detect.max_detections) == (0.25, 8)
    assert segment.mask_format == "rle"


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (Task.CLASSIFY, {"top_k": 0}, "top_k is 0, allowed are 1 to 10"),
        (Task.CLASSIFY, {"top_k": 11}, "top_k is 11, allowed are 1 to 10"),
        (Task.CLASSIFY, {"top_k": -1}, "top_k is -1"),
        (Task.CLASSIFY, {"top_k": 10**400}, "top_k is 1000"),
        (Task.DETECT, {"score_threshold": 1.01}, "score_threshold is 1.01, allowed are 0 to 1"),
        (Task.DETECT, {"score_threshold": float("nan")}, "score_threshold is nan"),
        (Task.DETECT, {"max_detections": 9}, "max_detections is 9, allowed are 1 to 8"),
        (Task.CLASSIFY, {"deadline_ms": -1.0}, "deadline_ms is -1.0, allowed are 0 to 5000"),
        (Task.CLASSIFY, {"deadline_ms": float("inf")}, "deadline_ms is inf, allowed are 0 to 5000"),
    ],
)
def test_value_outside_its_range_is_refused_with_the_range(task: Task, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameter, match=message) as caught:
        completed(task, **given)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("task", "given"),
    [
        (Task.CLASSIFY, {"mask_format": "rle"}),
        (Task.DETECT, {"top_k": 1}),
        (Task.SEGMENT, {"score_threshold": 0.5}),
    ],
)
def test_parameter_of_another_task_is_refused_with_those_that_apply(task: Task, given: dict[str, Any]) -> None:
    with pytest.raises(BadParameter, match=rf"does not apply to a {task} model; its parameters are: .*deadline_ms"):
        completed(task, **given)


@pytest.mark.parametrize("top_k", [1, 10])
def test_values_at_the_ends_of_the_range_are_taken(top_k: int) -> None:
    assert completed(Task.CLASSIFY, top_k=top_k, deadline_ms=0.0).top_k == top_k


def test_cheaper_variants_are_allowed_unless_the_request_says_otherwise() -> None:
    assert completed(Task.CLASSIFY).allow_cheaper
    assert not completed(Task.CLASSIFY, allow_cheaper=False).allow_cheaper
    assert parse_given({"allow_cheaper": "false"}, is_text=True).allow_cheaper is False
    with pytest.raises(BadParameter):
        parse_given({"allow_cheaper": "perhaps"}, is_text=True)


def test_a_named_deadline_is_told_from_the_default() -> None:
    assert not completed(Task.CLASSIFY).names_deadline
    assert completed(Task.CLASSIFY, deadline_ms=1000.0).names_deadline


def test_a_classifier_of_several_labels_takes_a_threshold_and_answers_all_above_it() -> None:
    manifest = manifest_for("digits", 1, Task.CLASSIFY)
    task = manifest.task.model_copy(update={"multi_label": True, "score_threshold": 0.6})
    several = manifest.model_copy(update={"task": task})

    usual = complete(GivenParameters(), several, RULE)
    given = complete(GivenParameters(score_threshold=0.1, top_k=2), several, RULE)

    assert (usual.top_k, usual.score_threshold) == (10, 0.6)
    assert (given.top_k, given.score_threshold) == (2, 0.1)
    with pytest.raises(BadParameter, match=r"does not apply .*: top_k, score_threshold, deadline_ms"):
        complete(GivenParameters(max_detections=1), several, RULE)
