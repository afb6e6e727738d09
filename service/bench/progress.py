"""Shows progress on stderr while a load runs: one line redrawn on a terminal, else a new line every few seconds."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status

from saccade.service.bench.coordinator import Live
from saccade.service.bench.report import TrialFigures

_LINE_EVERY_S = 5.0


class ProgressShow:
    """Shows a load's progress. `show` may be called at any rate, within `status`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._next_line_s = _LINE_EVERY_S
        self.status = Status("connecting", console=self._console)

    def show(self, live: Live, duration_s: float) -> None:
        text = f"{live.sent} sent, {live.ok} ok, {live.failed} failed, {live.in_flight} in flight"
        if live.elapsed_s < 0:
            self._next_line_s = _LINE_EVERY_S  # time went back, so another run began
            text = f"warm-up: {text}"
        text = f"{live.elapsed_s:.0f} of {duration_s:.0f} s: {text}"
        self.status.update(text)
        if not self._console.is_terminal and live.elapsed_s >= self._next_line_s:
            self._next_line_s += _LINE_EVERY_S
            self._say(text)

    def say_trial(self, trial: TrialFigures) -> None:
        p99 = "-" if trial.p99_ms is None else f"{trial.p99_ms:.1f}"
        self._say(f"{trial.rate_rps:.1f}/s: p99 {p99} ms, {trial.late_ratio:.2%} late or failed: {trial.verdict}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
