"""Decides how many rows a run takes where models share a device: no more than its speed per row needs.

A run cannot be interrupted, so requests of the other models wait for its end, whatever their deadlines. Where a large
batch answers no more images per second than small ones do, as on most processors, small ones free the device sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from saccade.service.worker.scheduling.latency_model import LatencyTable

# Requests without a deadline are answered within 250 ms at least, and admission lets them wait for 150 ms of that. A
# run of this length leaves a third of it for others that wait already. Shorter runs are never cut.
SHORT_RUN_S = 0.1
_KEPT_SPEED = 0.985  # least share of the images per second of larger runs; trials and the others' runs come on top
_TRIAL_PAUSE = 200  # in full runs: trials of full runs take half a percent of the device's time


class RunTimes(LatencyTable, Protocol):
    """What the decision reads of a `LatencyModel`."""

    def usual_range_s(self, batch_size: int) -> tuple[float, float]: ...
    def is_known(self, batch_size: int) -> bool: ...
    def since_s(self, batch_size: int) -> float: ...


def run_rows(latency: RunTimes, rows: int, allowed_sizes: Sequence[int]) -> int:
    """Returns the allowed size of the next run where waiting requests fill `rows`, an allowed size, or more.

    It is the largest size whose run is short, or else the smallest, unless `rows` at once are surely faster per row.
    Both run now and then, so that what is known of them stays true, and after a start the short one runs first.
    """
    if latency.batch_s(rows) <= SHORT_RUN_S:
        return rows
    short = max((size for size in allowed_sizes if latency.batch_s(size) <= SHORT_RUN_S), default=allowed_sizes[0])
    if short >= rows:
        return rows
    pause_s = _TRIAL_PAUSE * latency.batch_s(rows)
    if latency.since_s(rows) > pause_s:
        return rows
    if latency.since_s(short) > pause_s or not latency.is_known(short):
        return short
    # Runs vary, so four fifths of the full ones must be faster than nearly all of the short ones. Where it is not that
    # sure, sizes would change all the time, and requests would wait for runs of both kinds.
    is_faster = latency.usual_range_s(rows)[1] / rows < _KEPT_SPEED * latency.usual_range_s(short)[0] / short
    return rows if is_faster else short
