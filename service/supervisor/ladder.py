"""Chooses the variants of a version that form its ladder on a device; `api/fallback.py` decides which one answers.

The idea is that of the families of sub-models of SortedNet (Valipour et al. 2023): the same version in several
trade-offs of accuracy against speed. A ladder holds only variants that passed their gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.repository.variants import choose_variant, gate_state, images_per_s, kind_of, runnable_variants

# A level holds memory all the time and costs accuracy when it answers; with a smaller gain it would not help much.
MIN_SPEEDUP = 1.2
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Ladder:
    """The variants by level: level 0 usually serves, and the others answer under load."""

    variants: tuple[Variant, ...]
    left_out: tuple[str, ...] = ()  # "name: reason" of each variant that was named and cannot serve


def ladder_for(manifest: Manifest, device: str, wanted: str, names: Sequence[str] | None) -> Ladder:
    """Returns the ladder on this device. `names` is `Settings.ladder_names`: None where measurements choose.

    By measurements, level 0 is `wanted`, or with "auto" the variant with the best metric (of equal ones the faster).
    Each further level is the next variant in accuracy that was measured, on this kind of device, as faster by
    MIN_SPEEDUP than the level before. Raises RepositoryError when no variant of the version can serve there.
    """
    if names is None:
        return Ladder(_by_figures(manifest, device, wanted))
    if not names:
        return Ladder((choose_variant(manifest, device, wanted),))
    runnable = {item.name: item for item in runnable_variants(manifest, device)}
    levels = tuple(runnable[name] for name in names if name in runnable)
    left_out = tuple(_why(manifest, device, name) for name in names if name not in runnable)
    return Ladder(levels or (choose_variant(manifest, device, wanted),), left_out)


def _by_figures(manifest: Manifest, device: str, wanted: str) -> tuple[Variant, ...]:
    def speed(item: Variant) -> float:
        return images_per_s(item, kind_of(device))

    measured = [item for item in runnable_variants(manifest, device) if speed(item) > 0]
    measured.sort(key=lambda item: (-item.metric.value, -speed(item)))
    is_free = wanted == "auto" and bool(measured)
    first = measured[0] if is_free else choose_variant(manifest, device, wanted)
    return levels_from(first, measured, speed)


def levels_from(first: ItemT, by_metric: Iterable[ItemT], speed: Callable[[ItemT], float]) -> tuple[ItemT, ...]:
    """Returns `first`, then each next item by falling metric that is faster than the level above it by MIN_SPEEDUP."""
    levels = [first]
    for item in by_metric:
        if speed(item) >= MIN_SPEEDUP * speed(levels[-1]) > 0:
            levels.append(item)
    return tuple(levels)


def _why(manifest: Manifest, device: str, name: str) -> str:
    variant = manifest.variant(name)
    if variant is None:
        return f"{name}: the version has no such variant"
    return f"{name}: not for {device} (target {variant.target}, gate {gate_state(variant)})"
