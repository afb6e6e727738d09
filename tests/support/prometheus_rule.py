"""Writes the alerts as a PrometheusRule of Prometheus Operator: `python -m tests.support.prometheus_rule`."""

from __future__ import annotations

import textwrap
from pathlib import Path

_K8S = Path(__file__).resolve().parents[2] / "k8s"
ALERTS = _K8S / "monitoring/alerts.yml"
RULE = _K8S / "components/monitoring/prometheus-rule.yaml"
_HEAD = """\
# Written by `make docs` from k8s/monitoring/alerts.yml; edit that instead.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: saccade
  labels:
    app.kubernetes.io/name: saccade
spec:
"""


def prometheus_rule() -> str:
    """The resource whose groups are those of the alerts, with their comments."""
    alerts = ALERTS.read_text("utf-8")
    return _HEAD + textwrap.indent(alerts[alerts.index("groups:") :], "  ")


if __name__ == "__main__":
    RULE.write_text(prometheus_rule(), "utf-8")
