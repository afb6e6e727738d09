"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked fact. `is_ok` False makes the doctor fail; None is information only."""

    what: str
    is_ok: bool | None
    detail: str
