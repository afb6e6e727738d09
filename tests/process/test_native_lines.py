"""What native code of children writes to stderr: events like all others, so that every line of the log is JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

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


def test_what_libtiff_prints_in_http_processes_and_decoders_are_events(tmp_path: Path) -> None:
    publish_fake(tmp_path / "repository", "classifier", 1)
    with running_server(tmp_path / "repository", tmp_path, image_formats="tiff") as server:
        for side in (64, 1500):  # the larger one is decoded by a process of its own
            answer = server.predict("classifier", damaged_tiff(side))
            assert answer.status_code == 422, answer.text
        wait_until(lambda: len(server.events("native_line")) >= 2, what="both lines are events")

        for event in server.events("native_line"):
            assert (event["process"], "not yet in table" in event["text"]) == ("api-0", True)
        for line in server.logs().splitlines():
            json.loads(line)


def damaged_tiff(side: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "TIFF", compression="tiff_lzw")
    content = bytearray(file.getvalue())
    content[200:400] = bytes(byte ^ 0x5A for byte in content[200:400])
    return bytes(content)
