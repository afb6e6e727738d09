"""What processes take, read from a /proc of the test: by kind, and never less processor time than before."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from saccade.service.ipc.messages import ProcessUse
from saccade.service.supervisor.process_figures import ProcessFigures

TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def process(proc: Path, pid: int, cpu_s: int, pages: int = 10, fds: int = 3) -> None:
    """As Linux shows one, half of whose time is the kernel's."""
    folder = proc / str(pid)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "fd").mkdir(parents=True)
    for number in range(fds):
        (folder / "fd" / str(number)).touch()
    half = cpu_s * TICKS // 2
    (folder / "stat").write_text(f"{pid} (a (b) c) S 1 2 3 4 5 6 7 8 9 10 {half} {half} 0 0 20 0 1 0 5 6 7")
    (folder / "statm").write_text(f"999 {pages} 1 1 0 1 0")


def test_processes_of_a_kind_are_added_up(tmp_path: Path) -> None:
    process(tmp_path, 1, 2)
    process(tmp_path, 2, 4, pages=20, fds=5)
    process(tmp_path, 3, 6, pages=1, fds=1)

    use = ProcessFigures(tmp_path).read([("api", 1), ("api", 2), ("worker", 3)])

    assert use == (ProcessUse("api", 6.0, 30 * PAGE, 8), ProcessUse("worker", 6.0, PAGE, 1))


def test_processor_time_of_one_that_ended_stays_in_the_sum(tmp_path: Path) -> None:
    figures = ProcessFigures(tmp_path)
    process(tmp_path, 1, 10)
    figures.read([("worker", 1)])
    shutil.rmtree(tmp_path / "1")

    assert figures.read([("worker", 1)]) == (ProcessUse("worker", 10.0, 0, 0),)
    process(tmp_path, 2, 4)
    assert figures.read([("worker", 2)])[0].cpu_s == 14.0


def test_one_that_has_the_number_of_another_counts_from_its_own_start(tmp_path: Path) -> None:
    figures = ProcessFigures(tmp_path)
    process(tmp_path, 1, 10)
    figures.read([("worker", 1)])
    process(tmp_path, 1, 2)

    assert figures.read([("worker", 1)])[0].cpu_s == 12.0


def test_our_own_figures_are_plausible() -> None:
    (use,) = ProcessFigures().read([("test", os.getpid())])

    assert use.cpu_s > 0
    assert use.memory_bytes > 10_000_000
    assert use.open_fds >= 3
