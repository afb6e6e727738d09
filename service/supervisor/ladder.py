"""Chooses the variants of a version that form its ladder on a device; `api/fallback.py` decides which one answers.

The idea is that of the families of sub-models of SortedNet (Valipour et al. 2023): the same version in several
trade-offs of accuracy against speed. A ladder holds only variants that passed their gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.repository.variants import (
    NOTHING_ABSENT,
    Absent,
    absent_variants,
    by_exactness,
    choose_variant,
    gate_state,
    is_measured,
    kind_of,
    pair_of,
    preferred,
    ranked_metric,
    runnable_variants,
)

# A level holds memory all the time and costs accuracy when it answers; with a smaller gain it would not help much.
MIN_SPEEDUP = 1.2
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Ladder:
    """The variants by level: level 0 usually serves, and the others answer under load."""

    variants: tuple[Variant, ...]
    left_out: tuple[str, ...] = ()  # "name: reason" of each variant that was named and cannot serve


def ladder_for(
    manifest: Manifest, device: str, wanted: str, names: Sequence[str] | None, absent: Absent = NOTHING_ABSENT
) -> Ladder:
    """Returns the ladder on this device. `names` is `Settings.ladder_names`: None where measurements choose.

    By measurements, level 0 is `wanted`, or with "auto" the variant with the best metric (of equal ones the preferred).
    Each further level is the next variant in accuracy that was measured, in turns on this kind of device, as faster
    beyond doubt than the level before, and by MIN_SPEEDUP. Raises RepositoryError when no variant can serve there.
    """
    if names is None:
        return Ladder(_by_figures(manifest, device, wanted, absent))
    if not names:
        return Ladder((choose_variant(manifest, device, wanted, absent),))
    runnable = {item.name: item for item in runnable_variants(manifest, device, absent)}
    levels = tuple(runnable[name] for name in names if name in runnable)
    left_out = tuple(_why(manifest, device, name, absent) for name in names if name not in runnable)
    return Ladder(levels or (choose_variant(manifest, device, wanted, absent),), left_out)


def _by_figures(manifest: Manifest, device: str, wanted: str, absent: Absent) -> tuple[Variant, ...]:
    kind = kind_of(device)

    def is_level_below(item: Variant, above: Variant) -> bool:
        pair = pair_of(item, above, kind)
        return pair is not None and pair.is_faster and pair.ratio >= MIN_SPEEDUP

    measured = by_exactness(item for item in runnable_variants(manifest, device, absent) if is_measured(item, kind))
    metrics = {item.name: ranked_metric(item, measured) for item in measured}
    measured.sort(key=lambda item: -metrics[item.name])
    best = [item for item in measured if metrics[item.name] == metrics[measured[0].name]]
    is_free = wanted == "auto" and bool(best)
    first = preferred(best, kind) if is_free else choose_variant(manifest, device, wanted, absent)
    return levels_from(first, measured, is_level_below)


def levels_from(
    first: ItemT, by_metric: Iterable[ItemT], is_level_below: Callable[[ItemT, ItemT], bool]
) -> tuple[ItemT, ...]:
    """Returns `first`, then each next item by falling metric that is enough faster than the level above it."""
    levels = [first]
    for item in by_metric:
        if item != levels[-1] and is_level_below(item, levels[-1]):
            levels.append(item)
    return tuple(levels)


def _why(manifest: Manifest, device: str, name: str, absent: Absent) -> str:
    variant = manifest.variant(name)
    if variant is None:
        return f"{name}: the version has no such variant"
    for item, reason in absent_variants(manifest, device, absent):
        if item.name == name:
            return f"{name}: {reason}"
    return f"{name}: not for {device} (target {variant.target}, gate {gate_state(variant)})"
