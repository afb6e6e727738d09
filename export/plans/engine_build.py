"""`python -m saccade.export.plans.engine_build` builds, measures and judges one plan, and reports one outcome.

The process is a child of the server: the order comes on stdin, progress and the outcome go to stdout (both are defined
in `service/supervisor/engines/build_wire.py`), all other output goes to stderr. Neither torch nor a recipe is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from saccade.export.errors import ExportError
from saccade.export.gate.decision import denial_text
from saccade.export.gate.device_probe import TensorRtProbe, told_progress
from saccade.export.gate.device_seam import DeviceProbe
from saccade.export.gate.onnxruntime_probe import gpu_probe
from saccade.export.gate.plan_gate import plan_verdict, settled_record
from saccade.models.contract.plans import PlanKey, differences
from saccade.service.errors import SaccadeError
from saccade.service.repository.build_marks import MarkedBuild
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import VerifiedVersion, verify_version
from saccade.service.supervisor.engines.build_wire import (
    BuildLine,
    BuildOrder,
    BuildOutcome,
    BuildProgress,
    BuildStage,
    line_bytes,
    order_from,
)

DONE, FAILED = 0, 1
Say = Callable[[BuildLine], None]


class StoredPlanProbe(DeviceProbe, Protocol):
    """A device whose plans come from a store; missing ones are built and stored."""

    @property
    def layers(self) -> Mapping[str, bytes]:
        """The inspector's layer information of the plans opened so far, by variant."""

    def key_of(self, variant: str) -> PlanKey:
        """Returns the key of a plan of this variant that serves here. Raises ExportError."""

    def ensure(self, variant: str, *, anew: bool = False) -> StoredPlan:
        """Returns the plan of a variant, and builds it when the store has none. Raises ExportError or SaccadeError."""


OpenProbe = Callable[[PlanKey, VerifiedVersion, PlanStore, Say], StoredPlanProbe]


def main() -> None:
    """Runs one build. Other code's output to stdout goes to stderr from here on."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # TensorRT's libraries print to stdout, too
    sys.exit(run(sys.stdin.buffer, lines, open_device))


def run(given: BinaryIO, lines: BinaryIO, open_probe: OpenProbe) -> int:
    """Reads one order, writes its lines, and returns the exit code."""

    def say(line: BuildLine) -> None:
        lines.write(line_bytes(line))

    outcome = build(order_from(given.read()), open_probe, say)
    say(outcome)
    return DONE if outcome.accepted else FAILED


def open_device(key: PlanKey, version: VerifiedVersion, store: PlanStore, say: Say) -> StoredPlanProbe:
    """Opens the GPU at hand with the runtime of the key. Raises DeviceMissing."""
    if key.runtime == "onnxruntime":
        return gpu_probe(version, store)
    return TensorRtProbe(version, store, told_progress(lambda share: say(BuildProgress(BuildStage.BUILDING, share))))


def build(order: BuildOrder, open_probe: OpenProbe, say: Say) -> BuildOutcome:
    """Carries out one order; every failure that has a name becomes its outcome."""
    try:
        return _build(order, open_probe, say)
    except (ExportError, SaccadeError) as error:
        return _failed(str(error))


def _build(order: BuildOrder, open_probe: OpenProbe, say: Say) -> BuildOutcome:
    say(BuildProgress(BuildStage.READING, 0.0))
    version = verify_version(Path(order.version_dir))
    if version.manifest_sha256 != order.manifest_sha256:
        return _failed("the manifest changed after the server verified it; publish a new version instead")
    key_file = Path(order.engines_key_file) if order.engines_key_file else None
    store = PlanStore(Path(order.engines_dir), engines_secret(key_file) if key_file else None)
    manifest = version.manifest
    with MarkedBuild(store.root, manifest.model, manifest.version, order.variant, order.key).shown() as mark:

        def tell(line: BuildLine) -> None:
            if isinstance(line, BuildProgress):
                mark.tell(line.stage.value, line.share)
            say(line)

        return _built_and_judged(order, version, store, open_probe(order.key, version, store, tell), tell)


def _built_and_judged(
    order: BuildOrder, version: VerifiedVersion, store: PlanStore, probe: StoredPlanProbe, say: Say
) -> BuildOutcome:
    unlike = differences(order.key, probe.key_of(order.variant))
    if unlike:
        return _failed(f"this machine makes another plan than the server asked for: {'; '.join(unlike)}")
    plan = probe.ensure(order.variant, anew=order.anew)
    if plan.record.gate is not None and plan.record.gate.accepted:
        return BuildOutcome(accepted=True, denied=False, reason="", plan_dir=str(plan.directory))
    say(BuildProgress(BuildStage.MEASURING, 0.0))
    figures, gate = plan_verdict(version.path, version.manifest, order.variant, probe)
    if figures.is_recorded:
        return _failed("these figures were replayed from a recording: they settle nothing")
    say(BuildProgress(BuildStage.STORING, 0.0))
    store.update_record(plan, settled_record(plan.record, figures, gate), probe.layers.get(order.variant))
    if not gate.accepted:
        return BuildOutcome(accepted=False, denied=True, reason=denial_text(order.variant, gate))
    return BuildOutcome(accepted=True, denied=False, reason="", plan_dir=str(plan.directory))


def _failed(reason: str) -> BuildOutcome:
    return BuildOutcome(accepted=False, denied=False, reason=reason)


if __name__ == "__main__":
    main()
