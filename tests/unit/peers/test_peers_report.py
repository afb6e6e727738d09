"""Table and plot from recorded rows, and the figures that become rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.load.peers.measuring import figures_of, limit_row, memory_of
from tests.load.peers.plots import draw
from tests.load.peers.processes import Usage
from tests.load.peers.subjects import Published, Subject, same_network
from tests.load.peers.summary import summary
from tests.load.peers.table import Name, cell_of, markdown, ratio_of
from tests.support.versions import manifest_for
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


def test_the_table_says_which_variant_and_runtime_answered_in_which_rounds() -> None:
    rows = [closed("saccade", number, 100.0) for number in (1, 2, 3)]
    for row, served in zip(rows, ("int8-openvino in openvino", "int8-cpu in onnxruntime") * 2, strict=False):
        row["served"] = served
    text = markdown(recorded(*rows, closed("triton", 1, 90.0)), NAMES, ["resnet50"])

    assert line_with(text, "saccade", "## resnet50").endswith(
        "| 3 | int8-openvino in openvino / int8-cpu in onnxruntime |"
    )
    assert line_with(text, "Triton", "## resnet50").endswith("| 1 | - |")


def published_in(*variants: tuple[str, str, str]) -> Published:
    """A version with a denied variant besides; each is (name, precision, file)."""
    manifest = manifest_for("resnet50", 1)
    first = manifest.variants[0]
    denied = manifest_for("resnet50", 1, accepted=False).variants[0]
    made = [
        first.model_copy(
            update={
                "name": name,
                "precision": precision,
                "file": file,
                "target": "openvino" if name.endswith("openvino") else "any",
            }
        )
        for name, precision, file in variants
    ]
    made.append(denied.model_copy(update={"name": "denied", "precision": "int8", "file": "int8-cpu.onnx"}))
    changed = manifest.model_copy(update={"variants": tuple(made)})
    return Published(Subject("resnet50", "int8-cpu", 16), Path(), Path(), changed, Path(), "digest")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.setattr("tests.load.peers.subjects.absent_kinds", lambda setting: {})
    return published_in(
        ("fp32", "fp32", "fp32.onnx"),
        ("int8-cpu", "int8", "int8-cpu.onnx"),
        ("int8-openvino", "int8", "int8-cpu.onnx"),
        ("bf16-openvino", "bf16", "fp32.onnx"),
        ("other-openvino", "int8", "other.onnx"),
    )


def test_saccade_may_run_the_peers_file_in_its_precision_and_nothing_else(published: Published) -> None:
    assert [each.name for each in same_network(published)] == ["int8-cpu", "int8-openvino"]


def test_the_limit_is_that_of_the_fastest_runtime(published: Published) -> None:
    rates = {
        "int8-cpu": {"turns": 90.0, "overlapped": 80.0, "bare": 200.0},
        "int8-openvino": {"turns": 85.0, "overlapped": 100.0, "bare": 150.0},
    }

    row = limit_row(published, lambda variant: rates[variant.name])

    assert row == {"per_second": 100.0, "bare_per_second": 150.0, "served": "int8-openvino in openvino"}


def test_what_failed_stands_there_with_its_reason() -> None:
    text = markdown(RUN, NAMES, ["resnet50"])

    assert "- resnet50, ray, round 1, factor 0: it ended with 1: no memory" in text


def test_a_client_that_was_late_is_told() -> None:
    text = markdown(recorded(closed("saccade", 1, 100.0) | {"client_is_saturated": True}), NAMES, ["resnet50"])

    assert "In 1 of 1 rows the client itself was too busy" in text


def test_a_picture_is_drawn_from_a_recording_also_where_rows_are_missing(tmp_path: Path) -> None:
    for number, document in enumerate((RUN, recorded(closed("triton", 1, 90.0)))):
        file = tmp_path / f"{number}.png"
        draw(document, NAMES, ["resnet50"], file)
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


def test_summary_has_a_row_per_server_with_its_best_settings_at_overload() -> None:
    lines = summary(RUN, NAMES, ["resnet50"]).splitlines()
    assert lines[0] == (
        "| server | resnet50: requests/s (saccade / this) | at 2 times that: in time, p99 ms, refused within ms |"
    )
    assert lines[2:] == [
        "| no server: decode, resize, run | 150 (0.80) | - |",
        "| saccade | 120 (1.00) | 0.90, 100, - |",
        "| Triton | 100 (1.20) | 0.30, 100, 670 |",
    ]
