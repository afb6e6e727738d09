"""The benchmark's own code from end to end, on a CPU and at toy size: every stage, a real server, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.load.gpu_bench import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report-cpu.json"
    assert main(["--device", "cpu", "--case-s", "0.05", "--report", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def rows(report: Path) -> list[dict[str, Any]]:
    document = orjson.loads(report.read_bytes())
    assert document["kind"] == "cpu self-check"
    return list(document["rows"].values())


def test_every_stage_that_a_cpu_has_was_measured(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if "failed" in row or "not_run" in row] == []
    assert {row["stage"] for row in rows} == {"bare", "paired", "limits", "served"}


def test_figures_are_whole(rows: list[dict[str, Any]]) -> None:
    (served,) = (row for row in rows if row["stage"] == "served")
    paired = [row for row in rows if row["stage"] == "paired"]

    assert served["per_second"] > 0
    assert served["jpegs_by"] == "image threads"
    assert served["first_ms"] > 0
    assert served["tenth_ms"] > 0
    assert served["share_of_smaller_limit"] > 0
    assert served["p99_ms"] <= served["objective_ms"]
    assert all(0 < row["ci_low"] <= row["ratio"] <= row["ci_high"] for row in paired)
    assert all(row["p50_ms"] <= row["p99_ms"] for row in rows if row["stage"] == "bare")


def test_report_says_that_these_are_no_figures_of_a_gpu_and_shows_plots(report: Path) -> None:
    text = report.with_suffix(".md").read_text()

    assert text.startswith("# Self-check on a CPU")
    plots = sorted(path.name for path in report.parent.glob("*.png"))
    assert plots == ["report-cpu-bare-tiny-32.png", "report-cpu-paired.png", "report-cpu-served.png"]
    assert all(name in text for name in plots)


def test_next_call_measures_nothing_twice(report: Path) -> None:
    before = orjson.loads(report.read_bytes())

    assert main(["--device", "cpu", "--only", "bare,paired", "--report", str(report)]) == 0

    after = orjson.loads(report.read_bytes())
    assert after["rows"] == before["rows"]
    assert len(after["calls"]) == len(before["calls"]) + 1


def test_self_check_does_not_write_where_figures_of_a_gpu_belong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--device", "cpu", "--report", str(tmp_path / "report-gpu.json")]) == 2

    assert "name another --report" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_report_of_a_machine_without_a_gpu_is_reasons_only(tmp_path: Path) -> None:
    from tests.support.gpu_machine import GPU, gpu_machine

    if gpu_machine().has(GPU):
        pytest.skip("there is a GPU")
    file = tmp_path / "report-gpu.json"

    assert main(["--report", str(file), "--work", str(tmp_path)]) == 0

    rows = orjson.loads(file.read_bytes())["rows"].values()
    assert len(rows) > 100
    assert all("gpu" in row["not_run"] for row in rows)
