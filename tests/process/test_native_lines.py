"""What native code of a worker writes to stderr: events like all others, so that every line of the log is JSON."""

from __future__ import annotations

import json
from pathlib import Path

from saccade.service.backends.fake_backend import NATIVE_LINES
from tests.support.server import running_server, wait_until
from tests.support.versions import publish_fake


def test_native_lines_are_events_and_the_last_words_of_a_worker_are_kept(tmp_path: Path) -> None:
    publish_fake(tmp_path / "repository", "chatty", 1, content=NATIVE_LINES)
    with running_server(tmp_path / "repository", tmp_path) as server:
        wait_until(lambda: len(server.events("native_line")) >= 50, what="lines are events")
        server.worker().kill()
        wait_until(lambda: server.events("native_line")[-1]["text"] == "the last words", what="the last words are told")

        first, last = server.events("native_line")[0], server.events("native_line")[-1]
        assert (first["process"], first["text"], last["more"]) == ("worker-cpu", "[cudnn] line 0", 151)
        for line in server.logs().splitlines():
            json.loads(line)
