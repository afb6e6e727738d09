"""Dashboard and alerts speak of metrics, labels and values that exist, in PromQL that parses, and leave none out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from saccade.service.core import Outcome, VersionState
from saccade.service.ipc.messages import Catalog, DeviceStatus, EngineStatus, ModelStatus, ProcessUse, VersionStatus
from saccade.service.metrics import (
    DECODERS,
    MULTIPROCESS_DIR,
    SHADOW_OUTCOMES,
    SHED_REASONS,
    STAGES,
    TRACE_OUTCOMES,
    Metrics,
    ShadowMetrics,
    VersionMetrics,
)

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "k8s/monitoring"
ENGINE = EngineStatus("cuda:0", "fp16", "building", "measuring", 0.5)
DASHBOARD = MONITORING / "grafana/dashboards/saccade.json"
ALERTS = MONITORING / "alerts.yml"
VALUES_BY_LABEL = {
    "outcome": {*(outcome.value for outcome in Outcome), *SHADOW_OUTCOMES, *TRACE_OUTCOMES},
    "state": {*(state.value for state in VersionState), "waiting", "missing"},  # of versions and of plans
    "reason": set(SHED_REASONS),
    "stage": set(STAGES),
    "decoder": set(DECODERS),
}
ADDED_BY_PROMETHEUS = {"instance", "job"}
_METRIC = re.compile(r"\bsaccade_\w+")
_SELECTOR = re.compile(r"(saccade_\w+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|group_left|without) \(([^)]*)\)")
_SUFFIXES = re.compile(r"_(?:total|bucket|count|sum)$")


@pytest.fixture(scope="module")
def labels_by_sample() -> dict[str, set[str]]:
    """Every sample the server exposes, with its labels: from its own exposition, one of each metric touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(MULTIPROCESS_DIR, raising=False)
        metrics = Metrics(CollectorRegistry())
        VersionMetrics(metrics, "m", "1")
        metrics.batch_size.labels("m", "1")
        metrics.queue_depth.labels("m")
        metrics.queue_wait_estimate_seconds.labels("m")
        metrics.slo_headroom_ratio.labels("m")
        metrics.shed_total.labels("m", "slots")
        ShadowMetrics(metrics, "m", 1, 2)
        metrics.answers_by_variant_total.labels("m", "1", "fp32")
        metrics.unfamiliar_ratio.labels("m", "1")
        metrics.brownout_rung.labels("m")
        metrics.count_traces(1, 1)
        metrics.processes = (ProcessUse("api", 1.0, 1, 1),)
        snapshot = Catalog(
            1,
            (DeviceStatus("cpu", True, 0, ""),),
            (VersionStatus("m", 1, "", "d", "ready", "", "fp32", engines=(ENGINE,), on_demand=True, load_seconds=1.0),),
            False,
            models=(ModelStatus("m", 1),),
        )
        text = metrics.exposition(lambda: snapshot).decode()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        if panel["type"] != "row":
            yield panel


def dashboard_expressions() -> dict[str, str]:
    return {
        f"{panel['title']} {target['refId']} ({panel['id']})": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }


def rules() -> list[dict[str, Any]]:
    """The alerts, and what they compare."""
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def expressions() -> dict[str, str]:
    return {**dashboard_expressions(), **{rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}}


def promtool(*arguments: str) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus); PromQL was only read, not parsed")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("expression", expressions().values(), ids=expressions().keys())
def test_expression_names_metrics_labels_and_values_that_exist(
    expression: str, labels_by_sample: dict[str, set[str]]
) -> None:
    known_labels = set().union(*labels_by_sample.values()) | ADDED_BY_PROMETHEUS

    assert set(_METRIC.findall(expression)) <= set(labels_by_sample)
    for metric, matchers in _SELECTOR.findall(expression):
        for label, values in _MATCHER.findall(matchers):
            assert label in labels_by_sample[metric] | ADDED_BY_PROMETHEUS
            if label in VALUES_BY_LABEL:
                assert set(values.split("|")) <= VALUES_BY_LABEL[label]
    for grouping in _GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= known_labels


def test_every_metric_is_on_the_dashboard(labels_by_sample: dict[str, set[str]]) -> None:
    shown = {name for expression in dashboard_expressions().values() for name in _METRIC.findall(expression)}
    families = {_SUFFIXES.sub("", name) for name in labels_by_sample}

    assert families - {_SUFFIXES.sub("", name) for name in shown} == set()


def test_every_quantile_keeps_the_buckets_apart() -> None:
    quantiles = [text for text in expressions().values() if "histogram_quantile" in text]

    assert quantiles
    assert all(re.search(r"by \([^)]*\ble\b", text) for text in quantiles)


def test_dashboard_fits_grafanas_grid_and_says_what_it_shows() -> None:
    cells: set[tuple[int, int]] = set()
    identifiers = [panel["id"] for panel in panels()]
    for panel in panels():
        place = panel["gridPos"]
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert panel["description"]
        assert not taken & cells, f"{panel['title']} lies on another panel"
        cells |= taken
    assert len(identifiers) == len(set(identifiers))


def test_dashboard_asks_the_provisioned_data_source() -> None:
    provisioning = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    (source,) = provisioning["datasources"]

    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    assert {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]} == {source["uid"]}


def test_rate_interval_follows_from_the_scrape_interval() -> None:
    provisioning = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    prometheus = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))

    assert provisioning["datasources"][0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_alert_has_a_severity_a_summary_and_tests_in_which_it_fires_and_stays_quiet(rule: dict[str, Any]) -> None:
    cases = yaml.safe_load((ROOT / "tests/ship/alerts_test.yml").read_text("utf-8"))["tests"]
    seen = {(check["alertname"], bool(check["exp_alerts"])) for case in cases for check in case["alert_rule_test"]}

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert seen >= {(rule["alert"], True), (rule["alert"], False)}


def test_every_ratio_that_an_alert_compares_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for rule in alerts() for name in re.findall(r"\bsaccade:[\w:]+", rule["expr"])}

    assert named == recorded


def test_prometheus_accepts_its_configuration_and_the_alerts() -> None:
    promtool("check", "config", str(MONITORING / "prometheus.yml"))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(ROOT / "tests/ship/alerts_test.yml"))


def test_dashboard_expressions_parse(tmp_path: Path) -> None:
    """promtool knows rules, so each expression is made one; Grafana's variables get values."""
    recorded = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "1m").replace("$model", ".*")}
        for number, text in enumerate(dashboard_expressions().values())
    ]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}), "utf-8")

    assert f"{len(recorded)} rules found" in promtool("check", "rules", str(path))
