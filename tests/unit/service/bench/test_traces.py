"""Recordings: what is written is read, other forms are too, and bad lines are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.bench.traces import Arrival, read_trace, write_trace
from saccade.service.errors import BadParameter


def test_what_is_written_is_read_from_its_first_moment(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", [{"at_s": 5.5, "model": "a", "image": "1.jpg", "latency_ms": 3}, {"at_s": 5.0}])

    assert read_trace(tmp_path / "t") == (Arrival(0.0), Arrival(0.5, "a", "1.jpg"))


@pytest.mark.parametrize(
    "text",
    [
        "at_s,model\n0,a\n1.5,a\n",
        "at_s,other,model\r\n0,x,a\r\n1.5,y,a\r\n",
        "1.5,a\n0,a",
        '{"at_s": 0, "model": "a"}\n\n{"at_s": 1.5, "model": "a"}',
    ],
    ids=["csv", "csv with another column", "no header", "json lines"],
)
def test_every_form_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)

    assert read_trace(tmp_path / "t") == (Arrival(0.0, "a"), Arrival(1.5, "a"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"at_s": 0}\n{"at_s": "soon"}', 2),
        ('{"at_s": 0}\n[1]', 2),
        ('{"at_s": 0}\nnothing', 2),
        ('{"at": 0}', 1),
        ("at_s\n1\nnan", 3),
        ("1\ninf", 2),
    ],
)
def test_bad_line_is_refused_by_its_number(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "t").write_text(text)

    with pytest.raises(BadParameter, match=f"t:{line} "):
        read_trace(tmp_path / "t")


@pytest.mark.parametrize("text", ["", "\n", "at_s,model\n"])
def test_empty_recording_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)

    with pytest.raises(BadParameter, match="no arrival"):
        read_trace(tmp_path / "t")
