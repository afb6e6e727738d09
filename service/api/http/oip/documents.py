"""What the protocol says of server and models. Promises: pure; only what works is advertised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from saccade.models.contract.extras import ExtraOutput
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.specs import TensorSpec
from saccade.service import __version__
from saccade.service.api.http.oip.tensors import DATATYPES
from saccade.service.core import VersionState
from saccade.service.ipc.messages import Catalog, VersionStatus

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_INDEX_STATES = {
    VersionState.READY: "READY",
    VersionState.LOADING: "LOADING",
    VersionState.WARMING: "LOADING",
    VersionState.BUILDING: "LOADING",
    VersionState.UNLOADING: "UNLOADING",
    VersionState.FAILED: "UNAVAILABLE",
    VersionState.QUARANTINED: "UNAVAILABLE",
}
_NS = 1_000_000_000
# The protocol's name of a duration, and our stage.
_STAGES = {
    "queue": "queue",
    "compute_input": "decode",
    "compute_infer": "infer",
    "compute_output": "postprocess",
}
Figures = Mapping[tuple[str, ...], float]  # by sample name and label values


def server_document() -> dict[str, Any]:
    return {"name": "saccade", "version": __version__, "extensions": list(EXTENSIONS)}


def model_document(
    model: str, versions: list[str], backend: str, manifest: Manifest, extras: tuple[ExtraOutput, ...]
) -> dict[str, Any]:
    """Metadata. Shapes have the batch before them: -1."""
    return {
        "name": model,
        "versions": versions,
        "platform": backend,
        "inputs": [_tensor(manifest.input)],
        "outputs": [_tensor(spec) for spec in (*manifest.answer, *(extra.output for extra in extras))],
    }


def config_document(model: str, backend: str, manifest: Manifest, max_batch: int) -> dict[str, Any]:
    """Configuration, as far as clients read it."""
    return {
        "name": model,
        "platform": backend,
        "backend": backend,
        "max_batch_size": max_batch,
        "input": [{**_configured(manifest.input), "format": "FORMAT_NHWC"}],
        "output": [_configured(spec) for spec in manifest.answer],
        "dynamic_batching": {"preferred_batch_size": list(manifest.allowed_batch_sizes)},
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": [-1, *_dims(spec)]}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{DATATYPES[spec.dtype]}", "dims": _dims(spec)}


def _dims(spec: TensorSpec) -> list[int]:
    return list(spec.shape) or [1]  # one number per image


def index_document(catalog: Catalog, only_ready: bool) -> list[dict[str, str]]:
    return [
        {
            "name": status.model,
            "version": str(status.version),
            "state": _INDEX_STATES[VersionState(status.state)],
            "reason": status.reason,
        }
        for status in catalog.versions
        if status.state == VersionState.READY or not only_ready
    ]


def figures_of(metrics: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    """Sums over processes, by sample name, model, version, and one label more where there is one."""
    found: dict[tuple[str, ...], float] = {}
    for metric in metrics:
        for sample in metric.samples:
            labels = sample.labels
            if "model" not in labels or "version" not in labels or "le" in labels:
                continue
            more = [value for name, value in labels.items() if name not in ("model", "version")]
            key = (sample.name, labels["model"], labels["version"], *more)
            found[key] = found.get(key, 0.0) + sample.value
    return found


def statistics_document(versions: Iterable[VersionStatus], figures: Figures) -> dict[str, Any]:
    return {"model_stats": [_statistics(status.model, str(status.version), figures) for status in versions]}


def _statistics(model: str, version: str, figures: Figures) -> dict[str, Any]:
    def figure(name: str, *labels: str) -> float:
        return figures.get((f"saccade_{name}", model, version, *labels), 0.0)

    def duration(count: float, seconds: float) -> dict[str, int]:
        return {"count": int(count), "ns": int(seconds * _NS)}

    stages = {
        name: duration(figure("stage_duration_seconds_count", stage), figure("stage_duration_seconds_sum", stage))
        for name, stage in _STAGES.items()
    }
    refused = sum(
        value
        for (name, of_model, of_version, *labels), value in figures.items()
        if (name, of_model, of_version) == ("saccade_requests_total", model, version) and labels != ["ok"]
    )
    nothing = duration(0, 0.0)
    return {
        "name": model,
        "version": version,
        "inference_count": stages["compute_infer"]["count"],
        "execution_count": int(figure("batch_size_count")),
        "inference_stats": {
            "success": duration(figure("request_duration_seconds_count"), figure("request_duration_seconds_sum")),
            "fail": duration(refused, 0.0),
            **stages,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [],
    }
