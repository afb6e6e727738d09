"""Rows and children. Promises held here: rows are reused while they hold, a dead child is a row with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix import rows as rows_module
from tests.matrix import runner
from tests.matrix.entries import ENTRIES, Entry
from tests.matrix.rows import Row, read_rows, row_key, write_rows
from tests.matrix.runner import Budget, outdated, row_of_dead, run_entries
from tests.matrix.served import Comparison

ENTRY = ENTRIES[0]


def _row(entry: Entry = ENTRY, **facts: object) -> Row:
    known = {"id": entry.id, "key": row_key(entry), "family": entry.family, "source": entry.source, "task": entry.task}
    return Row.model_validate(known | facts)


def _child(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children run `script`, which sees the work directory as `work`."""

    def command(entry: Entry, work: Path, core: int | None, is_served_only: bool) -> list[str]:
        text = f"import os, pathlib, sys, time; work = pathlib.Path({str(work)!r})\n{script}"
        return [runner.sys.executable, "-S", "-c", text]

    monkeypatch.setattr(runner, "_command", command)


def _run(entry: Entry, results: Path, limit_s: float = 60.0) -> dict[str, Row]:
    return run_entries([entry], results, Budget(jobs=1, limit_s=limit_s), lambda entry, row: None)


def test_row_holds_until_its_key_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {ENTRY.id: _row()}
    assert outdated([ENTRY], known) == []
    assert outdated([ENTRY], {}) == [ENTRY]
    monkeypatch.setattr(rows_module, "source_digest", lambda: "changed")
    assert outdated([ENTRY], known) == [ENTRY]


def test_key_covers_the_entry_and_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = row_key(ENTRY)
    assert row_key(Entry(family=ENTRY.family, source=ENTRY.source, arguments={"width": 2})) != before
    monkeypatch.setattr(rows_module, "tool_versions", lambda: {"torch": "0"})
    assert row_key(ENTRY) != before


def test_rows_are_written_in_the_matrix_order(tmp_path: Path) -> None:
    chosen = (ENTRIES[5], ENTRIES[1], ENTRIES[3])
    write_rows(tmp_path, {entry.id: _row(entry) for entry in chosen}, {entry.id: i for i, entry in enumerate(ENTRIES)})
    assert list(read_rows(tmp_path)) == [ENTRIES[1].id, ENTRIES[3].id, ENTRIES[5].id]


def test_finished_child_gives_its_row_and_the_results_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = _row(opset=20).model_dump_json()
    _child(f"(work / 'row.json').write_text({left!r})", monkeypatch)
    assert _run(ENTRY, tmp_path)[ENTRY.id].opset == 20
    assert read_rows(tmp_path)[ENTRY.id].opset == 20
    assert f"`{ENTRY.id}`" in (tmp_path / "RESULTS.md").read_text("utf-8")


def test_killed_child_is_a_row_that_says_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = _row(failure="step wrap", parameters=7).model_dump_json()
    _child(f"(work / 'row.json').write_text({left!r}); os.kill(os.getpid(), 9)", monkeypatch)
    row = _run(ENTRY, tmp_path)[ENTRY.id]
    assert (row.failure, row.parameters) == ("step wrap: killed by SIGKILL", 7)


def test_child_that_raises_is_a_row_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child("raise ValueError('no such layer')", monkeypatch)
    assert _run(ENTRY, tmp_path)[ENTRY.id].failure == "ValueError: no such layer"


def test_child_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child("time.sleep(600)", monkeypatch)
    entry = Entry(family=ENTRY.family, source=ENTRY.source, time_limit_s=0.2)
    assert _run(entry, tmp_path)[entry.id].failure == "no end within 0.2 s"


def test_nothing_starts_after_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child("raise AssertionError", monkeypatch)
    assert _run(ENTRY, tmp_path, limit_s=-1.0) == {}


def test_row_of_a_child_that_left_nothing_is_that_of_its_entry(tmp_path: Path) -> None:
    row = row_of_dead(ENTRY, tmp_path, "killed by SIGKILL", 1.23)
    assert (row.id, row.failure, row.seconds) == (ENTRY.id, "killed by SIGKILL", 1.2)


def test_equal_answers_are_equal_and_extra_keys_are_no_difference() -> None:
    gap = Comparison()
    gap.compare({"classes": [{"label": "a", "score": 0.5}]}, {"classes": [{"label": "a", "score": 0.5}], "w": 1}, "x")
    assert (gap.items, gap.largest, gap.problem) == (2, 0.0, "")


@pytest.mark.parametrize(
    ("expected", "found", "problem"),
    [
        ({"label": "a"}, {"label": "b"}, "x.label is 'b' instead of 'a'"),
        ([1, 2], [1], "x is '[1]' instead of '[1, 2]'"),
        ({"score": 1}, {}, "x is '{}' instead of \"{'score': 1}\""),
    ],
)
def test_other_answers_are_told_apart(expected: object, found: object, problem: str) -> None:
    gap = Comparison()
    gap.compare(expected, found, "x")
    assert gap.problem == problem


def test_numbers_are_compared_relatively_above_one() -> None:
    gap = Comparison()
    gap.compare([200.0, 0.5], [202.0, 0.502], "x")
    assert gap.largest == pytest.approx(0.01)
