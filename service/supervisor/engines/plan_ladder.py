"""Chooses the accepted plans that form the ladder of a device, as `supervisor/ladder.py` chooses variants.

The speed is that of the plan; the accuracy is that of its variant, since the gate bounds how far a plan may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.plans import PlanRuntime
from saccade.service.supervisor.engines.candidates import engine_candidates
from saccade.service.supervisor.ladder import MIN_SPEEDUP, levels_from


def ladder_candidates(
    manifest: Manifest, wanted: str, runtime: PlanRuntime, names: Sequence[str] | None
) -> tuple[Variant, ...]:
    """Returns the variants whose plans are built, in this order; `names` is as in `ladder_for`."""
    if names:
        named = tuple(item for name in names for item in engine_candidates(manifest, name, runtime))
        return named or engine_candidates(manifest, wanted, runtime)
    first = engine_candidates(manifest, wanted, runtime)
    if names is None and wanted != "auto":
        others = engine_candidates(manifest, "auto", runtime)
        return (*first, *(item for item in others if item.name != wanted))
    return first


def plan_levels(
    images_per_s: Mapping[str, float], manifest: Manifest, wanted: str, names: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the variants of accepted plans by ladder level, given their measured speeds."""
    if not images_per_s:
        return ()
    fastest = max(images_per_s, key=lambda name: images_per_s[name])
    if names is not None:
        return tuple(name for name in names if name in images_per_s) or (fastest,)
    metric = {item.name: item.metric.value for item in manifest.variants}
    by_metric = sorted(images_per_s, key=lambda name: (-metric[name], -images_per_s[name]))
    named = wanted if wanted in images_per_s else fastest
    return levels_from(
        by_metric[0] if wanted == "auto" else named,
        by_metric,
        lambda name, above: images_per_s[name] >= MIN_SPEEDUP * images_per_s[above] > 0,
    )
