"""JSON bodies before they are parsed. Promises: few objects are made of a large body, and usual ones pass."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from saccade.service.api.http.image_bodies import images_from
from saccade.service.api.http.json_entries import ensure_few_entries
from saccade.service.errors import BadRequest

IMAGES = 16


def test_the_most_images_with_all_parameters_pass() -> None:
    entries = [{"b64": "data:image/png;base64,aGVsbG8=", "url": None} for _ in range(IMAGES)]

    ensure_few_entries(json.dumps({"images": entries, "parameters": {"top_k": 3, "labels": "a"}}).encode(), IMAGES)


@pytest.mark.parametrize(
    "body",
    [
        b'{"images":[' + b"{}," * 1_000_000 + b"{}]}",
        b'{"images":[],"parameters":{' + b",".join(b'"%d":1' % number for number in range(300_000)) + b"}}",
        b'{"images":[],"parameters":{"top_k":[' + b"[]," * 1_000_000 + b"[]]}}",
    ],
    ids=["images", "parameters", "lists"],
)
async def test_bodies_of_many_entries_cost_no_more_than_their_bytes(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            await images_from(body, "application/json", None, IMAGES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 * len(body)
