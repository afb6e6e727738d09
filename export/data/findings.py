"""Collects what is wrong or odd in data; similar findings are counted, and the first is quoted with its file."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from saccade.export.errors import DataRefused

_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_Counted = dict[str, tuple[str, int]]  # by kind: the first sentence, and how many findings of this kind there are


@dataclass(slots=True)
class Findings:
    """Collects findings while data is read; complaints end a run, while notes and skipped files are only reported."""

    _complaints: _Counted = field(default_factory=dict)
    _notes: _Counted = field(default_factory=dict)
    # paths by reason, in the order in which they were found
    _skipped: dict[str, dict[Path, None]] = field(default_factory=dict)

    def complain(self, kind: str, sentence: str) -> None:
        _count(self._complaints, kind, sentence)

    def note(self, kind: str, sentence: str) -> None:
        _count(self._notes, kind, sentence)

    def skip(self, reason: str, path: Path) -> None:
        """Notes a file that is left out; a file that is met twice counts once."""
        self._skipped.setdefault(reason, {})[path] = None

    @property
    def complaints(self) -> tuple[str, ...]:
        return _sentences(self._complaints)

    @property
    def notes(self) -> tuple[str, ...]:
        return _sentences(self._notes)

    @property
    def skipped(self) -> tuple[str, ...]:
        return tuple(
            f"{len(paths):,} skipped, {reason}: {readable(str(next(iter(paths))))}"
            + (", ..." if len(paths) > 1 else "")
            for reason, paths in self._skipped.items()
        )

    def ensure_no_complaints(self) -> None:
        """Raises DataRefused with every complaint."""
        if self._complaints:
            raise DataRefused("; ".join(self.complaints))


def readable(text: str) -> str:
    """Returns a text of one line that no terminal obeys, whatever bytes a file's name or a label has."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return "".join(repr(letter)[1:-1] if _is_control(letter) else letter for letter in escaped)


def _is_control(letter: str) -> bool:
    """Tells whether it moves a cursor, breaks a line or turns text around; marks that join letters do not."""
    return letter in _TURNS or unicodedata.category(letter) in ("Cc", "Zl", "Zp")


def _count(found: _Counted, kind: str, sentence: str) -> None:
    first, count = found.get(kind, (readable(sentence), 0))
    found[kind] = (first, count + 1)


def _sentences(found: _Counted) -> tuple[str, ...]:
    return tuple(first + (f" ({count - 1:,} more like it)" if count > 1 else "") for first, count in found.values())
