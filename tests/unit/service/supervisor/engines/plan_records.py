"""Manifests and stored plans for tests of engines."""

from __future__ import annotations

from typing import Any

from saccade.models.contract.manifest import GateCheck, GateDecision, LatencyFigure, Manifest, MeasuredDevice, Variant
from saccade.models.contract.plans import PlanKey, PlanRecord
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.supervisor.engines.candidates import plan_key_for
from saccade.service.supervisor.engines.plan_decision import Serving, StoredRecord
from tests.support.versions import manifest_for

H200 = DeviceFacts("NVIDIA H200", "SM90", "tensorrt", "11.4.0.12", "13.0", 150_000_000_000)
BARE = DeviceFacts("NVIDIA H200", "SM90", onnxruntime_version="1.31.1")  # no TensorRT beside ONNX Runtime
PASSED = GateDecision(
    accepted=True,
    checks=(GateCheck(name="device_latency", passed=True, value=1.0, limit=None, detail="made up"),),
)
WAITING = GateDecision(
    accepted=False,
    checks=(GateCheck(name="plan_precision", passed=False, pending=True, value=None, limit=None, detail=""),),
)
DENIED = GateDecision(
    accepted=False, checks=(GateCheck(name="device_metric", passed=False, value=0.1, limit=0.005, detail=""),)
)


def variant(name: str, target: str, gate: GateDecision, **changes: Any) -> Variant:
    base = manifest_for("digits", 1).variants[0]
    return base.model_copy(update={"name": name, "target": target, "gate": gate, "latency": (), **changes})


MANIFEST = manifest_for("digits", 1).model_copy(
    update={
        "variants": (
            variant("fp32", "any", PASSED),
            variant("int8-cpu", "cpu", PASSED, precision="int8"),
            variant("int8-trt", "trt", WAITING, precision="int8"),
            variant("fp16", "gpu", WAITING, precision="fp16"),
            variant("int8-trt-sparse24", "trt", WAITING, precision="int8", sparsity="two_four"),
        )
    }
)


def key(name: str, manifest: Manifest = MANIFEST, facts: DeviceFacts = H200) -> PlanKey:
    found = manifest.variant(name)
    assert found is not None
    return plan_key_for(manifest, found, "tensorrt" if facts.tensorrt else "onnxruntime", facts)


def stored(name: str, gate: GateDecision | None, images_per_s: float = 1.0, of: PlanKey | None = None) -> StoredRecord:
    record = PlanRecord(
        model="digits",
        version=1,
        variant=name,
        key=of or key(name),
        plan_sha256="a" * 64,
        plan_bytes=10,
        created="2026-11-25T00:00:00Z",
        build_seconds=1.0,
        layers=3,
        dtypes={"half": 3},
        gate=gate,
        measured_on=MeasuredDevice(kind="cuda", name="NVIDIA H200", threads=1),
        latency=(LatencyFigure(batch_size=1, p50_ms=1, p90_ms=1, p99_ms=1, images_per_s=images_per_s),),
    )
    return StoredRecord(record, f"/engines/{name}")


FLOAT = Serving("fp32", "onnxruntime", file_bytes=len(b"weights"))


def planned(name: str, images_per_s: float = 1.0) -> Serving:
    """How the plan that `stored` makes serves."""
    return Serving(name, "tensorrt", f"/engines/{name}", "a" * 64, 10, images_per_s)
