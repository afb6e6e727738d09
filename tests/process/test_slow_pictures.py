"""Slow pictures have processes of their own, which are there for them only and end with the server."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.support.images import red_of, red_png
from tests.support.server import running_server

_ENDED_WITHIN_S = 30.0


def test_slow_picture_is_decoded_by_a_process_of_low_priority_that_ends_with_the_server(
    three_models: Path, tmp_path: Path
) -> None:
    with running_server(three_models, tmp_path) as server:
        (api,) = server.api_processes()
        usual = server.predict("classifier", red_png(55))
        before = api.children()
        slow = server.predict("classifier", red_png(77, 1000, 1000))
        decoding = api.children(recursive=True)
        is_lower = [process.nice() > api.nice() for process in decoding]

    assert (before, red_of(usual.json()["predictions"][0])) == ([], 55)
    assert red_of(slow.json()["predictions"][0]) == 77
    assert is_lower
    assert all(is_lower)
    assert psutil.wait_procs(decoding, _ENDED_WITHIN_S)[1] == []
