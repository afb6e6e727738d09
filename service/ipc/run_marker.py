"""What a worker's device is at, in shared memory: the supervisor reads it when the worker hangs or has ended.

The worker writes the instance and the time before each run, and clears it afterwards. A crash clears nothing, so the
version that killed the worker is known.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from saccade.service.errors import DeviceLost

_SINCE = struct.Struct("<d")
_INSTANCE = struct.Struct("<Q")
_BYTES = _SINCE.size + _INSTANCE.size


class Run(NamedTuple):
    """A run that has begun and not ended."""

    instance_id: int
    since_s: float  # CLOCK_MONOTONIC


class RunMarker:
    """The worker's side. Runs exclude each other, so one place holds them."""

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        self._memory = memory

    @classmethod
    def open(cls, path: Path) -> RunMarker:
        """Opens the file that the supervisor made with `create`."""
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), _BYTES))

    @classmethod
    def unread(cls) -> RunMarker:
        """Returns a marker that nobody reads."""
        return cls(bytearray(_BYTES))

    @contextmanager
    def running(self, instance_id: int) -> Iterator[None]:
        """Marks a run. It stays marked when the device was lost, because then the process ends."""
        # The time is written first, so that nobody sees this instance with the time of a run before.
        _SINCE.pack_into(self._memory, 0, time.monotonic())
        _INSTANCE.pack_into(self._memory, _SINCE.size, instance_id)
        try:
            yield
        except DeviceLost:
            raise
        except BaseException:
            _INSTANCE.pack_into(self._memory, _SINCE.size, 0)
            raise
        _INSTANCE.pack_into(self._memory, _SINCE.size, 0)


def marker_path(socket_path: str) -> Path:
    """Returns where the marker of the worker at this socket lies."""
    return Path(f"{socket_path}.run")


def create(path: Path) -> None:
    path.write_bytes(bytes(_BYTES))


def present_run(path: Path) -> Run | None:
    """Reads what the worker is at, or was at when it ended; None for nothing."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    (instance_id,) = _INSTANCE.unpack_from(raw, _SINCE.size)
    return Run(instance_id, _SINCE.unpack_from(raw)[0]) if instance_id else None
