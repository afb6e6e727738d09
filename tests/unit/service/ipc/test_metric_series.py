"""Series of a request: they count as prometheus-client's own do."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Histogram

from saccade.service.ipc.metric_series import CountSeries, TimeSeries

BUCKETS = (0.001, 0.01, 0.1)


def samples(metric: Counter | Histogram) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_seconds_fall_into_the_same_buckets() -> None:
    ours, theirs = (
        Histogram("waits_seconds", "waits", ("model",), buckets=BUCKETS, registry=CollectorRegistry()) for _ in range(2)
    )
    series = TimeSeries(ours.labels("digits"))
    for seconds in (0.0, 0.0005, 0.001, math.nextafter(0.001, 1), 0.05, 0.1, 0.2, 10.0):
        series.observe(seconds)
        theirs.labels("digits").observe(seconds)

    assert samples(ours) == samples(theirs)
    assert samples(ours)["waits_seconds_bucket", "0.001"] == 3


def test_counts_go_up_by_one() -> None:
    counter = Counter("requests_total", "requests", ("model",), registry=CollectorRegistry())
    series = CountSeries(counter.labels("digits"))
    series.inc()
    series.inc()

    assert samples(counter) == {("requests_total", ""): 2.0}
