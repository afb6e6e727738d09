"""Makes the folder of a running server for sockets and metric files, in memory where possible.

The folder is removed at the end; the next server removes the folder of one that was killed. Whose server lives is told
by a lock and not by a process id, which containers that share the folder's parent give out anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from saccade.service.ipc.child_process import extend_environment

_NAME = "saccade-"
_LOCK = "lock"


def _sweep(parent: Path) -> None:
    """Removes the folders of servers that were killed."""
    for path in parent.glob(f"{_NAME}*"):
        with contextlib.suppress(OSError), (path / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its server lives
            shutil.rmtree(path, ignore_errors=True)


def _has_temporary_folder() -> bool:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def runtime_dir() -> Iterator[Path]:
    """Makes the folder with `metrics` in it, and removes it at the end.

    Where nothing but shared memory can be written, as in our containers, temporary files of this process and its
    children go into it as well.
    """
    shared_memory = Path("/dev/shm")
    parent = shared_memory if os.access(shared_memory, os.W_OK) else Path(tempfile.gettempdir())
    _sweep(parent)
    building = Path(tempfile.mkdtemp(prefix=f".{_NAME}{os.getpid()}-", dir=parent))
    with (building / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (building / "metrics").mkdir()
        path = building.rename(building.with_name(building.name[1:]))  # from now on others may sweep it
        if not _has_temporary_folder():
            extend_environment({"TMPDIR": str(path)})
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
