"""The figures of `make bench-gpu`, kept after every case. Promises: a call goes on where an earlier one ended.

A row holds figures, or `not_run` with the reason (tried again by the next call), or `failed` with the error (kept until
`--retry-failed`). A process that dies within a case leaves it as failed, so that the next call gets past it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

Kind = Literal["gpu", "cpu self-check"]
OUT_OF_TIME = "the time of this call was used up; run the command again to go on"
_DIED = "the process ended in the middle of this case"


class ReportRefused(Exception):
    """The report at hand must not be written to; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which figure of the report. Empty or 0 where a stage has no such part."""

    stage: str
    network: str
    variant: str = ""
    runtime: str = ""
    batch: int = 0

    @property
    def key(self) -> str:
        return "/".join(str(part) for part in asdict(self).values())


@dataclass(slots=True)
class Budget:
    """Time of this call."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _start_s: float = 0.0

    def __post_init__(self) -> None:
        self._start_s = self.clock()

    def left_s(self) -> float:
        return self._start_s + self.seconds - self.clock()


class Rows:
    """The document behind `report-gpu.json`. Side effect: every change is on disk when a method returns."""

    def __init__(self, file: Path, kind: Kind, call: dict[str, Any]) -> None:
        """`call` is where the figures of this process come from. Raises ReportRefused for a report of another kind."""
        self._file = file
        self._document: dict[str, Any] = {"kind": kind, "calls": [], "rows": {}}
        if file.exists():
            found = orjson.loads(file.read_bytes())
            if found["kind"] != kind:
                raise ReportRefused(
                    f"{file} is a report of kind {found['kind']!r}, this call makes {kind!r}: name another"
                )
            self._document = found
        self._document["calls"].append(call)
        self._save()

    @property
    def document(self) -> dict[str, Any]:
        return self._document

    def find(self, place: Place) -> dict[str, Any] | None:
        """The figures of a place; None while there are none."""
        row: dict[str, Any] | None = self._document["rows"].get(place.key)
        return row if row is not None and is_measured(row) else None

    def is_settled(self, place: Place, *, retry_failed: bool = False) -> bool:
        """Whether a call leaves this place alone."""
        row = self._document["rows"].get(place.key)
        if row is None or "not_run" in row:
            return False
        return not ("failed" in row and retry_failed)

    def begin(self, place: Place) -> None:
        self._put(place, {"failed": _DIED})

    def add(self, place: Place, figures: dict[str, Any]) -> None:
        self._put(place, figures)

    def not_run(self, place: Place, reason: str) -> None:
        self._put(place, {"not_run": reason})

    def failed(self, place: Place, reason: str) -> None:
        self._put(place, {"failed": reason})

    def _put(self, place: Place, content: dict[str, Any]) -> None:
        call = len(self._document["calls"]) - 1
        self._document["rows"][place.key] = {**asdict(place), **content, "call": call}
        self._save()

    def _save(self) -> None:
        scratch = self._file.with_name(f".{self._file.name}.new")
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(orjson.dumps(self._document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
        os.replace(scratch, self._file)


def is_measured(row: dict[str, Any]) -> bool:
    return "not_run" not in row and "failed" not in row
