"""Names, kinds and labels of all metrics: what dashboards and alerts hold on to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from saccade.service.core import Outcome
from saccade.service.ipc.messages import Catalog, DeviceStatus, EngineStatus, ProcessUse, VersionStatus
from saccade.service.metrics import DECODERS, MULTIPROCESS_DIR, SHED_REASONS, STAGES, Metrics, VersionMetrics

ENGINE = EngineStatus("cuda:0", "fp16", "building", "measuring", 0.5, "SM90-tensorrt-11.4.0.12-0a1b2c3d")
SNAPSHOT = Catalog(
    1,
    (DeviceStatus("cpu", True, 0, ""),),
    (
        VersionStatus(
            "digits", 1, "", "d" * 64, "ready", "", "fp32", engines=(ENGINE,), on_demand=True, load_seconds=1.5
        ),
    ),
    False,
)


def test_metrics_are_as_stored(check_golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    metrics = Metrics(CollectorRegistry())
    VersionMetrics(metrics, "digits", "1")
    metrics.batch_size.labels("digits", "1")
    metrics.queue_depth.labels("digits")
    metrics.queue_wait_estimate_seconds.labels("digits")
    metrics.shed_total.labels("digits", "slots")
    metrics.answers_by_variant_total.labels("digits", "1", "fp32")
    metrics.unfamiliar_ratio.labels("digits", "1")
    metrics.brownout_rung.labels("digits")
    metrics.count_traces(1, 1)
    metrics.processes = (ProcessUse("api", 1.0, 1, 1),)
    lines = []
    for family in text_string_to_metric_families(metrics.exposition(lambda: SNAPSHOT).decode()):
        samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        if not samples:  # when a counter was made; a family of its own in this format
            continue
        labels = sorted({label for sample in samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"{name}{{{','.join(labels)}}} {family.type}: {family.documentation}")
    fixed = {
        "outcome": ", ".join(outcome.value for outcome in Outcome),
        "stage": ", ".join(STAGES),
        "decoder": ", ".join(DECODERS),
        "reason": ", ".join(SHED_REASONS),
    }
    lines = [*sorted(lines), *(f"{label}: {values}" for label, values in fixed.items())]
    check_golden("metrics.txt", "\n".join(lines) + "\n")
