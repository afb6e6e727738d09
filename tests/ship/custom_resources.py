"""The fields of other projects' resources that k8s/ uses, with their types. Promises: any other field is an error.

Written by hand, since a cluster's own definitions are not at hand in tests. On 2026-11-29 all of k8s/ was held,
strictly, against the definitions of KEDA, Argo Rollouts, Gateway API, Prometheus Operator and KServe of August 2026.
"""

from __future__ import annotations

from typing import Any

from tests.ship.kustomize import Resource

_TARGET = {"apiVersion": str, "kind": str, "name": str}
_POLICIES = {
    "stabilizationWindowSeconds": int,
    "policies": [{"type": str, "value": int, "periodSeconds": int}],
}
_SELECTOR = {"matchLabels": dict}
# A type, a dictionary of fields, a list of one of those; `dict` is an object of any fields.
_SPEC_BY_KIND: dict[tuple[str, str], dict[str, Any]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef": _TARGET,
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "triggers": [
            {
                "type": str,
                "metricType": str,
                "metadata": {"serverAddress": str, "query": str, "threshold": str},
            }
        ],
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleUp": _POLICIES, "scaleDown": _POLICIES}}},
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "jobLabel": str,
        "selector": _SELECTOR,
        "podTargetLabels": [str],
        "podMetricsEndpoints": [{"port": str, "path": str, "interval": str}],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups": [
            {
                "name": str,
                "rules": [{"alert": str, "record": str, "expr": str, "for": str, "labels": dict, "annotations": dict}],
            }
        ]
    },
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): {
        "parentRefs": [{"name": str, "namespace": str}],
        "hostnames": [str],
        "rules": [
            {
                "matches": [{"path": {"type": str, "value": str}}],
                "timeouts": {"request": str, "backendRequest": str},
                "backendRefs": [{"name": str, "port": int}],
            }
        ],
    },
    ("argoproj.io/v1alpha1", "Rollout"): {
        "revisionHistoryLimit": int,
        "progressDeadlineSeconds": int,
        "progressDeadlineAbort": bool,
        "minReadySeconds": int,
        "selector": _SELECTOR,
        "workloadRef": {**_TARGET, "scaleDown": str},
        "strategy": {
            "canary": {
                "stableService": str,
                "canaryService": str,
                "canaryMetadata": {"labels": dict},
                "trafficRouting": {"plugins": dict},
                "steps": [
                    {
                        "setWeight": int,
                        "pause": {"duration": str},
                        "analysis": {"templates": [{"templateName": str}]},
                    }
                ],
            }
        },
    },
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): {
        "metrics": [
            {
                "name": str,
                "interval": str,
                "count": int,
                "failureLimit": int,
                "inconclusiveLimit": int,
                "successCondition": str,
                "failureCondition": str,
                "provider": {"prometheus": {"address": str, "query": str}},
            }
        ]
    },
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): {
        "supportedModelFormats": [{"name": str, "version": str, "autoSelect": bool}],
        "protocolVersions": [str],
        "multiModel": bool,
        "annotations": dict,
        "containers": [dict],  # held against Kubernetes' own definition of a pod
        "volumes": [dict],
    },
}


def is_custom(resource: Resource) -> bool:
    return (resource["apiVersion"], resource["kind"]) in _SPEC_BY_KIND


def unknown_fields(resource: Resource) -> list[str]:
    """What the resource says beyond the fields known here, or with another type, as paths."""
    spec = _SPEC_BY_KIND[resource["apiVersion"], resource["kind"]]
    return [
        *_strange(resource["spec"], spec, "spec"),
        *sorted(set(resource) - {"apiVersion", "kind", "metadata", "spec"}),
    ]


def _strange(value: Any, shape: Any, path: str) -> list[str]:
    if isinstance(shape, type):
        return [] if type(value) is shape else [path]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [path]
        return [found for place, item in enumerate(value) for found in _strange(item, shape[0], f"{path}[{place}]")]
    if not isinstance(value, dict):
        return [path]
    return [
        found
        for name, item in value.items()
        for found in (_strange(item, shape[name], f"{path}.{name}") if name in shape else [f"{path}.{name}"])
    ]
