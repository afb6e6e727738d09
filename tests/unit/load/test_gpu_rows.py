"""A report that grows over several calls."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.load.gpu_rows import OUT_OF_TIME, Budget, Place, ReportRefused, Rows

PLACE = Place("bare", "resnet50-224", "fp16", "tensorrt direct", 64)
OTHER = Place("bare", "resnet50-224", "fp16", "tensorrt direct", 128)


def rows(file: Path) -> Rows:
    return Rows(file, "gpu", {"device": "NVIDIA H200"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "report-gpu.json"


def test_next_call_leaves_alone_what_was_measured(file: Path) -> None:
    rows(file).add(PLACE, {"images_per_s": 20_000.0})

    later = rows(file)

    assert later.is_settled(PLACE)
    assert later.find(PLACE) is not None
    assert not later.is_settled(OTHER)


def test_figures_name_the_call_that_they_come_from(file: Path) -> None:
    rows(file).add(PLACE, {"images_per_s": 1.0})
    rows(file).add(OTHER, {"images_per_s": 2.0})

    document = orjson.loads(file.read_bytes())
    assert [document["rows"][place.key]["call"] for place in (PLACE, OTHER)] == [0, 1]
    assert len(document["calls"]) == 2


def test_what_was_not_run_is_tried_again_and_is_no_figure(file: Path) -> None:
    rows(file).not_run(PLACE, OUT_OF_TIME)

    later = rows(file)

    assert not later.is_settled(PLACE)
    assert later.find(PLACE) is None


def test_failure_stays_until_a_call_asks_for_another_try(file: Path) -> None:
    rows(file).failed(PLACE, "DeviceLost: illegal address")

    assert rows(file).is_settled(PLACE)
    assert not rows(file).is_settled(PLACE, retry_failed=True)


def test_case_that_killed_the_process_is_passed_by_the_next_call(file: Path) -> None:
    rows(file).begin(PLACE)  # and the process is gone

    later = rows(file)

    assert later.is_settled(PLACE)
    assert "ended in the middle" in later.document["rows"][PLACE.key]["failed"]


def test_self_check_never_writes_into_a_report_of_a_gpu(file: Path) -> None:
    rows(file)

    with pytest.raises(ReportRefused, match="kind 'gpu'"):
        Rows(file, "cpu self-check", {})


def test_budget_is_what_is_left_of_a_call() -> None:
    now = [100.0]
    budget = Budget(60.0, lambda: now[0])

    now[0] += 45.0

    assert budget.left_s() == 15.0
