"""Makes the folder of a running server for sockets and metric files, in memory where possible.

The folder is removed at the end; the next server removes the folder of one that was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def _sweep(parent: Path) -> None:
    """Removes the folders of servers that were killed."""
    for path in parent.glob("saccade-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and int(pid) != os.getpid() and not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def runtime_dir() -> Iterator[Path]:
    """Makes the folder with `metrics` in it, and removes it at the end."""
    shared_memory = Path("/dev/shm")
    parent = shared_memory if os.access(shared_memory, os.W_OK) else None
    _sweep(Path(tempfile.gettempdir()) if parent is None else parent)
    path = Path(tempfile.mkdtemp(prefix=f"saccade-{os.getpid()}-", dir=parent))
    (path / "metrics").mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
