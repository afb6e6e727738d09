"""`python -m export.engine_build`: builds, measures and judges one plan for the server. Promises: exactly one outcome.

It is a child of the server: the order comes on stdin, progress and the outcome go to stdout (`service/engines/
build_wire.py`), everything else that prints goes to stderr. Neither torch nor a recipe is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from export.errors import ExportError
from export.gate.decision import denial_text
from export.gate.device_seam import DeviceProbe
from export.gate.plan_gate import plan_verdict
from models.manifest import Manifest, ManifestError, read_manifest
from models.plans import PlanKey, differences
from service.engines.build_wire import (
    BuildLine,
    BuildOrder,
    BuildOutcome,
    BuildProgress,
    BuildStage,
    line_bytes,
    order_from,
)
from service.errors import SaccadeError
from service.repository.plans import PlanStore, StoredPlan

Say = Callable[[BuildLine], None]


class StoredPlanProbe(DeviceProbe, Protocol):
    """A device whose plans come from a store, and go there when they were missing."""

    def key_of(self, variant: str) -> PlanKey:
        """What a plan of this variant must be made from to serve here. Raises ExportError or SaccadeError."""

    def ensure(self, variant: str, *, anew: bool = False) -> StoredPlan:
        """The plan of a variant, built when the store has none. Raises ExportError or SaccadeError."""


OpenProbe = Callable[[Path, Manifest, PlanStore, Say], StoredPlanProbe]


def build(order: BuildOrder, store: PlanStore, open_probe: OpenProbe, say: Say) -> BuildOutcome:
    """One order's outcome; every failure that has a name is one."""
    try:
        return _build(order, store, open_probe, say)
    except (ExportError, SaccadeError, ManifestError) as error:
        return BuildOutcome(accepted=False, denied=False, reason=str(error))


def _build(order: BuildOrder, store: PlanStore, open_probe: OpenProbe, say: Say) -> BuildOutcome:
    version_dir = Path(order.version_dir)
    say(BuildProgress(BuildStage.READING, 0.0))
    manifest, found = read_manifest(version_dir)
    if found != order.manifest_sha256:
        return _failed("the manifest changed after the server verified it; publish a new version instead")
    probe = open_probe(version_dir, manifest, store, say)
    unlike = differences(order.key, probe.key_of(order.variant))
    if unlike:
        return _failed(f"this machine makes another plan than the server asked for: {'; '.join(unlike)}")
    plan = probe.ensure(order.variant, anew=order.anew)
    if plan.record.gate is not None and plan.record.gate.accepted and not order.anew:
        return BuildOutcome(accepted=True, denied=False, reason="", plan_dir=str(plan.directory))
    say(BuildProgress(BuildStage.MEASURING, 0.0))
    figures, gate = plan_verdict(version_dir, manifest, order.variant, probe)
    say(BuildProgress(BuildStage.STORING, 0.0))
    if figures.is_recorded:
        return _failed("these figures were replayed from a recording: they settle nothing")
    memory_bytes = round((figures.memory_mb or 0.0) * 1e6)
    changes = {
        "gate": gate,
        "measured_on": figures.device,
        "latency": figures.latency,
        "device_memory_bytes": memory_bytes,
    }
    store.update_record(plan, plan.record.model_copy(update=changes))
    if not gate.accepted:
        return BuildOutcome(accepted=False, denied=True, reason=denial_text(order.variant, gate))
    return BuildOutcome(accepted=True, denied=False, reason="", plan_dir=str(plan.directory))


def _failed(reason: str) -> BuildOutcome:
    return BuildOutcome(accepted=False, denied=False, reason=reason)
