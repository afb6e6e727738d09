"""Keeps the most sensitive layers float while the metric is out of budget; every try is returned.

The method follows NNCF's quantization with accuracy control, with layers ranked by the noise that each one causes at
the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from saccade.export.precision.quantization.candidates import Attempt
from saccade.export.recipe import AccuracyControlSpec

Try = Callable[[Mapping[str, str]], Attempt]  # quantizes all but the named layers, and measures the result


def controlled(
    first: Attempt, float_metric: float, worst_first: Sequence[str], spec: AccuracyControlSpec, attempt: Try
) -> list[Attempt]:
    """Returns the attempts in order, `first` included; the last one is within budget, or the best that was possible."""
    attempts = [first]
    if spec.max_drop is None:
        return attempts
    steps = layers_taken_out(worst_first, spec.max_float_layers)
    while not _is_within(attempts[-1], float_metric, spec.max_drop):
        names = next(steps, None)
        if names is None:
            best = max(attempts, key=lambda each: each.candidate.metric)
            return [*(each for each in attempts if each is not best), best]
        reason = f"sensitive: the metric fell by more than {spec.max_drop:g} with it quantized"
        attempts.append(attempt(dict.fromkeys(names, reason)))
    return attempts


def layers_taken_out(worst_first: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """Yields the worst layer, the worst two, four, and so on; the last step is the most that may be taken out."""
    limit = min(most, len(worst_first))
    count = 1
    while count < limit:
        yield tuple(worst_first[:count])
        count *= 2
    if limit:
        yield tuple(worst_first[:limit])


def _is_within(attempt: Attempt, float_metric: float, max_drop: float) -> bool:
    return float_metric - attempt.candidate.metric <= max_drop
