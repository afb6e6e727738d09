"""What processes counted that have ended: nothing is lost, and the room that it takes does not grow."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.parser import text_string_to_metric_families

from saccade.service.core import Outcome
from saccade.service.ipc.metric_files import MetricFiles, locked
from saccade.service.metrics import MULTIPROCESS_DIR, Metrics, ShadowMetrics, VersionMetrics
from saccade.service.supervisor.ended_metrics import EndedMetrics
from tests.unit.service.api.catalogs import catalog, status

Process = Callable[[int], Metrics]


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """Makes the metrics of a process with this id, as it would be by itself."""
    monkeypatch.setenv(MULTIPROCESS_DIR, str(tmp_path))
    opened: list[MetricFiles] = []
    before = values.ValueClass

    def made(pid: int) -> Metrics:
        monkeypatch.setattr(os, "getpid", lambda: pid)
        metrics = Metrics(CollectorRegistry())
        opened.append(values.ValueClass.__self__)
        return metrics

    yield made
    values.ValueClass = before
    for file in [file for files in opened for file in files._files.values()]:
        file.close()


def raising(error: OSError) -> Callable[..., None]:
    def write(*given: object) -> None:
        raise error

    return write


def counted(metrics: Metrics, name: str) -> dict[str, float]:
    """Sum of successful requests, or of all that has no outcome, by version."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.exposition(catalog).decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels.get("outcome", "ok") in ("ok", "compared"):
                version = sample.labels.get("version", "")
                found[version] = found.get(version, 0.0) + sample.value
    return found


def test_what_ended_processes_counted_stays_in_one_file_per_kind(process: Process, tmp_path: Path) -> None:
    ended = EndedMetrics(tmp_path)
    ended.follow(catalog(status(1)))
    sizes = []
    for pid in range(1000, 1030):
        metrics = process(pid)
        version = VersionMetrics(metrics, "digits", "1")
        version.outcomes[Outcome.OK].inc()
        version.duration.observe(0.2)
        metrics.queue_depth.labels("digits").set(5)
        ended.ended(pid)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    alive = process(2000)
    VersionMetrics(alive, "digits", "1").outcomes[Outcome.OK].inc()

    assert counted(alive, "saccade_requests_total") == {"1": 31}
    assert counted(alive, "saccade_request_duration_seconds_count") == {"1": 30}
    assert counted(alive, "saccade_request_duration_seconds_bucket")["1"] == 30 * 8  # of 0.2 s and above
    assert counted(alive, "saccade_queue_depth") == {}
    assert sizes[-1] == sizes[0]
    assert not [path for path in tmp_path.iterdir() if "_10" in path.name]


def test_versions_that_left_leave_the_sums_too(process: Process, tmp_path: Path) -> None:
    """Each process ends with a version of its own, and with another that stays."""
    ended, sizes = EndedMetrics(tmp_path), []
    for number in range(2, 102):
        ended.follow(catalog(status(1), status(number)))
        metrics = process(number)
        for version in (1, number):
            VersionMetrics(metrics, "digits", str(version)).outcomes[Outcome.OK].inc()
        ShadowMetrics(metrics, "digits", 1, number).outcomes["compared"].inc()
        ended.ended(number)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    alive = process(2000)
    seen = counted(alive, "saccade_requests_total")

    assert seen["1"] == 100
    assert {"93", "101"} <= seen.keys()  # the eight that left last, and the one that is there
    assert len(seen) <= 1 + 1 + 15
    assert max(sizes[20:]) < 1.05 * max(sizes[:20])  # numbers of versions grow longer
    assert counted(alive, "saccade_shadows_total")[""] <= 16


def test_requests_to_no_version_stay_counted(process: Process, tmp_path: Path) -> None:
    ended = EndedMetrics(tmp_path)
    process(1000).requests_total.labels("digits", "", "not_found").inc(3)
    process(1000).shed_total.labels("digits", "slots").inc(2)
    ended.ended(1000)

    text = process(2000).exposition(catalog).decode()
    assert 'saccade_requests_total{model="digits",outcome="not_found",version=""} 3.0' in text
    assert 'saccade_shed_total{model="digits",reason="slots"} 2.0' in text


def test_a_scrape_sees_a_file_either_by_itself_or_in_the_sums(process: Process, tmp_path: Path) -> None:
    ended = EndedMetrics(tmp_path)
    ended.follow(catalog(status(1)))
    VersionMetrics(process(1000), "digits", "1").outcomes[Outcome.OK].inc()
    with locked(tmp_path):  # by a scrape
        ended.ended(1000)
        assert sorted(path.name for path in tmp_path.glob("counter_*")) == ["counter_1000.db"]
    ended.settle()

    assert sorted(path.name for path in tmp_path.glob("counter_*")) == ["counter_ended.db"]
    assert counted(process(2000), "saccade_requests_total") == {"1": 1}


def test_full_memory_leaves_the_files_until_there_is_room(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = EndedMetrics(tmp_path)
    ended.follow(catalog(status(1)))
    VersionMetrics(process(1000), "digits", "1").outcomes[Outcome.OK].inc()
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", raising(OSError(errno.ENOSPC, "No space left on device")))
        ended.ended(1000)
    assert counted(process(2000), "saccade_requests_total") == {"1": 1}
    ended.settle()

    assert sorted(path.name for path in tmp_path.glob("counter_*")) == ["counter_ended.db"]
    assert counted(process(2000), "saccade_requests_total") == {"1": 1}


@pytest.mark.parametrize("content", [b"", b"\x64\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\x00" + bytes(100)])
def test_a_file_that_was_only_begun_is_removed(process: Process, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "counter_1000.db").write_bytes(content)
    (tmp_path / "counter_1000.new").write_bytes(b"")
    EndedMetrics(tmp_path).ended(1000)

    assert counted(process(2000), "saccade_requests_total") == {}
    assert not [*tmp_path.glob("*_1000.*")]
