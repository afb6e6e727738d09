"""The representative networks through the whole product: parity, int8, a plan or a named operator, served.

Minutes: run by `make test-matrix`, each network in a child process as `make matrix` runs it.
"""

from __future__ import annotations

import os

import pytest

from tests.matrix.entries import ENTRIES, Entry
from tests.matrix.rows import Row, has_plan_tool
from tests.matrix.runner import Budget, run_entries
from tests.matrix.table import has_parity

REPRESENTATIVES = [entry for entry in ENTRIES if entry.is_representative]
LIMIT_S = 1200.0

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(LIMIT_S + 300)]


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Rows of the entries that this run's tests are about, two at a time."""
    chosen = {item.callspec.params["entry"].id for item in request.session.items if item.path == request.path}
    budget = Budget(jobs=min(2, len(os.sched_getaffinity(0))), limit_s=LIMIT_S)
    entries = [entry for entry in REPRESENTATIVES if entry.id in chosen]
    return run_entries(entries, tmp_path_factory.mktemp("results"), budget, lambda entry, row: None)


@pytest.mark.parametrize("entry", REPRESENTATIVES, ids=lambda entry: entry.id)
def test_network_comes_through(entry: Entry, rows: dict[str, Row]) -> None:
    row = rows[entry.id]

    assert row.failure == ""
    assert has_parity(row), row.parity
    assert row.int8 is not None
    assert row.int8.is_built, row.int8.note
    assert row.served is not None
    assert row.served.is_equal
    assert row.served.items > 0
    if has_plan_tool():
        assert row.plans or row.fallback == "onnxruntime", row.plan_problem
