"""Metrics: everything declared once, the supervisor's view rendered, states exclusive."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from saccade.service.core import Outcome
from saccade.service.ipc.messages import Catalog
from saccade.service.metrics import MULTIPROCESS_DIR, Metrics, VersionMetrics
from tests.unit.service.api.catalogs import catalog, status


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    return Metrics(CollectorRegistry())


def values(metrics: Metrics, snapshot: Catalog) -> dict[tuple[str, str], float]:
    """Value by sample name and its label values, in the order of the labels' names."""
    text = metrics.exposition(lambda: snapshot).decode()
    return {
        (sample.name, ",".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_outcomes_and_durations_are_counted_per_version(metrics: Metrics) -> None:
    version = VersionMetrics(metrics, "digits", "1")
    version.outcomes[Outcome.OK].inc()
    version.duration.observe(0.3)
    version.stages["queue"].observe(0.1)

    found = values(metrics, catalog())

    assert found["saccade_requests_total", "digits,ok,1"] == 1
    assert found["saccade_request_duration_seconds_sum", "digits,1"] == pytest.approx(0.3)
    assert found["saccade_stage_duration_seconds_count", "digits,queue,1"] == 1


def test_a_version_has_one_state_at_a_time(metrics: Metrics) -> None:
    found = values(metrics, catalog(status(1), status(2, "failed", reason="tampered")))

    states = {labels: value for (name, labels), value in found.items() if name == "saccade_model_state"}
    assert {labels for labels, value in states.items() if value == 1} == {"digits,ready,1", "digits,failed,2"}
    assert len(states) == 14


def test_worker_and_version_info_come_from_the_catalog(metrics: Metrics) -> None:
    found = values(metrics, catalog(status(1)))

    assert found["saccade_worker_up", "cpu"] == 1
    assert found["saccade_worker_restarts_total", "cpu"] == 0
    assert found["saccade_device_memory_bytes", "cpu"] == 0
    assert found["saccade_model_info", f"{'d' * 64},digits,fp32,1"] == 1
