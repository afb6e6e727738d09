"""Times batches; compared graphs take turns in one loop, so that a busy machine slows all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.bootstrap import interval_of
from saccade.export.qualification.qualify_report import SpeedRatio
from saccade.models.contract.manifest import LatencyFigure, MeasuredDevice
from saccade.models.contract.paired_speed import median_interval

Run = Callable[[], object]
Clock = Callable[[], float]
_MIN_REPEATS = 5
_WARM_UP = 2
_RESAMPLES = 200
_LOWER_QUARTILE = 25


def seconds_per_run(
    runs: Sequence[Run], repeats: int, budget_s: float, clock: Clock = time.perf_counter
) -> NDArray[np.float64]:
    """Returns durations (repeats done, runs); their order reverses each turn, and the budget ends the loop."""
    for run in runs:
        for _ in range(_WARM_UP):
            run()
    rows: list[list[float]] = []
    deadline = clock() + budget_s
    while len(rows) < repeats and (len(rows) < _MIN_REPEATS or clock() < deadline):
        row = [0.0] * len(runs)
        order = range(len(runs)) if len(rows) % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            start = clock()
            runs[index]()
            row[index] = clock() - start
        rows.append(row)
    return np.array(rows)


def latency_figure(rounds: Sequence[Sequence[float]] | NDArray[np.float64], batch_size: int) -> LatencyFigure:
    """Returns percentiles of one graph's durations, with the median's interval over its rounds."""
    milliseconds = np.concatenate([np.asarray(each, float) for each in rounds]) * 1e3
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    over_rounds = median_interval([1e3 * median(each) for each in rounds])
    return LatencyFigure(
        batch_size=batch_size,
        p50_ms=round(float(p50), 4),
        p90_ms=round(float(p90), 4),
        p99_ms=round(float(p99), 4),
        images_per_s=round(1e3 * batch_size / float(p50), 2),
        p50_low_ms=None if over_rounds is None else round(over_rounds.low, 4),
        p50_high_ms=None if over_rounds is None else round(over_rounds.high, 4),
    )


def speed_ratio(seconds: NDArray[np.float64], batch_size: int) -> SpeedRatio:
    """Compares deploy (column 0) with bare (column 1): ratio of lower quartiles, with an interval by resampling turns.

    Other work on the machine only adds time, so the faster half of the turns says most about the graphs.
    """
    rng = np.random.default_rng(0)
    drawn = seconds[rng.integers(0, len(seconds), (_RESAMPLES, len(seconds)))]  # (resamples, turns, 2)
    quartiles = np.percentile(drawn, _LOWER_QUARTILE, axis=1)
    deploy, bare = np.percentile(seconds, _LOWER_QUARTILE, axis=0)
    interval = interval_of(float(bare / deploy), quartiles[:, 1] / quartiles[:, 0])
    return SpeedRatio(
        batch_size=batch_size,
        ratio=round(interval.value, 4),
        ci_low=round(interval.low, 4),
        ci_high=round(interval.high, 4),
        deploy_images_per_s=round(batch_size / float(deploy), 2),
        bare_images_per_s=round(batch_size / float(bare), 2),
    )


def cpu_device(threads: int) -> MeasuredDevice:
    return MeasuredDevice(kind="cpu", name=cpu_name(), threads=threads)


def usable_threads(requested: int) -> int:
    """Returns the number of threads; 0 asks for every core that this process may use."""
    return requested or len(os.sched_getaffinity(0))


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the processor's model name with its widest vector extension."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return "unknown"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    widest = next((name for name in ("avx512_vnni", "avx_vnni", "avx512f", "avx2") if name in flags), None)
    name = fields.get("model name", "unknown")
    return f"{name} ({widest})" if widest else name
