"""Which accepted plans serve a device, best level first. Promises: pure; as `supervisor/ladder.py`, by plans' figures.

A plan has its own measured speed; its variant's metric says how accurate it is, since the gate bounds how far the plan
may be from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.supervisor.engines.candidates import engine_candidates
from saccade.service.supervisor.ladder import MIN_SPEEDUP


def ladder_candidates(manifest: Manifest, wanted: str, names: Sequence[str] | None) -> tuple[Variant, ...]:
    """Variants whose plans are built, in this order; `names` as in `ladder_for`."""
    if names:
        named = tuple(item for name in names for item in engine_candidates(manifest, name))
        return named or engine_candidates(manifest, wanted)
    first = engine_candidates(manifest, wanted)
    if names is None and wanted != "auto":
        others = engine_candidates(manifest, "auto")
        return (*first, *(item for item in others if item.name != wanted))
    return first


def plan_levels(
    images_per_s: Mapping[str, float], manifest: Manifest, wanted: str, names: Sequence[str] | None
) -> tuple[str, ...]:
    """Variants of accepted plans, given their measured speeds; empty without any."""
    if not images_per_s:
        return ()
    fastest = max(images_per_s, key=lambda name: images_per_s[name])
    if names is not None:
        return tuple(name for name in names if name in images_per_s) or (fastest,)
    metric = {item.name: item.metric.value for item in manifest.variants}
    by_metric = sorted(images_per_s, key=lambda name: (-metric[name], -images_per_s[name]))
    named = wanted if wanted in images_per_s else fastest
    levels = [by_metric[0] if wanted == "auto" else named]
    for name in by_metric:
        if images_per_s[name] >= MIN_SPEEDUP * images_per_s[levels[-1]] > 0:
            levels.append(name)
    return tuple(levels)
