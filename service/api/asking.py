"""Which version of a rollout, and which instances of it, compute the extra outputs that a request asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saccade.models.contract.extras import ExtraKind, ExtraOutput, asked_for
from saccade.service.api.catalog import ServingTarget
from saccade.service.errors import BadParameter
from saccade.service.ipc.messages import InstanceStatus
from saccade.service.vision.parameters import GivenParameters


def gives(target: ServingTarget) -> int:
    """The mask of what at least one instance of a version computes."""
    mask = 0
    for instance in target.instances:
        mask |= instance.gives
    return mask


def extras_of(target: ServingTarget) -> tuple[ExtraOutput, ...]:
    """The extra outputs that at least one of its instances computes."""
    return asked_for(target.manifest.extras, gives(target))


def able(turns: Sequence[ServingTarget], given: GivenParameters) -> ServingTarget:
    """The first version that has what a request asks for besides the answer; the first of all where none has it."""
    if not given.asked and not given.quality:
        return turns[0]
    return next((target for target in turns if _has(target, given)), turns[0])


def _has(target: ServingTarget, given: GivenParameters) -> bool:
    is_judged = not given.quality or target.manifest.quality is not None
    named = (each for each in target.instances if given.variant in (None, each.variant))
    among = tuple(named) if given.variant or given.allow_cheaper is not False else _best(target)
    return is_judged and any(not given.asked & ~each.gives for each in among)


def giving(target: ServingTarget, asked: int, variant: str | None, *, allow_cheaper: bool = True) -> ServingTarget:
    """The version with those instances only that compute all that a mask asks for.

    Raises BadParameter when no instance does: of the named variant where one is named, else of the best one where
    nothing cheaper is allowed.
    """
    among = target.instances_of(variant) if variant or allow_cheaper else _best(target)
    if all(not asked & ~instance.gives for instance in target.instances):
        return target
    able = tuple(instance for instance in target.instances if not asked & ~instance.gives)
    if any(instance in able for instance in among):
        return replace(target, instances=able)
    wanted = " and ".join(kind for kind in ExtraKind if kind.bit & asked)
    found = ", ".join(sorted({f"{each.variant} ({each.backend})" for each in among}))
    others = ", ".join(sorted({each.variant for each in able}))
    raise BadParameter(
        f"{wanted!r} is not computed by what serves {target.key.model}/{target.key.version}: {found}; "
        + (f"loaded variants that do: {others}" if others else "ONNX Runtime on processors computes it")
        + ("" if variant or allow_cheaper or not others else ", which allow_cheaper=false forbids")
    )


def _best(target: ServingTarget) -> tuple[InstanceStatus, ...]:
    """The instances of the best variant that is loaded."""
    best = min(instance.ladder_level for instance in target.instances)
    return tuple(instance for instance in target.instances if instance.ladder_level == best)
