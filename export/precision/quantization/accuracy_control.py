"""Takes sensitive layers out of quantization. Promises: only while a metric is out of budget; every try is reported.

After NNCF's quantization with accuracy control, with layers ranked by the noise each one causes at the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from saccade.export.precision.quantization.candidates import Attempt
from saccade.export.recipe import AccuracyControlSpec

Try = Callable[[Mapping[str, str]], Attempt]  # quantizes all but the named layers, and measures


def controlled(
    first: Attempt, float_metric: float, worst_first: Sequence[str], spec: AccuracyControlSpec, attempt: Try
) -> list[Attempt]:
    """Attempts in order, the first included; the last one is within budget, or the best that was possible."""
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
    """The worst layer, the worst two, four, and so on; the last step is all that may be taken."""
    limit = min(most, len(worst_first))
    count = 1
    while count < limit:
        yield tuple(worst_first[:count])
        count *= 2
    if limit:
        yield tuple(worst_first[:limit])


def _is_within(attempt: Attempt, float_metric: float, max_drop: float) -> bool:
    return float_metric - attempt.candidate.metric <= max_drop
