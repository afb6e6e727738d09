"""Decides what may be published: a pure function of report, thresholds and facts that returns one named check per line.

G0 bytes and limits are the measured and agreed ones · G1 parity · G2 2:4 masks · G3 effective precision · G4 gain by
sparsity · G5 agreement of answers · G6 the metric, its worst class and slice, corrupted images · G7 hostile inputs · G8
batches · G9 determinism · G10 speed and memory. The folder `checks/` implements them; a check whose device is missing
is pending.
"""

from __future__ import annotations

from saccade.export.gate.checks.answers import answer_checks
from saccade.export.gate.checks.corruptions import corruption_checks
from saccade.export.gate.checks.facts import GateFacts, Judged
from saccade.export.gate.checks.numbers import number_checks
from saccade.export.gate.checks.origin import origin_checks
from saccade.export.gate.checks.slices import slice_checks
from saccade.export.gate.checks.speed import speed_checks
from saccade.export.gate.checks.structure import structure_checks
from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.qualify_report import QualifyReport
from saccade.models.contract.manifest import GateDecision

_KINDS = (origin_checks, number_checks, structure_checks, answer_checks, slice_checks, corruption_checks, speed_checks)


def gate_decision(report: QualifyReport, thresholds: GateThresholds, facts: GateFacts) -> GateDecision:
    """Returns the verdict on one variant: accepted, denied, or pending when nothing failed but a device is missing."""
    judged = Judged(report, thresholds, facts)
    checks = tuple(check for kind in _KINDS for check in kind(judged))
    return GateDecision(accepted=all(check.passed for check in checks), checks=checks)


def verdict(decision: GateDecision) -> str:
    """Returns the verdict as one word for tables and logs."""
    return "accepted" if decision.accepted else "pending" if decision.is_pending else "denied"


def denial_text(variant: str, decision: GateDecision) -> str:
    """Says in one line why a variant was denied, or what it waits for."""
    failed = [f"{check.name} ({check.detail})" for check in decision.checks if not (check.passed or check.pending)]
    if failed:
        return f"{variant} denied: {'; '.join(failed)}"
    waiting = [check.name for check in decision.checks if check.pending]
    return f"{variant} pending: {', '.join(waiting)}"
