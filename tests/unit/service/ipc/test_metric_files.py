"""The files of a process's metrics: what prometheus-client reads in them, and what leaves them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.parser import text_string_to_metric_families

from saccade.service.core import Outcome
from saccade.service.ipc.metric_files import MetricFile
from saccade.service.metrics import MULTIPROCESS_DIR, Metrics, ShadowMetrics, VersionMetrics
from tests.unit.service.api.catalogs import catalog


@pytest.fixture(params=["files", "memory"])
def metrics(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    """With files as in a server, and without any as in a program."""
    if request.param == "files":
        monkeypatch.setenv(MULTIPROCESS_DIR, str(tmp_path))
    else:
        monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    before = values.ValueClass
    yield Metrics(CollectorRegistry())
    values.ValueClass = before
    for file in [each for each in gc.get_objects() if issubclass(type(each), MetricFile)]:  # no proxy is asked
        file.close()  # type: ignore[no-untyped-call]  # untyped upstream; a process's end closes them


def counted(metrics: Metrics, name: str) -> dict[str, float]:
    """Value by version, or by candidate."""
    text = metrics.exposition(catalog).decode()
    return {
        sample.labels.get("version", sample.labels.get("candidate", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.get("outcome", "ok") in ("ok", "compared")
    }


def test_series_of_versions_that_left_go_after_several_others_left(metrics: Metrics) -> None:
    stable = VersionMetrics(metrics, "digits", "1")
    stable.outcomes[Outcome.OK].inc()
    for number in range(2, 18):
        version = VersionMetrics(metrics, "digits", str(number))
        version.outcomes[Outcome.OK].inc()
        version.duration.observe(0.2)
        ShadowMetrics(metrics, "digits", 1, number).outcomes["compared"].inc()
        metrics.version_left("digits", str(number))
    stable.outcomes[Outcome.OK].inc()

    assert counted(metrics, "saccade_requests_total") == {"1": 2, **{str(number): 1 for number in range(10, 18)}}
    assert "2" not in counted(metrics, "saccade_request_duration_seconds_count")
    assert "3" not in counted(metrics, "saccade_shadows_total")
    assert counted(metrics, "saccade_shadows_total")["10"] == 1


def test_a_version_that_came_back_stays(metrics: Metrics) -> None:
    VersionMetrics(metrics, "digits", "1").outcomes[Outcome.OK].inc()
    metrics.version_left("digits", "1")
    again = VersionMetrics(metrics, "digits", "1")
    for number in range(2, 20):
        metrics.version_left("digits", str(number))
    again.outcomes[Outcome.OK].inc()

    assert counted(metrics, "saccade_requests_total") == {"1": 2}


def test_a_request_that_outlives_its_series_is_counted(metrics: Metrics) -> None:
    late = VersionMetrics(metrics, "digits", "1")
    for number in range(1, 17):
        metrics.version_left("digits", str(number))
    late.outcomes[Outcome.OK].inc()

    assert set(counted(metrics, "saccade_requests_total")) <= {"1"}
    VersionMetrics(metrics, "digits", "20").outcomes[Outcome.OK].inc()
    assert counted(metrics, "saccade_requests_total")["20"] == 1


def test_gauges_and_other_models_are_left_alone(metrics: Metrics) -> None:
    metrics.queue_depth.labels("digits").set(3)
    VersionMetrics(metrics, "letters", "1").outcomes[Outcome.OK].inc()
    for number in range(1, 17):
        VersionMetrics(metrics, "digits", str(number))
        metrics.version_left("digits", str(number))

    assert counted(metrics, "saccade_queue_depth") == {"": 3}
    assert counted(metrics, "saccade_requests_total")["1"] == 1
