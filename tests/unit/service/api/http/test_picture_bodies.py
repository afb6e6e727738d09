"""`Accept` of requests whose answer is a picture."""

from __future__ import annotations

import pytest

from saccade.models.contract.specs import Task
from saccade.service.api.http.picture_bodies import accepted_picture


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (b"", None),
        (b"*/*", None),
        (b"application/json", None),
        (b"text/html", None),
        (b"image/png", "png"),
        (b"IMAGE/PNG; q=0.3", "png"),
        (b"image/*", "png"),
        (b"image/*, image/png;q=0", "webp"),
        (b"image/png;q=0, image/webp", "webp"),
        (b"image/png;q=0", None),
        (b"image/png;q=0, */*", None),
        (b"image/png;q=0.5, image/webp;q=0.9", "webp"),
        (b"image/webp, image/png", "webp"),
        (b"image/jpeg, image/png", "png"),
        (b"application/json;q=0.5, application/octet-stream", "raw"),
        (b"application/json, image/png", None),
        (b"image/png;q=lots", "png"),
    ],
)
def test_the_best_liked_format_that_is_answered_is_taken(accept: bytes, form: str | None) -> None:
    assert accepted_picture(accept, Task.IMAGE) == form


def test_other_tasks_answer_json() -> None:
    assert accepted_picture(b"image/png", Task.DETECT) is None
