"""Table and plot from recorded rows, and the figures that become rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.load.peers.measuring import figures_of, memory_of
from tests.load.peers.plots import draw
from tests.load.peers.processes import Usage
from tests.load.peers.table import Name, cell_of, markdown, ratio_of
from tests.unit.service.bench.rows import REFUSED, TIMEOUT, Row, report_from

NAMES = (
    Name("saccade", "saccade", "saccade"),
    Name("triton", "Triton", "triton"),
    Name("triton-tuned", "Triton, queue policy", "triton"),
)
QUIET = {
    "p50_ms": 50.0,
    "p99_ms": 100.0,
    "cpu_cores": 1.5,
    "rss_start_mib": 100.0,
    "rss_end_mib": 110.0,
    "rss_peak_mib": 120.0,
    "memory_grew": False,
    "refused": 0,
    "refused_p99_ms": None,
    "refused_max_ms": None,
    "errors": {},
    "client_is_saturated": False,
}


def closed(server: str, number: int, per_second: float) -> dict[str, Any]:
    place = {"subject": "resnet50", "server": server, "round": number, "factor": 0.0}
    return place | QUIET | {"per_second": per_second, "cold_start_s": 2.0, "requests": 1000}


def overloaded(server: str, number: int, share: float, **more: Any) -> dict[str, Any]:
    place = {"subject": "resnet50", "server": server, "round": number, "factor": 2.0}
    figures = {"rate": 200.0, "goodput_per_second": 200 * share, "goodput_share": share, "requests": 1000}
    return place | QUIET | figures | {"per_second": 100.0} | more


def recorded(*rows: dict[str, Any]) -> dict[str, Any]:
    settings = {
        "seconds": 10.0,
        "connections": 32,
        "objective_ms": 200.0,
        "factors": [2.0],
        "decode": "saccade",
        "processes": 2,
        "cores": 2,
        "files": {"resnet50": "0123456789abcdef"},
    }
    call = {
        "commit": "abc",
        "machine": "a processor",
        "command": "python -m tests.load.peers",
        "versions": {"ray": "2"},
    }
    return {"settings": settings, "calls": [call], "rows": {str(index): row for index, row in enumerate(rows)}}


RUN = recorded(
    closed("limit", 1, 150.0),
    *(closed("saccade", number, rate) for number, rate in enumerate((120.0, 60.0, 130.0), 1)),
    *(closed("triton", number, rate) for number, rate in enumerate((100.0, 50.0, 100.0), 1)),
    overloaded("saccade", 1, 0.45),
    overloaded("triton", 1, 0.0, p99_ms=9000.0, errors={"timeout": 100}, memory_grew=True),
    overloaded("triton-tuned", 1, 0.15, refused=700, refused_p99_ms=670.0, refused_max_ms=900.0),
    {"subject": "resnet50", "server": "ray", "round": 1, "factor": 0.0, "failed": "it ended with 1: no memory"},
)


def line_with(text: str, title: str, after: str) -> str:
    section = text[text.index(after) :]
    return next(line for line in section.splitlines() if line.startswith(f"| {title} |"))


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_round_hits_both() -> None:
    assert ratio_of(cell_of(RUN, "resnet50", "saccade"), cell_of(RUN, "resnet50", "triton")) == pytest.approx(1.2)


def test_capacities_are_medians_over_rounds_beside_the_limit() -> None:
    text = markdown(RUN, NAMES, ["resnet50"])

    assert "| no server: decode, resize, run | 150 |" in text
    assert line_with(text, "Triton", "## resnet50").startswith("| Triton | 100 | 1.20 | 0.67 | 50.0 | 100 |")


def test_overload_tells_goodput_against_capacity_refusals_errors_and_memory() -> None:
    text = markdown(RUN, NAMES, ["resnet50"])
    after = "### resnet50 at 2 times"

    assert "| 90.0 | 0.90 | 100 | 0.0% | - / - | none |" in line_with(text, "saccade", after)
    assert "| 9000 | 0.0% | - / - | timeout 10.0% | 100 to 110 (120), grew in 1 of 1 |" in line_with(
        text, "Triton", after
    )
    assert "| 30.0 | 0.30 | 100 | 70.0% | 670 / 900 | none |" in line_with(text, "Triton, queue policy", after)


def test_what_failed_stands_there_with_its_reason() -> None:
    text = markdown(RUN, NAMES, ["resnet50"])

    assert "- resnet50, ray, round 1, factor 0: it ended with 1: no memory" in text


def test_a_client_that_was_late_is_told() -> None:
    text = markdown(recorded(closed("saccade", 1, 100.0) | {"client_is_saturated": True}), NAMES, ["resnet50"])

    assert "In 1 of 1 rows the client itself was too busy" in text


def test_a_picture_is_drawn_from_a_recording_also_where_rows_are_missing(tmp_path: Path) -> None:
    for number, document in enumerate((RUN, recorded(closed("triton", 1, 90.0)))):
        file = tmp_path / f"{number}.png"
        draw(document, NAMES, "resnet50", file)
        assert file.read_bytes().startswith(b"\x89PNG")


def test_a_row_counts_refusals_apart_from_errors_and_goodput_against_the_rate() -> None:
    rows = [Row(1.0, 0.1), Row(2.0, 0.5), Row(3.0, 0.004, REFUSED), Row(4.0, 1.0, TIMEOUT)]

    found = figures_of(report_from(rows, window_s=10.0), Usage((100.0, 101.0), 1.5), rate=0.4)

    assert (found["per_second"], found["goodput_per_second"], found["goodput_share"]) == (0.2, 0.1, 0.25)
    assert (found["refused"], found["refused_max_ms"]) == (1, 4.0)
    assert sum(found["errors"].values()) == 1
    assert found["p99_ms"] == 500.0


@pytest.mark.parametrize(
    ("rss_mib", "grew"),
    [
        ([100.0, 180.0, 200.0, 200.0, 200.0, 200.0, 201.0, 200.0, 200.0, 200.0], False),
        ([100.0, 110.0, 120.0, 130.0, 140.0, 150.0, 160.0, 170.0, 180.0, 190.0], True),
        ([2000.0] * 8 + [2009.0] * 2, False),
        ([300.0], False),
    ],
    ids=["rises to a level", "keeps rising", "little of much", "one sample"],
)
def test_memory_grows_only_if_it_still_does_in_the_second_half(rss_mib: list[float], grew: bool) -> None:
    assert memory_of(rss_mib)["memory_grew"] is grew
