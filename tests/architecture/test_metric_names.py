"""Every metric is ours by prefix, says its unit, and carries only labels from small fixed sets."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from saccade.service.ipc.messages import Catalog, DeviceStatus, EngineStatus, ModelStatus, ProcessUse, VersionStatus
from saccade.service.metrics import MULTIPROCESS_DIR, Metrics

UNITS = ("_seconds", "_bytes", "_ratio", "_total")
# Counts of things and claims about things have no unit; each is named here on purpose.
WITHOUT_UNIT = {
    "saccade_batch_size": "images",
    "saccade_queue_depth": "images",
    "saccade_slots_in_use": "slots",
    "saccade_worker_up": "yes or no",
    "saccade_engine_state": "yes or no",
    "saccade_model_state": "one of a set",
    "saccade_model_info": "labels only",
    "saccade_model_on_demand": "yes or no",
    "saccade_brownout_rung": "place in a ladder",
    "saccade_serving_generation": "a number that counts changes",
    "saccade_serving_refused": "yes or no",
    "saccade_build_info": "labels only",
    "saccade_process_open_fds": "descriptors",
}
LABELS = {
    "model",
    "version",
    "outcome",
    "stage",
    "decoder",
    "reason",
    "device",
    "state",
    "variant",
    "digest",
    "label",
    "stable",
    "candidate",
    "process",
    "python",
}
ENGINE = EngineStatus("cuda:0", "fp16", "building", "measuring", 0.5)
SNAPSHOT = Catalog(
    1,
    (DeviceStatus("cpu", True, 0, ""),),
    (VersionStatus("m", 1, "", "d", "ready", "", "fp32", engines=(ENGINE,), on_demand=True, load_seconds=1.5),),
    False,
    models=(ModelStatus("m", 3),),
)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    made = Metrics(CollectorRegistry())
    made.processes = (ProcessUse("api", 1.0, 1, 1),)
    return made


def declared(metrics: Metrics) -> dict[str, MetricWrapperBase]:
    return {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}


def full_name(metric: Metric) -> str:
    return metric.name + ("_total" if metric.type == "counter" else "")


def names(metrics: Metrics) -> set[str]:
    """As scraped, by the exposition's own type lines."""
    text = metrics.exposition(lambda: SNAPSHOT).decode()
    return {name for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE) if not name.endswith("_created")}


def test_every_metric_has_our_prefix_and_a_unit(metrics: Metrics) -> None:
    found = names(metrics)

    assert all(name.startswith("saccade_") for name in found)
    assert {name for name in found if not name.endswith(UNITS)} == set(WITHOUT_UNIT)


def test_attribute_names_are_the_metric_names(metrics: Metrics) -> None:
    for attribute, metric in declared(metrics).items():
        (family,) = metric.describe()
        assert full_name(family) == f"saccade_{attribute}"


def test_labels_come_from_a_fixed_set(metrics: Metrics) -> None:
    text = metrics.exposition(lambda: SNAPSHOT).decode()
    declared_labels = {label for metric in declared(metrics).values() for label in metric._labelnames}

    assert declared_labels <= LABELS
    assert set(re.findall(r"[{,](\w+)=", text)) - {"le"} <= LABELS


def test_durations_are_resolved_from_half_a_millisecond_to_ten_seconds(metrics: Metrics) -> None:
    metrics.request_duration_seconds.labels("m", "1").observe(0.1)
    text = metrics.exposition(lambda: SNAPSHOT).decode()

    bounds = [float(bound) for bound in re.findall(r'saccade_request_duration_seconds_bucket{le="([^"]+)"', text)]
    assert (bounds[0], bounds[-2]) == (0.0005, 10.0)
    assert bounds == sorted(bounds)
