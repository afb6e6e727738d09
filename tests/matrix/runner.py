"""Runs entries in child processes. Promises: bounded time each, a crash is a row, every finished row is on disk."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.matrix.entries import ENTRIES, Entry
from tests.matrix.probe import ROW_NAME
from tests.matrix.readings import WORK_PREFIX
from tests.matrix.rows import Row, read_rows, replace_file, row_key, write_rows
from tests.matrix.table import TABLE_NAME, markdown

Told = Callable[[Entry, Row], None]
_LOG_NAME = "log.txt"
_KILL_WAIT_S = 120.0  # a starved process takes its time to give gigabytes back
_PLACES = {entry.id: place for place, entry in enumerate(ENTRIES)}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of the machine and of the day a run may take."""

    jobs: int  # children at once, each on a core of its own
    limit_s: float  # after so long nothing new is started
    is_served_only: bool = False  # neither int8 nor plans


def outdated(entries: Sequence[Entry], rows: Mapping[str, Row]) -> list[Entry]:
    """Entries without a row made by the code and the libraries of today."""
    return [entry for entry in entries if entry.id not in rows or rows[entry.id].key != row_key(entry)]


def run_entries(entries: Sequence[Entry], results: Path, budget: Budget, told: Told) -> dict[str, Row]:
    """Side effect: `results` holds every row that is finished so far, and the table. Returns all its rows."""
    rows = read_rows(results)
    children = _Children()
    deadline_s = time.monotonic() + budget.limit_s
    cores = _cores(budget.jobs)

    def run(entry: Entry) -> Row | None:
        if time.monotonic() > deadline_s:
            return None
        core = cores.get()
        try:
            return children.run(entry, core, budget.is_served_only)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(budget.jobs) as pool:
        # The longest first would end sooner, but who watches learns more from the table's own order.
        entry_by_future: dict[Future[Row | None], Entry] = {pool.submit(run, entry): entry for entry in entries}
        try:
            for future in as_completed(entry_by_future):
                row = future.result()
                if row is not None:
                    rows[row.id] = row
                    save(results, rows)
                    told(entry_by_future[future], row)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
    return rows


def save(results: Path, rows: Mapping[str, Row]) -> None:
    """Writes the rows of entries that still exist, and their table."""
    kept = {row.id: row for row in rows.values() if row.id in _PLACES}
    results.mkdir(parents=True, exist_ok=True)
    write_rows(results, kept, _PLACES)
    replace_file(results / TABLE_NAME, markdown(ENTRIES, kept).encode())


def row_of_dead(entry: Entry, work: Path, how: str, seconds: float) -> Row:
    """What a child left behind that did not come to its end."""
    path = work / ROW_NAME
    if not path.exists():
        return _empty_row(entry).model_copy(update={"failure": how, "seconds": round(seconds, 1)})
    left = Row.model_validate_json(path.read_bytes())
    return left.model_copy(update={"failure": f"{left.failure}: {how}", "seconds": round(seconds, 1)})


def _empty_row(entry: Entry) -> Row:
    return Row(id=entry.id, key=row_key(entry), family=entry.family, source=entry.source, task=entry.task)


def _cores(jobs: int) -> queue.SimpleQueue[int | None]:
    """A core for each job; None, meaning any, where there are fewer cores than jobs or only one job."""
    usable = sorted(os.sched_getaffinity(0))
    cores: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for job in range(jobs):
        cores.put(usable[job] if 1 < jobs <= len(usable) else None)
    return cores


@dataclass(slots=True)
class _Children:
    """Processes that are running now."""

    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    is_stopping: bool = False

    def run(self, entry: Entry, core: int | None, is_served_only: bool = False) -> Row:
        """Runs one entry to its end, or to the end of its time, in a directory that is gone afterwards."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=WORK_PREFIX) as name:
            work = Path(name)
            with (work / _LOG_NAME).open("wb") as log:
                process = subprocess.Popen(
                    _command(entry, work, core, is_served_only),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1"} if core is not None else None,
                    start_new_session=True,  # so that its server goes with it
                )
            self.running.add(process)
            if self.is_stopping:  # it was on its way when the others were ended
                _end(process)
            try:
                code = process.wait(entry.time_limit_s)
                how = _how_it_ended(code, (work / _LOG_NAME).read_text("utf-8", "replace"))
            except subprocess.TimeoutExpired:
                how = f"no end within {entry.time_limit_s:g} s"
            finally:
                _end(process)
                self.running.discard(process)
            seconds = time.monotonic() - start
            if how:
                return row_of_dead(entry, work, how, seconds)
            return Row.model_validate_json((work / ROW_NAME).read_bytes())

    def stop(self) -> None:
        self.is_stopping = True
        for process in tuple(self.running):
            _end(process)


def _command(entry: Entry, work: Path, core: int | None, is_served_only: bool) -> list[str]:
    command = [sys.executable, "-m", "tests.matrix.probe", entry.id, str(work)]
    command += ["--served-only"] if is_served_only else []
    return command if core is None else [*command, "--core", str(core)]


def _how_it_ended(code: int, log: str) -> str:
    """Empty for a child that came to its end."""
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:400] if lines else f"exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole process group, whatever is left of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_KILL_WAIT_S)
