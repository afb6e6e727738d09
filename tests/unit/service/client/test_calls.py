"""What is sent, what answers mean, and when a request is sent again; no connection anywhere."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from saccade.client import (
    Classification,
    ClientError,
    Detections,
    KeyRefused,
    MalformedRequest,
    NoAnswer,
    NotAvailable,
    NotFound,
    Overloaded,
    Problem,
    Segmentation,
    ServerFailed,
    UnexpectedAnswer,
    Unprocessable,
)
from saccade.service.client.calls import Call, Target, Tries, broken, outcomes_from, predict_call, refusal

URL = httpx.URL("http://127.0.0.1:8000")


def response(status: int, document: Any, **headers: str) -> httpx.Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=content, headers=named, request=httpx.Request("POST", URL))


def problem(status: int, title: str = "Title") -> dict[str, Any]:
    return {"type": "urn:x", "title": title, "status": status, "detail": "what to change", "request_id": "r1"}


def answer(*predictions: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": "m",
        "version": "2",
        "variant": "fp32",
        "request_id": "r2",
        "predictions": [{"width": 4, "height": 3, **item} for item in predictions],
        "timings_ms": {"total": 1.5},
    }


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (Target("digits"), "/v1/models/digits/predict"),
        (Target("digits", version=3), "/v1/models/digits/versions/3/predict"),
        (Target("digits", label="next"), "/v1/models/digits/labels/next/predict"),
        (Target("a/b ?"), "/v1/models/a%2Fb%20%3F/predict"),
    ],
)
def test_path_names_model_version_or_label(target: Target, path: str) -> None:
    assert target.path == path


def test_version_and_label_together_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        _ = Target("digits", 1, "next").path


def call(**changes: Any) -> Call:
    given: dict[str, Any] = {"deadline_ms": None, "priority": None, "routing_key": None, "parameters": {}, **changes}
    return predict_call([b"one"], Target("digits"), **given)


def test_parameters_and_headers_are_written_as_the_server_reads_them() -> None:
    made = call(
        parameters={"top_k": 3, "allow_cheaper": False, "variant": None}, priority="low", routing_key="user 7"
    ).arguments(None)

    assert made["params"] == {"top_k": "3", "allow_cheaper": "false"}
    assert made["headers"] == {
        "X-Priority": "low",
        "X-Routing-Key": "user 7",
        "Content-Type": "application/octet-stream",
    }
    assert made["content"] == b"one"


def test_the_deadline_that_is_left_is_sent_and_waited_for() -> None:
    made = call(deadline_ms=500).arguments(0.125)

    assert made["params"] == {"deadline_ms": "125.0"}
    assert 0.125 < made["timeout"] < 5


def test_several_pictures_become_one_form() -> None:
    made = predict_call(
        [b"one", b"two"], Target("digits"), deadline_ms=None, priority=None, routing_key=None, parameters={}
    ).arguments(None)

    assert [(name, content) for name, (_, content, _) in made["files"]] == [("image", b"one"), ("image", b"two")]


# Sending again

OVERLOADED = Overloaded(problem(429), retry_after_s=2.0)


def test_the_server_says_when_to_come_back() -> None:
    assert Tries(1, None, 100.0).pause_s(OVERLOADED, 100.0) == 2.0


def test_tries_are_bounded() -> None:
    tries = Tries(2, None, 0.0)

    assert [tries.pause_s(OVERLOADED, 0.0) for _ in range(4)] == [2.0, 2.0, None, None]


def test_pauses_grow_where_the_server_says_nothing() -> None:
    tries = Tries(3, None, 0.0)
    pauses = [tries.pause_s(NotAvailable(problem(503)), 0.0) or 0.0 for _ in range(3)]

    assert [low <= pause <= 2 * low for pause, low in zip(pauses, (0.05, 0.1, 0.2), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    "error",
    [
        NoAnswer("broke on the way", was_sent=True),
        UnexpectedAnswer("hello"),
        Unprocessable(problem(422)),
        ServerFailed(problem(500)),
        Overloaded(problem(429), retry_after_s=3600.0),
    ],
)
def test_some_failures_are_final(error: ClientError) -> None:
    assert Tries(3, None, 0.0).pause_s(error, 0.0) is None


def test_no_try_begins_after_the_deadline() -> None:
    assert Tries(3, 5.0, 100.0).pause_s(OVERLOADED, 102.0) == 2.0
    assert Tries(3, 5.0, 100.0).pause_s(OVERLOADED, 103.5) is None


@pytest.mark.parametrize(
    ("error", "was_sent"),
    [(httpx.ConnectError("refused"), False), (httpx.ReadError("reset"), True), (httpx.ReadTimeout(""), True)],
)
def test_only_a_connection_that_was_never_made_is_known_to_have_sent_nothing(
    error: httpx.HTTPError, was_sent: bool
) -> None:
    found = broken(error, URL)

    assert (found.was_sent, found.__cause__) == (was_sent, error)


# Answers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, MalformedRequest),
        (403, KeyRefused),
        (404, NotFound),
        (415, MalformedRequest),
        (422, Unprocessable),
        (429, Overloaded),
        (500, ServerFailed),
        (503, NotAvailable),
    ],
)
def test_problems_have_types(status: int, kind: type[Problem]) -> None:
    found = refusal(response(status, problem(status), Retry_After="7"))

    assert type(found) is kind
    assert isinstance(found, Problem)
    assert (found.status, found.title, found.detail, found.request_id) == (status, "Title", "what to change", "r1")
    assert found.retry_after_s == 7.0


def test_a_proxy_that_is_overloaded_counts_too() -> None:
    assert isinstance(refusal(response(503, b"<html>", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT")), NotAvailable)


@pytest.mark.parametrize("document", [b"hello", b"[]", {"status": 404}])
def test_another_kind_of_server_is_named(document: Any) -> None:
    with pytest.raises(UnexpectedAnswer, match="is it a saccade server"):
        outcomes_from(response(200, document))
    refused = refusal(response(404, document))
    assert isinstance(refused, NotFound)
    assert "is it a saccade server" in refused.detail


def test_answers_have_types_in_order_with_failures_in_their_places() -> None:
    item = {"label": "7", "class_id": 7, "score": 0.5}
    document = answer(
        {"classes": [item]},
        {"error": problem(422)},
        {"detections": [{**item, "box": [1, 2, 3, 4]}], "warning": "cut off"},
        {"segments": []},
    )
    first, failed, third, fourth = outcomes_from(response(200, document, X_Saccade_Rung="1"))

    assert isinstance(first, Classification)
    assert first.classes[0].label == "7"
    assert (first.width, first.height, first.warning) == (4, 3, "")
    assert (first.served.version, first.served.ladder_level, first.served.timings_ms["total"]) == ("2", 1, 1.5)
    assert isinstance(failed, Unprocessable)
    assert isinstance(third, Detections)
    assert (third.detections[0].box, third.detections[0].area, third.warning) == ((1, 2, 3, 4), None, "cut off")
    assert isinstance(fourth, Segmentation)
    assert fourth.segments == ()


def test_an_unknown_task_is_not_guessed() -> None:
    with pytest.raises(UnexpectedAnswer, match="keypoints"):
        outcomes_from(response(200, answer({"keypoints": {}})))
