"""What is shown while a load runs. Promises: a bar on a terminal, a line every few seconds elsewhere; all on stderr."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from saccade.service.bench.coordinator import Live
from saccade.service.bench.report import TrialFigures

_LINE_EVERY_S = 5.0


class ProgressShow:
    """Use as a context; call `show` as often as wanted."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._next_line_s = _LINE_EVERY_S
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("connecting")

    def __enter__(self) -> ProgressShow:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, live: Live, duration_s: float) -> None:
        text = f"{live.sent} sent, {live.ok} ok, {live.failed} failed, {live.in_flight} in flight"
        if live.elapsed_s < 0:
            self._next_line_s = _LINE_EVERY_S  # another run begins
            text = f"warm-up: {text}"
        total = duration_s if math.isfinite(duration_s) else None
        self._bar.update(self._task, description=text, completed=max(0.0, live.elapsed_s), total=total)
        if not self._console.is_terminal and live.elapsed_s >= self._next_line_s:
            self._next_line_s += _LINE_EVERY_S
            self.say(f"{live.elapsed_s:.0f} s: {text}")

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def say_trial(self, trial: TrialFigures) -> None:
        p99 = "-" if trial.p99_ms is None else f"{trial.p99_ms:.1f}"
        self.say(f"{trial.rate_rps:.1f}/s: p99 {p99} ms, {trial.late_ratio:.2%} late or failed: {trial.verdict}")
