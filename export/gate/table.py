"""Prints the gate's verdicts as a table: every check of every variant, with the measured value and its limit."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from saccade.export.gate.checks.names import GATE_BY_CHECK
from saccade.export.gate.decision import verdict
from saccade.export.reports.export_report import ExportReport
from saccade.models.contract.manifest import GateCheck, GateDecision

_STYLES = {"pass": "green", "FAIL": "bold red", "pending": "yellow", "accepted": "green", "denied": "bold red"}


def gate_table(model: str, decisions: Mapping[str, GateDecision]) -> Table:
    """Makes a table with a row per check and a column per variant; cells hold verdict, value and limit."""
    table = Table("gate", "check", *decisions, title=f"gate of {model}")
    named = {check.name for decision in decisions.values() for check in decision.checks}
    known = [name for name in GATE_BY_CHECK if name in named]
    for name in (*known, *sorted(named - set(known))):
        found = [_check(decision, name) for decision in decisions.values()]
        table.add_row(GATE_BY_CHECK.get(name, ""), name, *("" if each is None else cell(each) for each in found))
    table.add_section()
    table.add_row("", "verdict", *(_styled(verdict(decision)) for decision in decisions.values()))
    return table


def report_table(report: ExportReport) -> Table:
    """Makes the table of a whole report, with the denied variants that no manifest lists."""
    return gate_table(report.model, {each.qualify.variant: each.gate for each in report.variants})


def cell(check: GateCheck) -> str:
    """Formats a cell such as `pass 0.0021 / 0.005`; a limit without a measured number is left out."""
    word = "pass" if check.passed else "pending" if check.pending else "FAIL"
    parts = [_styled(word)]
    if check.value is not None:
        parts.append(_text(check.value))
    if check.limit is not None and check.limit != check.value:
        parts.append(f"/ {_text(check.limit)}")
    return " ".join(parts)


def _check(decision: GateDecision, name: str) -> GateCheck | None:
    return next((check for check in decision.checks if check.name == name), None)


def _styled(word: str) -> str:
    style = _STYLES.get(word, "")
    return f"[{style}]{word}[/{style}]" if style else word


def _text(value: float | str | bool) -> str:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    return f"{value:.4g}"
