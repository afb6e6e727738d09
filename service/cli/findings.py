"""One line of the doctor's report. Promises: frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`is_ok` False fails the program, None is only worth knowing."""

    what: str
    is_ok: bool | None
    detail: str
