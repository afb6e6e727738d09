"""Checks of error answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import orjson


def problem_in(status: int, headers: Mapping[str, str], body: bytes, expected_status: int) -> dict[str, Any]:
    """The problem document of an answer, its form checked."""
    assert status == expected_status, body
    assert headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = orjson.loads(body)
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == status
    assert document["type"].startswith("urn:saccade:problem:")
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == headers["x-request-id"]
    assert b"Traceback" not in body
    return document


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer, its form checked."""
    return problem_in(response.status_code, response.headers, response.content, status)
