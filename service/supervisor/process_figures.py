"""Reads from /proc what the supervisor's processes take: processor time, memory, descriptors, by kind of process.

prometheus-client's own collector tells only of the process that is scraped: one of the HTTP processes, by chance.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from saccade.service.ipc.messages import ProcessUse

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_USER_TICKS, _SYSTEM_TICKS = 11, 12  # places in /proc/PID/stat behind the name, which may hold spaces


class ProcessFigures:
    """Adds up processes of the same kind. The processor time of those that ended stays in the sum."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._cpu_s: dict[str, float] = {}
        self._cpu_s_by_pid: dict[int, float] = {}

    def read(self, processes: Iterable[tuple[str, int]]) -> tuple[ProcessUse, ...]:
        """What each kind takes now; `processes` are pairs of kind and pid. One that has ended counts as nothing."""
        memory_bytes: dict[str, int] = {}
        open_fds: dict[str, int] = {}
        running: dict[int, float] = {}
        for kind, pid in processes:
            self._cpu_s.setdefault(kind, 0.0)
            try:
                cpu_s, resident_bytes, descriptors = self._figures_of(pid)
            except OSError:
                continue
            before_s = self._cpu_s_by_pid.get(pid, 0.0)
            self._cpu_s[kind] += cpu_s - before_s if cpu_s >= before_s else cpu_s  # less: another has its pid now
            running[pid] = cpu_s
            memory_bytes[kind] = memory_bytes.get(kind, 0) + resident_bytes
            open_fds[kind] = open_fds.get(kind, 0) + descriptors
        self._cpu_s_by_pid = running
        return tuple(
            ProcessUse(kind, cpu_s, memory_bytes.get(kind, 0), open_fds.get(kind, 0))
            for kind, cpu_s in self._cpu_s.items()
        )

    def _figures_of(self, pid: int) -> tuple[float, int, int]:
        """Seconds, bytes and descriptors. Raises OSError when it has ended."""
        folder = self._proc / str(pid)
        fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        cpu_s = (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_S
        resident_pages = int((folder / "statm").read_text("ascii").split()[1])
        return cpu_s, resident_pages * _PAGE_BYTES, len(os.listdir(folder / "fd"))
