"""Which instances of a version compute the extra outputs that a request asks for."""

from __future__ import annotations

from dataclasses import replace

from saccade.models.contract.extras import ExtraKind, ExtraOutput, asked_for
from saccade.service.api.catalog import ServingTarget
from saccade.service.errors import BadParameter


def extras_of(target: ServingTarget) -> tuple[ExtraOutput, ...]:
    """The extra outputs that at least one of its instances computes."""
    gives = 0
    for instance in target.instances:
        gives |= instance.gives
    return asked_for(target.manifest.extras, gives) if gives else ()


def giving(target: ServingTarget, asked: int, variant: str | None) -> ServingTarget:
    """The version with those instances only that compute all that a mask asks for.

    Raises BadParameter when no instance does, of the named variant where one is named.
    """
    among = target.instances_of(variant)
    able = tuple(instance for instance in target.instances if not asked & ~instance.gives)
    if any(instance in able for instance in among):
        return replace(target, instances=able)
    wanted = " and ".join(kind for kind in ExtraKind if kind.bit & asked)
    found = ", ".join(sorted({f"{each.variant} ({each.backend})" for each in among}))
    others = ", ".join(sorted({each.variant for each in able}))
    raise BadParameter(
        f"{wanted!r} is not computed by what serves {target.key.model}/{target.key.version}: {found}; "
        + (f"loaded variants that do: {others}" if others else "ONNX Runtime on processors computes it")
    )
