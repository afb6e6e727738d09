"""The conditions of `--fail-if`: a small grammar, checked before the load. A figure that was not measured fails."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from saccade.service.bench.report import Report, figures_of
from saccade.service.bench.statistics import Latency
from saccade.service.errors import BadParameter

_LATENCY_NAMES = tuple(field.name for field in fields(Latency) if field.name.endswith("_ms"))
FIGURES = (
    *("requests", "offered_rps", "throughput_rps", "goodput_rps", "goodput_ratio", "error_rate", "refused_rate"),
    *("client_lag_p99_ms", "slo_rps"),
    *(prefix + name for prefix in ("", "service_", "refused_") for name in _LATENCY_NAMES),
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_CONDITION = re.compile(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FailCondition:
    """A condition on one figure; the run fails if it holds."""

    text: str
    figure: str
    comparison: str
    limit: float

    def failure(self, figures: Mapping[str, float]) -> str | None:
        """Why the run fails, or None. A figure that nothing was measured for fails."""
        value = figures.get(self.figure, math.nan)
        if math.isnan(value):
            return f"{self.text}: nothing was measured for {self.figure}"
        if _OPERATORS[self.comparison](value, self.limit):
            return f"{self.text}: it is {value:.6g}"
        return None


def condition_from(text: str) -> FailCondition:
    """Parses a condition such as `p99_ms>50` or `error_rate>=0.001`. Raises BadParameter."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise BadParameter(f"{text!r} is not a condition; it looks like 'p99_ms>50', with > >= < or <=")
    figure, comparison, number = match.groups()
    if figure not in FIGURES:
        raise BadParameter(f"unknown figure {figure!r} in {text!r}; there are: {', '.join(FIGURES)}")
    try:
        limit = float(number)
    except ValueError:
        raise BadParameter(f"{number!r} in {text!r} is not a number") from None
    return FailCondition(text.strip(), figure, comparison, limit)


def failures_of(report: Report, conditions: Sequence[FailCondition]) -> list[str]:
    """Why the run fails. Runs without a good answer, interrupted runs and searches without a result always fail."""
    failures = []
    if not report.ok:
        failures.append("no request was answered well: see the outcomes")
    if "interrupted" in (report.load.ending, report.slo.end if report.slo else ""):
        failures.append("interrupted: the figures are those of a shorter run")
    if report.slo is not None and report.slo.rate_rps is None:
        failures.append(f"no rate keeps p99 within {report.slo.objective_ms:g} ms")
    figures = figures_of(report)
    broken = (condition.failure(figures) for condition in conditions)
    return [*failures, *(failure for failure in broken if failure is not None)]
