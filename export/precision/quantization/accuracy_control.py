"""Keeps the most sensitive layers float while the metric is out of budget; every try is returned.

After NNCF's quantization with accuracy control, with layers ranked by the noise each one causes at the outputs. The
heads go first: they are small, and nothing behind them evens their rounding out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from saccade.export.graph.onnx_graph import WEIGHTED_OPS, layer_of, weighted_part
from saccade.export.precision.quantization.candidates import Attempt, Candidate

_NAMED = 4  # layers in a line; the report has a table of all
Try = Callable[[Mapping[str, str]], Attempt]  # quantizes all but the named layers, and measures


@dataclass(frozen=True, slots=True)
class ControlTerms:
    """What is asked of the tuning metric, and what may be spent on it."""

    drop: Callable[[Candidate], float]  # below the float network, as the gate will ask: the upper end, worst metric
    max_drop: float
    max_float_layers: int
    is_time_left: Callable[[], bool]


def controlled(
    first: Attempt, heads: Sequence[str], worst_first: Sequence[str], terms: ControlTerms, attempt: Try
) -> list[Attempt]:
    """Returns the attempts in order, `first` included; the last one is within budget, or the best that was possible."""
    attempts = [first]
    steps = layers_taken_out(heads, worst_first, terms.max_float_layers)
    drops = [terms.drop(first.candidate)]
    while drops[-1] > terms.max_drop:
        names = next(steps, None) if terms.is_time_left() else None
        if names is None:
            best = attempts[drops.index(min(drops))]
            return [*(each for each in attempts if each is not best), best]
        reason = f"sensitive: the metric fell by more than {terms.max_drop:g} with it quantized"
        attempts.append(attempt(dict.fromkeys(names, reason)))
        drops.append(terms.drop(attempts[-1].candidate))
    return attempts


def layers_taken_out(heads: Sequence[str], worst_first: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """The heads; with them the worst layer, the worst two, four, and so on; the last step is all that may be taken."""
    others = [name for name in worst_first if name not in heads]
    whole = (*heads, *others)[:most]
    if not whole:
        return
    count, taken = 0, heads
    while len(taken) < len(whole):
        if taken:
            yield tuple(taken)
        count = max(1, 2 * count)
        taken = (*heads, *others[:count])
    yield whole


def head_layers(model: onnx.ModelProto) -> list[str]:
    """Weighted nodes whose results reach the network's outputs through no other weighted node."""
    nodes = weighted_part(model)
    reaches_another: set[str] = set()  # tensors that some weighted node reads, at any distance
    heads = []
    for node in reversed(nodes):
        leads_on = any(name in reaches_another for name in node.output)
        is_weighted = node.op_type in WEIGHTED_OPS
        if is_weighted and not leads_on:
            heads.append(node.name)
        if is_weighted or leads_on:
            reaches_another |= set(node.input)
    return heads[::-1]


def told(attempts: Sequence[Attempt], terms: ControlTerms) -> str:
    """What control did, for the report: layers, what was gained, and what else to try where it was not enough.

    Empty where the first attempt was within budget.
    """
    plain, last = max(attempts, key=lambda each: len(each.plan.nodes)), attempts[-1]
    before, after = terms.drop(plain.candidate), terms.drop(last.candidate)
    if before <= terms.max_drop:
        return ""
    kept = set(last.plan.nodes)
    names = [layer_of(name) or name for name in plain.plan.nodes if name not in kept]
    listed = f" ({', '.join(names[:_NAMED])}{', …' if len(names) > _NAMED else ''})" if names else ""
    gained = (
        f"{len(names)} layers stay float{listed}: the upper end of the tuning metric's drop went from {before:.4f} to "
        f"{after:.4f}, {terms.max_drop:g} was asked"
    )
    if after <= terms.max_drop:
        return gained
    spent = "" if terms.is_time_left() else "; the time ended (calibration.accuracy_control.budget_s)"
    return (
        f"{gained}{spent}. Try more calibration images, calibration.keep_float, a larger max_float_layers, or training "
        "with quantization"
    )
