"""The gate's table. Promises: pass, fail and pending are told apart, with value and limit, in the gate's order."""

from __future__ import annotations

from rich.console import Console

from saccade.export.gate.table import cell, gate_table
from saccade.models.contract.manifest import GateCheck, GateDecision


def check(name: str, passed: bool = True, pending: bool = False, **changes: object) -> GateCheck:
    figures = {"value": 0.00213, "limit": 0.005, "detail": ""} | changes
    return GateCheck.model_validate({"name": name, "passed": passed, "pending": pending, **figures})


def printed(decisions: dict[str, GateDecision]) -> list[str]:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(gate_table("digits", decisions))
    return [line for line in capture.get().splitlines() if "│" in line]


def test_cells_hold_verdict_value_and_limit() -> None:
    assert cell(check("metric_drop")) == "[green]pass[/green] 0.00213 / 0.005"
    assert cell(check("metric_drop", passed=False)) == "[bold red]FAIL[/bold red] 0.00213 / 0.005"
    assert cell(check("x", passed=False, pending=True, value=None, limit=None)) == "[yellow]pending[/yellow]"
    assert cell(check("determinism", value=True, limit=True)) == "[green]pass[/green] true"


def test_rows_follow_the_gates_numbers_and_columns_the_variants() -> None:
    accepted = GateDecision(accepted=True, checks=(check("metric_drop"), check("file_hash", value="abc", limit="abc")))
    denied = GateDecision(accepted=False, checks=(check("mask", passed=False, value=1, limit=0),))
    waits = GateDecision(
        accepted=False, checks=(check("device_latency", passed=False, pending=True, value=None, limit=None),)
    )

    lines = printed({"fp32": accepted, "int8-trt-sparse24": denied, "int8-trt": waits})

    first_words = [[part.strip() for part in line.split("│")[1:3]] for line in lines]
    assert first_words == [
        ["G0", "file_hash"],
        ["G2", "mask"],
        ["G6", "metric_drop"],
        ["G10", "device_latency"],
        ["", "verdict"],
    ]
    assert "FAIL 1 / 0" in lines[1]
    assert "accepted" in lines[-1]
    assert lines[-1].index("denied") < lines[-1].index("pending")
