"""One image after the other: what fails alone, and what ends the asking."""

from __future__ import annotations

from pathlib import Path

import httpx

from saccade.client import Client
from saccade.service.cli.predict_asking import Asking, Question, problem_text

ANSWER = {
    "model": "m",
    "version": "1",
    "variant": "fp32",
    "request_id": "r",
    "predictions": [{"width": 1, "height": 1, "classes": []}],
    "timings_ms": {},
}


def asking(tmp_path: Path, *turns: httpx.Response | Exception, draw: Path | None = None) -> Asking:
    """Asks about three files, of which the first does not exist; the server answers by turns."""
    answers = iter(turns)

    def answer(request: httpx.Request) -> httpx.Response:
        turn = next(answers)
        if isinstance(turn, Exception):
            raise turn
        return turn

    images = [tmp_path / name for name in ("gone.jpg", "one.jpg", "two.jpg")]
    for image in images[1:]:
        image.write_bytes(b"no picture that can be drawn")
    with Client("server", retries=0, transport=httpx.MockTransport(answer)) as client:
        made = Asking(client, Question("m", None, None, None, {}), draw)
        made.about(images)
    return made


def test_files_and_connections_that_fail_are_left_behind(tmp_path: Path) -> None:
    made = asking(tmp_path, httpx.ReadError("reset"), httpx.Response(200, json=ANSWER))

    first, second, third = made.asked
    assert problem_text(first.problem) == "Cannot be read: No such file or directory"
    assert second.problem["title"] == "No answer"
    assert third.prediction is not None
    assert made.end == ""
    assert made.has_failed


def test_a_proxys_page_in_place_of_one_answer_ends_nothing(tmp_path: Path) -> None:
    made = asking(tmp_path, httpx.Response(413, content=b"<html>"), httpx.Response(200, json=ANSWER))

    assert problem_text(made.asked[1].problem).startswith("413 Request Entity Too Large: ")
    assert made.asked[2].prediction is not None


def test_a_server_that_is_gone_ends_the_asking_and_keeps_the_answers(tmp_path: Path) -> None:
    made = asking(tmp_path, httpx.Response(200, json=ANSWER), httpx.ConnectError("refused"))

    assert len(made.asked) == 2
    assert "saccade serve" in made.end


def test_a_picture_that_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    made = asking(tmp_path, *[httpx.Response(200, json=ANSWER)] * 2, draw=tmp_path / "drawn")

    assert [note.partition(" is not drawn")[0] for note in made.notes] == [
        str(tmp_path / "one.jpg"),
        str(tmp_path / "two.jpg"),
    ]
    assert made.has_failed
