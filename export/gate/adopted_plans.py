"""Copies the plans that a device measured to the new version, with the same bytes and the device's verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from saccade.export.gate.on_device import Settled
from saccade.export.gate.plan_gate import settled_record
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.plans import PlanKey
from saccade.service.repository.plans import PlanStore


def adopt_plans(
    settled: Settled, made: Path, manifest: Manifest, store: PlanStore, key_of: Callable[[str], PlanKey]
) -> Iterator[str]:
    """Copies the settled variants' plans to the new version and yields their names.

    The new version has the old version's files, so the plan keys are equal and a server finds these plans built.
    """
    for report in settled.report.variants:
        name, figures = report.qualify.variant, report.qualify.device
        if name not in settled.variants or figures is None or not report.gate.accepted:
            continue
        found = store.find(manifest.model, manifest.version, name, key_of(name))
        if found is None:
            continue
        record = settled_record(found.record, figures, report.gate).model_copy(update={"version": int(made.name)})
        store.put(record, store.read_plan(found), store.read_layers(found), replace=True)
        yield name
