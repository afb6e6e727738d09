"""Decides when API processes begin to listen: those of the start together, each later one as soon as it can.

The first to listen alone would get every connection that clients open at that moment, and they keep them.
"""

from __future__ import annotations


class StartBarrier:
    """Opens once `count` processes are able to answer, or when it is told not to wait any longer."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._is_open = False
        self._able: set[str] = set()
        self._told: set[str] = set()

    def able(self, name: str) -> list[str]:
        """Notes that a process is able to answer, and returns the names of those to tell to listen now."""
        self._able.add(name)
        self._is_open = self._is_open or len(self._able) == self._count
        return self._to_tell()

    def wait_no_longer(self) -> list[str]:
        """Opens without the late processes, and returns the names of those to tell to listen now."""
        self._is_open = True
        return self._to_tell()

    def gone(self, name: str) -> None:
        """Forgets a process that ended; the next one of that name is told again."""
        self._able.discard(name)
        self._told.discard(name)

    def _to_tell(self) -> list[str]:
        names = sorted(self._able - self._told) if self._is_open else []
        self._told.update(names)
        return names
