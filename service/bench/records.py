"""One row per request. No value is rounded or dropped, so percentiles are exact and not those of a histogram."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

STAGES = ("decode", "queue", "infer", "postprocess")
REFUSALS = frozenset({429, 503, 504})  # with these the server declines a request in time


class End(StrEnum):
    """How a request ended, as the client saw it."""

    ANSWERED = "answered"  # any HTTP answer, whatever its status
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    UNSENT = "unsent"  # as many as allowed were in flight until the request's time was over


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """How requests ended. `title` is that of the error answer, or says what was wrong with the connection."""

    end: End
    status: int = 0
    title: str = ""
    version: str = ""
    variant: str = ""

    @property
    def is_ok(self) -> bool:
        return self.end is End.ANSWERED and 200 <= self.status < 300

    @property
    def is_refused(self) -> bool:
        return self.end is End.ANSWERED and self.status in REFUSALS

    @property
    def label(self) -> str:
        if self.end is End.ANSWERED:
            return f"{self.status} {self.title}".strip()
        return f"{self.end}: {self.title}" if self.title else str(self.end)


@dataclass(slots=True)
class Columns:
    """The rows of one client process, growing by one per request. Moments are seconds from the start of measuring."""

    due_s: array[float] = field(default_factory=lambda: array("d"))  # when the request was meant to be sent
    woken_s: array[float] = field(default_factory=lambda: array("d"))  # when the client came to it; late: its own fault
    sent_s: array[float] = field(default_factory=lambda: array("d"))  # when a connection took it
    done_s: array[float] = field(default_factory=lambda: array("d"))
    item: array[int] = field(default_factory=lambda: array("I"))
    outcome: array[int] = field(default_factory=lambda: array("H"))
    answer_bytes: array[int] = field(default_factory=lambda: array("I"))
    stages_ms: array[float] = field(
        default_factory=lambda: array("f")
    )  # len(STAGES) values per row, then the total; NaN: unknown


@dataclass(frozen=True, slots=True)
class Records:
    """All rows, by due time. Latency counts from `due_s`: a server that stalls also delays the requests that wait."""

    due_s: NDArray[np.float64]
    woken_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    item: NDArray[np.uint32]
    outcome: NDArray[np.uint16]
    answer_bytes: NDArray[np.uint32]
    stages_ms: NDArray[np.float32]  # (rows, len(STAGES) + 1)
    outcomes: tuple[RequestEnd, ...]

    def __len__(self) -> int:
        return len(self.due_s)

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        return (self.done_s - self.due_s) * 1000.0

    @property
    def service_ms(self) -> NDArray[np.float64]:
        """Milliseconds from when the request was sent to its end."""
        return (self.done_s - self.sent_s) * 1000.0

    @property
    def lag_ms(self) -> NDArray[np.float64]:
        """Milliseconds by which the client itself was late."""
        return (self.woken_s - self.due_s) * 1000.0

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        return self._where([outcome.is_ok for outcome in self.outcomes])

    @property
    def is_refused(self) -> NDArray[np.bool_]:
        return self._where([outcome.is_refused for outcome in self.outcomes])

    def ended(self, end: End) -> NDArray[np.bool_]:
        return self._where([outcome.end is end for outcome in self.outcomes])

    def _where(self, flags: Sequence[bool]) -> NDArray[np.bool_]:
        return np.array(flags, np.bool_)[self.outcome] if flags else np.zeros(0, np.bool_)

    def rows(self, keep: NDArray[np.bool_]) -> Records:
        """The rows where `keep` is true."""
        return Records(
            self.due_s[keep],
            self.woken_s[keep],
            self.sent_s[keep],
            self.done_s[keep],
            self.item[keep],
            self.outcome[keep],
            self.answer_bytes[keep],
            self.stages_ms[keep],
            self.outcomes,
        )


def records_of(parts: Sequence[tuple[Columns, Sequence[RequestEnd]]]) -> Records:
    """Rows of several client processes as one table, by due time, with common numbers for outcomes."""
    outcomes = tuple(dict.fromkeys(outcome for _, known in parts for outcome in known))
    number_of = {outcome: number for number, outcome in enumerate(outcomes)}
    numbers = [
        np.array([number_of[outcome] for outcome in known], np.uint16)[np.array(columns.outcome, np.int64)]
        for columns, known in parts
        if known
    ]
    order = np.argsort(_joined(parts, "due_s", np.float64), kind="stable")
    return Records(
        _joined(parts, "due_s", np.float64)[order],
        _joined(parts, "woken_s", np.float64)[order],
        _joined(parts, "sent_s", np.float64)[order],
        _joined(parts, "done_s", np.float64)[order],
        _joined(parts, "item", np.uint32)[order],
        (np.concatenate(numbers) if numbers else np.zeros(0, np.uint16))[order],
        _joined(parts, "answer_bytes", np.uint32)[order],
        _joined(parts, "stages_ms", np.float32).reshape(-1, len(STAGES) + 1)[order],
        outcomes,
    )


def _joined(parts: Sequence[tuple[Columns, Sequence[RequestEnd]]], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.array(getattr(columns, name), dtype) for columns, _ in parts] or [np.zeros(0, dtype)])
