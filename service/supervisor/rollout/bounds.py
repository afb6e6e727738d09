"""Bounds on a mean that hold at all times together, so that looking again after every request costs nothing.

For values in [0, 1] with mean p, the ratio of a Beta mixture's likelihood to that of p is a supermartingale that starts
at 1; by Ville's inequality it ever exceeds 1 / alpha with probability alpha at most. The values of p for which it has
not form a confidence sequence. The mixture is Robbins', Statistical Methods Related to the Law of the Iterated
Logarithm, Annals of Mathematical Statistics 41, 1970; that it holds for any values in [0, 1], not only for 0 and 1,
follows from the convexity of the likelihood ratio in the value, as in Howard, Ramdas, McAuliffe and Sekhon,
Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49, 2021.
"""

from __future__ import annotations

from math import inf, lgamma, log, log1p

_PRIOR = 0.5  # both parameters of the mixture; narrow intervals near 0 and 1, where rates of errors are
_HALVINGS = 50


def evidence_against(mean: float, total: float, count: int) -> float:
    """Returns the logarithm of the evidence against this mean, given `count` values in [0, 1] with this sum."""
    if count == 0:
        return 0.0
    rest = max(0.0, count - total)
    likelihood = _product(total, mean) + _product(rest, 1.0 - mean)
    mixed = _log_beta(_PRIOR + total, _PRIOR + rest) - _log_beta(_PRIOR, _PRIOR)
    return mixed - likelihood


def is_above(mean: float, total: float, count: int, alpha: float) -> bool:
    """Returns whether the values' mean is larger beyond doubt; wrong with probability `alpha`, however often asked."""
    return total > mean * count and evidence_against(mean, total, count) >= log(1.0 / alpha)


def is_below(mean: float, total: float, count: int, alpha: float) -> bool:
    """Returns whether the values' mean is smaller beyond doubt, as `is_above`."""
    return total < mean * count and evidence_against(mean, total, count) >= log(1.0 / alpha)


def interval(total: float, count: int, alpha: float) -> tuple[float, float]:
    """Returns the means that are not excluded; 0 to 1 before the first value."""
    if count == 0:
        return 0.0, 1.0
    middle = min(1.0, total / count)
    return _edge(0.0, middle, total, count, alpha), _edge(1.0, middle, total, count, alpha)


def _edge(outer: float, inner: float, total: float, count: int, alpha: float) -> float:
    """Evidence grows from `inner` outwards; returns where it reaches the limit, or `outer`."""
    limit = log(1.0 / alpha)
    if evidence_against(outer, total, count) < limit:
        return outer
    for _ in range(_HALVINGS):
        middle = (outer + inner) / 2
        if evidence_against(middle, total, count) < limit:
            inner = middle
        else:
            outer = middle
    return outer


def _product(times: float, probability: float) -> float:
    """times * log(probability), where none of an impossible value is no contradiction."""
    if times <= 0.0:
        return 0.0
    return times * (log(probability) if probability < 0.5 else log1p(probability - 1.0)) if probability > 0.0 else -inf


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
