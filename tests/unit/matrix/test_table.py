"""The table. Promises held here: a line per entry, failures said, totals counted; committed rows are complete."""

from __future__ import annotations

from pathlib import Path

from saccade.models.contract.specs import Task
from tests.matrix.entries import DRAWN, ENTRIES, Entry
from tests.matrix.rows import Int8, Parity, Plan, Row, Served, read_rows
from tests.matrix.table import TABLE_NAME, markdown, totals

COMMITTED = Path(__file__).resolve().parents[3] / "tests" / "matrix"

GOOD = Entry(family="ResNet", source="timm/good")
STOPPED = Entry(family="VOLO", source="timm/stopped")
BROKEN = Entry(family="DETR", source="transformers/broken", task=Task.DETECT)
MISSING = Entry(family="VGG", source="timm/missing")
FAKES = (GOOD, STOPPED, BROKEN, MISSING)


def _row(entry: Entry, **facts: object) -> Row:
    known = {"id": entry.id, "key": "k", "family": entry.family, "source": entry.source, "task": entry.task}
    return Row.model_validate(known | facts)


def _fake_rows() -> dict[str, Row]:
    exported = {
        "size": (224, 224),
        "parameters": 23_500_000,
        "export_seconds": 12.34,
        "opset": 20,
        "served": Served(images=2, items=30, largest_difference=2e-7),
        "processor_seconds": 60.0,
    }
    rows = [
        _row(
            GOOD,
            **exported,
            parity=[Parity(batch_size=size, relative_l2=1e-6 * size) for size in (1, 3, 8)],
            int8=Int8(is_built=True, megabytes=5.94),
            plans=[Plan(capability="SM80", megabytes=94.2, seconds=0.4)],
        ),
        _row(
            STOPPED,
            **exported,
            parity=[Parity(batch_size=1, relative_l2=2e-4)],
            not_batchable_reason="rows see each other",
            int8=Int8(is_built=False, note="no kernel | here"),
            plan_problem="Col2Im in layer network.0: no such operator",
            fallback="onnxruntime",
        ),
        _row(BROKEN, failure="wrap: the shape depends\non data", processor_seconds=60.0),
    ]
    return {row.id: row for row in rows}


def test_table_of_known_rows_reads_as_expected() -> None:
    lines = markdown(FAKES, _fake_rows()).splitlines()
    assert [line for line in lines if line.startswith("| `")] == [
        "| `timm-good` | ResNet | classify | 224×224 | 23.50 | 12.3 | 20 | 1.0e-06 / 3.0e-06 / 8.0e-06 | 5.9 MB "
        "| SM80 94.2 (0.4) | yes (2e-07 over 30 values) |  |",
        "| `timm-stopped` | VOLO | classify | 224×224 | 23.50 | 12.3 | 20 | 2.0e-04 | no |  "
        "| yes (2e-07 over 30 values) | int8: no kernel / here; no plan: Col2Im in layer network.0: no such operator; "
        "served by onnxruntime; must not batch: rows see each other |",
        "| `transformers-broken` | DETR | detect |  |  |  |  |  |  |  |  "
        "| **fails** in wrap: the shape depends on data |",
        "| `timm-missing` | VGG | classify |  |  |  |  |  |  |  |  | not run yet |",
    ]


def test_every_line_of_the_table_has_as_many_cells() -> None:
    table = [line for line in markdown(FAKES, _fake_rows()).splitlines() if line.startswith("|")]
    assert len({line.count(" | ") for line in table}) == 1


def test_totals_count_what_the_rows_show() -> None:
    assert totals(FAKES, _fake_rows()) == [
        "- exported: **2** of 4",
        "- parity within the limit at every batch size: **1** of 4",
        "- int8-cpu built: **1** of 4",
        "- TensorRT plan built: **1** of 4",
        "- served, answers equal: **2** of 4",
        "- processor time of all rows: 3 minutes",
    ]


def test_committed_results_hold_no_other_rows_than_those_of_entries() -> None:
    committed = set(read_rows(COMMITTED))
    assert committed <= {entry.id for entry in ENTRIES}
    may_wait = {entry.id for entry in ENTRIES if entry.trained or entry in DRAWN or entry.task is Task.INSTANCES}
    assert {entry.id for entry in ENTRIES} - may_wait <= committed


def test_committed_table_is_that_of_the_committed_results() -> None:
    assert (COMMITTED / TABLE_NAME).read_text("utf-8") == markdown(ENTRIES, read_rows(COMMITTED))
