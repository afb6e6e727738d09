"""Decides when API processes begin to listen: at the start all together, later ones as soon as they can answer.

A process that listened before the others would get every connection that clients open at that moment, and keep them.
"""

from __future__ import annotations


class StartBarrier:
    """Opens once `count` processes can answer, or when it is told not to wait any longer."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._is_open = False
        self._able: set[str] = set()
        self._told: set[str] = set()

    def able(self, name: str) -> list[str]:
        """Notes that a process can answer, and returns the names of those to tell to listen now."""
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
