"""When API processes begin to listen. Promises: those of the start together, each later one as soon as it can.

The first to listen alone would get every connection that clients open at that moment, and they keep them.
"""

from __future__ import annotations


class Doors:
    """Opens once `count` processes could answer, or when told not to wait any longer."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._is_open = False
        self._able: set[str] = set()
        self._told: set[str] = set()

    def able(self, name: str) -> list[str]:
        """A process could answer. Who is to be told to listen now."""
        self._able.add(name)
        self._is_open = self._is_open or len(self._able) == self._count
        return self._to_tell()

    def wait_no_longer(self) -> list[str]:
        """Who is to be told to listen now, the others being late."""
        self._is_open = True
        return self._to_tell()

    def gone(self, name: str) -> None:
        """The process ended; the next one of that name is another."""
        self._able.discard(name)
        self._told.discard(name)

    def _to_tell(self) -> list[str]:
        names = sorted(self._able - self._told) if self._is_open else []
        self._told.update(names)
        return names
