"""Decides what should be loaded where, and which commands lead there. Pure: everything known comes in as `Facts`.

1. `plan_versions` says which versions are wanted, by what was found and by each model's policy.
2. Each wanted version has instances: its variants on devices without TensorRT, and what was decided about plans on the
   others. What answers on a device stays until its replacement is ready there.
3. `allocate` gives them places within memory, and says what leaves for them.
4. `commands` compares that with what is there. A worker loads one instance at a time, so that it is known which one
   killed it: first what was ready before. A version that was ready nowhere is tried on one device first. An instance
   is unloaded once no API process can reach it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from saccade.service.core import VersionKey, VersionState
from saccade.service.repository.open import FoundVersion
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.plan_decision import PlanDecision, Serving
from saccade.service.supervisor.facts import Facts, instances_by_version
from saccade.service.supervisor.placement.allocate import Group, allocate
from saccade.service.supervisor.placement.place import Policy
from saccade.service.supervisor.placement.specs import InstanceSpec, has_plans
from saccade.service.supervisor.state import (
    Building,
    Failed,
    Held,
    InstanceState,
    Leaving,
    Loading,
    NoRoom,
    Placed,
    Ready,
    Slot,
    Staying,
    Verified,
    Version,
    Waiting,
    is_settled,
    may_recover,
    version_state,
)
from saccade.service.supervisor.wanted import KnownVersion, RepositoryPlan, plan_versions


@dataclass(frozen=True, slots=True)
class Desired:
    instances: Mapping[Slot, InstanceState]  # what each should be; Placed stands for all states that hold memory
    verify: tuple[FoundVersion, ...] = ()
    forget: tuple[VersionKey, ...] = ()
    leaving: tuple[VersionKey, ...] = ()
    missing: tuple[VersionKey, ...] = ()  # stay loaded without their directories
    evicted: frozenset[VersionKey] = frozenset()
    released: frozenset[Slot] = frozenset()  # cheaper ladder levels that give way to other versions
    is_waiting: bool = False  # time alone may change the decision


def desired(facts: Facts, settings: Settings) -> Desired:
    versions = facts.versions
    plan_devices = [device for device in settings.devices if has_plans(device, settings)]
    plan = _plan(facts, settings, plan_devices)
    gone = {*plan.unload, *plan.forget}
    wishes: dict[Slot, InstanceState] = {}
    groups: list[Group] = []
    for key, version in versions.items():
        mine = facts.of(key)
        verified = version.verified
        if key in gone or verified is None or verified.is_asleep or version.quarantine is not None:
            continue
        if key in plan.wanted:
            own = {
                slot: wish
                for each in _wishes(key, verified, facts, plan_devices, settings.placement)
                for slot, wish in each.items()
            }
            wishes.update(own)
            groups += _groups(key, verified, own)
        else:  # it stays as it is until newer versions are ready
            wishes.update({slot: state for slot, state in mine.items() if not isinstance(state, Leaving | Waiting)})
    staying = [slot for slot, wish in wishes.items() if isinstance(wish, Held)]
    allocation = allocate(groups, staying, facts, settings)
    for group in groups:
        for slot in group.slots.values():
            wishes.pop(slot)
    wishes.update(allocation.states)
    released = {slot for slot in wishes if slot in allocation.released or slot.key in allocation.evicted}
    idle = [
        key
        for key, version in versions.items()
        if key not in plan.wanted and not facts.of(key) and version.verified and version.quarantine is None
    ]
    return Desired(
        {slot: wish for slot, wish in wishes.items() if slot not in released},
        plan.load,
        (*plan.forget, *idle),
        plan.unload,
        plan.missing,
        allocation.evicted,
        allocation.released,
        allocation.is_waiting,
    )


def _plan(facts: Facts, settings: Settings, plan_devices: Sequence[str]) -> RepositoryPlan:
    known = {}
    for key, version in facts.versions.items():
        states = facts.of(key).values()
        state = version_state(version, states)
        if version.quarantine is not None:
            state = VersionState.FAILED  # it does not count, so that the version before it serves
        elif version.is_asleep:
            state = VersionState.READY  # it counts as ready, because its first request loads it
        elif state is VersionState.READY and not is_settled(version, states):
            state = VersionState.WARMING
        decided = any(isinstance(facts.plans.get((key, device)), PlanDecision) for device in plan_devices)
        known[key] = KnownVersion(state, version.found.fingerprint, may_recover(version, states, is_decided=decided))
    return plan_versions(facts.found, known, settings.versions_per_model, facts.policies, facts.kept)


def _wishes(
    key: VersionKey, verified: Verified, facts: Facts, plan_devices: Sequence[str], policy: Policy
) -> Iterator[dict[Slot, InstanceState]]:
    """Yields what a wanted version should have on each device; Waiting stands for an instance without a place."""
    specs, mine = verified.specs, facts.of(key)
    by_device: dict[str, dict[Slot, InstanceState]] = {
        device: {slot: mine.get(slot, Waiting()) for slot in (Slot(key, spec) for spec in levels)}
        for device, levels in specs.by_device.items()
    }
    for device, reason in specs.refusals.items():
        by_device[device] = {Slot(key, InstanceSpec(device, "", "")): Failed(reason)}
    undecided = False
    for device in plan_devices:
        decision = facts.plans.get((key, device))
        here = {slot: state for slot, state in mine.items() if slot.device == device and not isinstance(state, Leaving)}
        by_device[device] = _with_plans(key, device, here, decision)
        is_open = decision is None or (isinstance(decision, PlanDecision) and decision.serve is None)
        undecided |= is_open and device not in facts.lost
    if policy == "spread":
        chosen = {slot.device for slot, state in mine.items() if isinstance(state, Staying)}
        if chosen:
            by_device = {device: wishes for device, wishes in by_device.items() if device in chosen}
        elif undecided:  # it is placed once all devices have decided
            for wishes in by_device.values():
                yield {slot: wish for slot, wish in wishes.items() if not isinstance(wish, Waiting)}
            return
    yield from by_device.values()


def _with_plans(
    key: VersionKey, device: str, here: Mapping[Slot, InstanceState], decision: PlanDecision | str | None
) -> dict[Slot, InstanceState]:
    """Returns what a version should have on a GPU."""
    held: dict[Slot, InstanceState] = {slot: state for slot, state in here.items() if isinstance(state, Held)}
    if decision is None:
        return {**here}
    if isinstance(decision, str):
        return held or {Slot(key, InstanceSpec(device, "", "")): Failed(decision)}
    if decision.serve is None:
        if held or decision.build is None:
            return held
        return {Slot(key, InstanceSpec(device, decision.build.variant, decision.build.key.backend)): Building()}
    levels = [_slot(key, device, serving, level) for level, serving in enumerate((decision.serve, *decision.cheaper))]
    wishes: dict[Slot, InstanceState] = {slot: here.get(slot, Waiting()) for slot in levels}
    if not isinstance(here.get(levels[0]), Ready):  # what answers now stays until then
        wishes |= {slot: state for slot, state in held.items() if slot.level == 0}
    return wishes


def _slot(key: VersionKey, device: str, serving: Serving, level: int) -> Slot:
    opened = (serving.plan_dir, serving.plan_sha256, serving.file_bytes)
    return Slot(key, InstanceSpec(device, serving.variant, serving.backend, *opened, level))


def _groups(key: VersionKey, verified: Verified, wishes: Mapping[Slot, InstanceState]) -> list[Group]:
    """Returns the instances that have no place."""
    groups: dict[int, dict[str, Slot]] = {}
    for slot, wish in wishes.items():
        if isinstance(wish, Waiting | NoRoom):
            groups.setdefault(slot.level, {})[slot.device] = slot
    return [Group(key, level, slots, verified.turn) for level, slots in groups.items()]


# Commands


@dataclass(frozen=True, slots=True)
class Put:
    """Changes the state of an instance that no worker is told of; None forgets it."""

    slot: Slot
    state: InstanceState | None


@dataclass(frozen=True, slots=True)
class Load:
    slot: Slot
    was_ready: bool


@dataclass(frozen=True, slots=True)
class Unload:
    slot: Slot
    state: Leaving


Command = Put | Load | Unload


def commands(
    wanted: Mapping[Slot, InstanceState],
    instances: Mapping[Slot, InstanceState],
    open_devices: Collection[str],
    generation: int,
    acknowledged: int,
) -> list[Command]:
    """Returns the next steps from `instances` to `wanted`.

    `generation` is the number of the catalog that will be sent next, `acknowledged` that of the oldest one in use.
    """
    found: list[Command] = []
    after = dict(instances)
    for slot, state in instances.items():
        match state:
            case Leaving():
                if not state.is_told and state.generation <= acknowledged:
                    found.append(Unload(slot, state))
            case Ready() if slot not in wanted:
                found.append(Put(slot, Leaving(state.instance_id, state.memory_bytes, generation)))
            case Loading():
                pass  # a load cannot be cut short
            case _ if slot not in wanted:
                found.append(Put(slot, None))
                del after[slot]
    for slot, wish in wanted.items():
        now = instances.get(slot)
        if not isinstance(now, Held) and now != wish:
            found.append(Put(slot, wish))
            after[slot] = wish
    return [*found, *_loads(after, open_devices)]


def _loads(instances: Mapping[Slot, InstanceState], open_devices: Collection[str]) -> Iterator[Load]:
    """Yields the loads to begin: one per device, what was ready before first.

    While anything serves, a version that was ready nowhere loads on one device alone, so that it cannot take all of
    them away.
    """
    loading = {slot: state for slot, state in instances.items() if isinstance(state, Loading)}
    busy = {slot.device for slot in loading}
    trying = {slot.key for slot in loading}
    proven = {
        slot.key
        for slot, state in instances.items()
        if isinstance(state, Ready) or (isinstance(state, Placed | Loading) and state.was_ready)
    }
    for device in open_devices:
        waiting = {
            slot: state
            for slot, state in instances.items()
            if slot.device == device
            and isinstance(state, Placed)
            and not (proven and slot.key not in proven and slot.key in trying)
        }
        if waiting and device not in busy:
            first = min(waiting, key=lambda slot: (not waiting[slot].was_ready, slot.level, -slot.key.version))
            trying.add(first.key)
            yield Load(first, waiting[first].was_ready)


def is_waiting_for_nothing(versions: Mapping[VersionKey, Version], instances: Mapping[Slot, InstanceState]) -> bool:
    """Returns whether every version is ready somewhere, has failed, is quarantined, or waits for its first request."""
    by_key = instances_by_version(instances)
    for key, version in versions.items():
        on_demand = version.verified is not None and version.verified.on_demand
        state = version_state(version, by_key.get(key, {}).values())
        if state not in (VersionState.READY, VersionState.FAILED, VersionState.QUARANTINED) and not on_demand:
            return False
    return True
