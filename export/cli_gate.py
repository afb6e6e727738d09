"""The command `saccade-export gate`. Promises: judges what was written again, and notices what was changed since."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from export.export_report import read_report
from export.gate import denial_text
from export.gate_table import gate_table
from export.judged_variants import judged_again
from export.recipe import load_recipe

DONE, FAILED = 0, 1


def gate(
    report: Annotated[Path, typer.Argument(help="report.json of an export or a version directory")],
    recipe: Annotated[Path | None, typer.Option(help="hold the report's thresholds against this recipe's")] = None,
    table: Annotated[bool, typer.Option("--table", help="print every check with its value and limit")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")] = False,
) -> None:
    """Judges a report again with the thresholds it holds; files and the report itself are hashed again."""
    found = read_report(report)
    agreed = None if recipe is None else load_recipe(recipe).recipe.gate
    verdicts = [judged_again(found, variant, report.parent, agreed) for variant in found.variants]
    decisions = {verdict.qualify.variant: verdict.gate for verdict in verdicts}
    if as_json:
        document = {name: decision.model_dump(mode="json") for name, decision in decisions.items()}
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    elif table:
        Console(width=None if sys.stdout.isatty() else 200).print(gate_table(found.model, decisions))
    else:
        for name, decision in decisions.items():
            print(f"{name} accepted" if decision.accepted else denial_text(name, decision))
    raise typer.Exit(DONE if any(decision.accepted for decision in decisions.values()) else FAILED)
