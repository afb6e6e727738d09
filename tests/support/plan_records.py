"""Plan records for tests: real keys and digests, made-up figures."""

from __future__ import annotations

import hashlib
from typing import Any

from saccade.models.contract.plans import PlanKey, PlanRecord

PLAN = b"a serialized engine" * 100


def key(**changes: Any) -> PlanKey:
    document: dict[str, Any] = {
        "onnx_sha256": "a" * 64,
        "runtime": "tensorrt_rtx",
        "runtime_version": "1.7.1.116",
        "capabilities": ("SM89",),
        "allowed_batch_sizes": (1, 2, 4),
    }
    return PlanKey.model_validate(document | changes)


def record(plan: bytes = PLAN, **changes: Any) -> PlanRecord:
    """Of digits/1 int8-trt, unless said otherwise."""
    document: dict[str, Any] = {
        "model": "digits",
        "version": 1,
        "variant": "int8-trt",
        "key": key(),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "plan_bytes": len(plan),
        "created": "2026-01-01T00:00:00+00:00",
        "build_seconds": 1.5,
        "layers": 3,
        "dtypes": {"float": 2, "int8": 1},
    }
    return PlanRecord.model_validate(document | changes)
