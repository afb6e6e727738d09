"""The supervisor's decisions on simulated workers and API processes: no process, no file, no clock.

Every step holds what must always hold: a worker loads one instance at a time, no device holds more than it may, no
instance that answers is taken from a process that may still reach it, and the last version that answers does not leave.
"""

from __future__ import annotations

from pathlib import Path

from saccade.service.core import VersionKey
from saccade.service.ipc import messages
from saccade.service.repository.open import Fingerprint, FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.settings import Settings
from saccade.service.supervisor.desired import Load, Put, Unload, commands, desired
from saccade.service.supervisor.engines.plan_decision import PlanDecision
from saccade.service.supervisor.facts import Facts, memory_key
from saccade.service.supervisor.observed import Observed
from saccade.service.supervisor.placement.specs import InstanceSpec, Specs, has_plans
from saccade.service.supervisor.policy import ServingPolicy
from saccade.service.supervisor.state import (
    Held,
    Leaving,
    Loading,
    Placed,
    Ready,
    Refused,
    Slot,
    Verified,
    version_status,
)
from tests.support.versions import manifest_for

MIB = 1024 * 1024
A, B = "cuda:0", "cuda:1"
MANIFEST = manifest_for("digits", 1)
MAX_STEPS = 200


class Simulation:
    """Devices of 100 MiB each. An instance of a version takes twice its file, until it is measured."""

    def __init__(
        self,
        *devices: str,
        backend: str = "fake",  # its devices have no plans
        **settings: object,
    ) -> None:
        self.observed = Observed()
        self.devices = devices or (A,)
        names = {"device": ",".join(self.devices), "backend": backend}
        memory = {"device_memory_reserve_mb": 0, "device_memory_limit_mb": 100}
        self.settings = Settings.model_validate({**names, **memory, **settings})
        self.found: dict[VersionKey, FoundVersion] = {}
        self.policies: dict[str, ServingPolicy] = {}
        self.kept: set[VersionKey] = set()
        self.plans: dict[tuple[VersionKey, str], PlanDecision | str] = {}
        self.now_s = 0.0
        self.generation = 1
        self.acknowledged = 1
        self.orders: list[messages.Load] = []  # given and not finished
        self.unloads: list[int] = []
        self.evicted: list[str] = []
        self.is_waiting = False
        self.sizes: dict[VersionKey, tuple[int, ...]] = {}
        self.refused: dict[VersionKey, str] = {}
        for device in self.devices:
            self.observed.device_ready(device, messages.DeviceFacts())

    # What happens

    def publish(self, model: str, version: int = 1, *file_mib: int, stamp: int = 0, refusal: str = "") -> VersionKey:
        """A version whose ladder has a level for each file size; without any, it needs no memory."""
        key = VersionKey(model, version)
        fingerprint: Fingerprint = (("model.onnx", 7, stamp),)
        self.found[key] = FoundVersion(key, Path(f"{model}/{version}"), fingerprint)
        self.sizes[key] = file_mib or (0,)
        if refusal:
            self.refused[key] = refusal
        else:
            self.refused.pop(key, None)
        return key

    def remove(self, key: VersionKey) -> None:
        del self.found[key]

    def use(self, key: VersionKey, in_flight: int = 0) -> None:
        self.observed.used("api-0", [messages.Usage(key.model, key.version, in_flight, self.now_s)])

    def lose(self, device: str) -> None:
        """The worker of a device dies, and the next one comes up."""
        self.observed.device_lost(device)
        states = self.observed.instances.values()
        loading = {state.instance_id for state in states if isinstance(state, Loading)}
        leaving = {state.instance_id for state in states if isinstance(state, Leaving)}
        self.orders = [order for order in self.orders if order.instance_id in loading]
        self.unloads = [number for number in self.unloads if number in leaving]
        self.observed.device_ready(device, messages.DeviceFacts())

    def finish(self, state: str = "ready", memory_mib: int = 0, reason: str = "") -> messages.Load:
        """The first load that was ordered ends."""
        order = self.orders.pop(0)
        provider = "CPUExecutionProvider"
        report = messages.InstanceState(order.instance_id, state, reason, provider, 1.0, memory_mib * MIB)
        self.observed.reported(report, self.now_s)
        self.step()
        return order

    def warm(self) -> None:
        """The first load that was ordered reports that it is warming up."""
        report = messages.InstanceState(self.orders[0].instance_id, "warming", "", "", 0.5)
        self.observed.reported(report, self.now_s)

    # What the supervisor does

    def step(self, *, checks: bool = True) -> bool:
        """One turn of the reconciler; returns whether it changed anything."""
        answering = self.answering()
        wanted = desired(self.facts(), self.settings)
        self.is_waiting = wanted.is_waiting
        for key in wanted.evicted:
            self.evicted.append(key.model)
            self.observed.evicted(key)
        for key in wanted.forget:
            self.observed.forgotten(key)
        for found in wanted.verify:
            self.observed.added(found)
            self.observed.checked(found, self._checked(found.key))
        steps = commands(
            wanted.instances, self.observed.instances, self.devices, self.generation + 1, self.acknowledged
        )
        for step in steps:
            before = self.observed.instances.get(step.slot)
            match step:
                case Put(slot, state):
                    assert isinstance(before, Ready) == isinstance(state, Leaving)
                    assert not isinstance(before, Loading | Leaving)
                    if isinstance(state, Leaving) and slot.level:
                        self.evicted.append(f"{slot.key.model}'s {slot.spec.variant}")
                    self.observed.put(slot, state)
                case Load(slot, was_ready):
                    assert isinstance(before, Placed)
                    order = self.observed.loading(slot, was_ready)
                    assert order is not None
                    self.orders.append(order)
                case Unload(slot, state):
                    assert before == state
                    assert state.generation <= self.acknowledged
                    self.observed.told(slot, state)
                    self.unloads.append(state.instance_id)
        if checks:
            self._check(answering)
        changed = bool(steps or wanted.evicted or wanted.forget or wanted.verify)
        self.generation += changed
        return changed

    def settle(self, *, acknowledge: bool = True) -> None:
        """Steps, ends loads well and unloads until nothing changes."""
        for _ in range(MAX_STEPS):
            changed = self.step()
            while self.orders:
                self.finish()
                changed = True
            if acknowledge and self.acknowledged != self.generation:
                self.acknowledged = self.generation
                changed = True
            while self.unloads:
                self.observed.unloaded(self.unloads.pop())
                changed = True
            if not changed:
                return
        raise AssertionError(f"not settled in {MAX_STEPS} steps: {self.observed.instances}")

    def facts(self) -> Facts:
        return self.observed.facts(tuple(self.found.values()), self.policies, self.kept, self.plans, self.now_s)

    def _checked(self, key: VersionKey) -> Refused | Verified:
        if key in self.refused:
            return Refused(self.refused[key])
        others = [device for device in self.devices if not has_plans(device, self.settings)]
        specs = Specs({device: self.specs(key, device) for device in others})
        on_demand = self.settings.load_models == "on_demand" and key.model not in self.settings.pinned
        is_asleep = on_demand and not self.observed.is_loaded(key.model)
        verified = VerifiedVersion(MANIFEST, f"digest-{key.model}-{key.version}", Path())
        return Verified(verified, (1,), specs, on_demand, is_asleep)

    def specs(self, key: VersionKey, device: str) -> tuple[InstanceSpec, ...]:
        return tuple(
            InstanceSpec(device, f"level-{level}", "onnxruntime", file_bytes=size * MIB, ladder_level=level)
            for level, size in enumerate(self.sizes[key])
        )

    def _check(self, answering: set[VersionKey]) -> None:
        instances = self.observed.instances
        for device in self.devices:
            loading = [
                slot for slot, state in instances.items() if slot.device == device and isinstance(state, Loading)
            ]
            assert len(loading) <= 1, loading
            on_device = [slot for slot, state in instances.items() if slot.device == device and isinstance(state, Held)]
            assert sum(map(self.bytes_of, on_device)) <= 100 * MIB, on_device
        for model in {key.model for key in answering}:
            before = {key for key in answering if key.model == model}
            kept = self.answering() & before
            is_there = any(key.model == model for key in self.found)
            gone = all(key not in self.found or key in self.refused or self._is_quarantined(key) for key in before)
            asleep = any(key.model == model and v.is_asleep for key, v in self.observed.versions.items())
            assert kept or gone or asleep or not is_there, f"nothing of {model} answers any more"

    def _is_quarantined(self, key: VersionKey) -> bool:
        version = self.observed.versions.get(key)
        return version is not None and version.quarantine is not None

    def bytes_of(self, slot: Slot) -> int:
        """Memory of an instance: measured, or else twice its file."""
        version = self.observed.versions.get(slot.key)
        measured = self.facts().measured
        known = measured.get(memory_key(slot, version.verified), 0) if version and version.verified else 0
        return known or 2 * slot.spec.file_bytes

    # What is seen

    def answering(self) -> set[VersionKey]:
        return {slot.key for slot, state in self.observed.instances.items() if isinstance(state, Ready)}

    @property
    def ready(self) -> set[str]:
        return {f"{key.model}/{key.version}" for key in self.answering()}

    def status(self, key: VersionKey) -> messages.VersionStatus:
        instances = self.facts().of(key)
        return version_status(key, self.observed.versions[key], instances, ())

    def states(self, key: VersionKey) -> list[tuple[str, str]]:
        return [(item.device, item.state) for item in self.status(key).instances]
