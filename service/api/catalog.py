"""The models as an API process knows them: which version answers a request, and on which instances.

The supervisor sends the whole catalog on every change. A request sees one snapshot only. A snapshot is applied at once,
and acknowledged when no request of this process can reach an instance that the snapshot does not list as ready.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass, field

from saccade.models.contract.manifest import Manifest
from saccade.service.api.canary import CANARY, goes_to_canary, is_drawn
from saccade.service.api.tallies import Tally
from saccade.service.core import STABLE, VersionKey, VersionState
from saccade.service.errors import BadParameter, InferenceFailed, NotFinite, NotFound, NotLoaded, NotReady, SaccadeError
from saccade.service.ipc.messages import (
    Answered,
    Catalog,
    InstanceStatus,
    ModelStatus,
    Usage,
    VersionStatus,
    VersionTally,
)
from saccade.service.ipc.tensor_slots import SlotLayout, layout_of
from saccade.service.metrics import Metrics, VersionMetrics
from saccade.service.vision.parameters import GivenParameters, Parameters


@dataclass(slots=True)
class VersionUsage:
    """How many requests of this process use a version now, when the last one ended (monotonic), and how they ended."""

    in_flight: int = 0
    last_used_s: float = 0.0
    answered: int = 0  # since they were last reported, as the next two
    failed: int = 0
    not_finite: int = 0

    def count(self, errors: Collection[SaccadeError | None]) -> None:
        """Counts a request by its images' errors. One that was refused, shed or late says nothing of a version."""
        failures = [error for error in errors if isinstance(error, InferenceFailed) or type(error) is SaccadeError]
        if failures:
            self.failed += 1
            self.not_finite += any(isinstance(error, NotFinite) for error in failures)
        elif None in errors:
            self.answered += 1


@dataclass(frozen=True, slots=True, eq=False)
class ServingTarget:
    """The version that answers one request: its ready instances and all that is needed to send requests to them."""

    key: VersionKey
    instances: tuple[InstanceStatus, ...]  # those on devices with a working worker; all ready ones if no worker works
    manifest: Manifest
    layout: SlotLayout
    metrics: VersionMetrics
    usage: VersionUsage = field(default_factory=VersionUsage)
    tally: Tally = field(default_factory=Tally)
    objective_s: float = 0.0  # of requests without a deadline, by the model's document; 0: the server's objective
    loading: tuple[str, ...] = ()  # variants that are on their way
    parameters: dict[GivenParameters, Parameters] = field(default_factory=dict)  # checked already; they leave with it

    def instances_of(self, variant: str | None) -> tuple[InstanceStatus, ...]:
        """Returns a variant's instances, or all for None. Raises NotReady while it loads, BadParameter without it."""
        if variant is None:
            return self.instances
        found = tuple(instance for instance in self.instances if instance.variant == variant)
        if not found:
            loaded = ", ".join(sorted({repr(instance.variant) for instance in self.instances}))
            named = f"variant {variant!r} of {self.key.model}/{self.key.version}"
            if variant in self.loading:
                raise NotReady(f"{named} is being loaded; loaded: {loaded}")
            raise BadParameter(f"{named} is not loaded; loaded: {loaded} (SACCADE_VARIANT chooses)")
        return found


EMPTY_CATALOG = Catalog(0, (), (), False)
NO_DOCUMENT = ModelStatus("")
_ON_THE_WAY = (VersionState.BUILDING, VersionState.LOADING, VersionState.WARMING)
_SHADOW_SALT = b"shadow"  # so that the images that are drawn do not depend on which requests the canary gets


def default_version(ready_versions: Collection[int], serving: ModelStatus = NO_DOCUMENT) -> int | None:
    """Returns the version that answers requests without a version, or None when none can.

    It is the one that the model's document holds as stable, or else the newest ready one.
    """
    if serving.stable:
        return serving.stable if serving.stable in ready_versions else None
    return max(ready_versions, default=None)


def labels_of(ready_versions: Collection[int], serving: ModelStatus = NO_DOCUMENT) -> dict[str, int]:
    """Maps each label to the version that it names, which may still be loading; stable is there once it answers."""
    stable = default_version(ready_versions, serving)
    canary = {CANARY: serving.canary} if serving.canary else {}
    return {**({} if stable is None else {STABLE: stable}), **canary, **dict(serving.labels)}


class ServingCatalog:
    """The current snapshot, and counts of the requests that use it or an older one."""

    def __init__(
        self,
        metrics: Metrics,
        acknowledge: Callable[[int], None],
        desire: Callable[[VersionKey], None] = lambda key: None,
    ) -> None:
        """`desire` is called with each version that requests wait for, once per snapshot."""
        self.snapshot = EMPTY_CATALOG
        self._metrics = metrics
        self._acknowledge = acknowledge
        self._targets: dict[VersionKey, ServingTarget] = {}
        self._manifests: dict[VersionKey, Manifest] = {}
        self._resolved: dict[tuple[str, str | None, str | None], ServingTarget] = {}  # results of `resolve`
        self._canaries: dict[str, ModelStatus] = {}  # models with a canary that is ready
        self._shadows: dict[VersionKey, tuple[ServingTarget, float]] = {}  # by the version that is stable
        self._tallies: dict[VersionKey, Tally] = {}
        self._in_flight: Counter[int] = Counter()
        self._unacknowledged: int | None = None
        self._desire = desire
        self._changed: asyncio.Future[None] | None = None
        self._usages: dict[VersionKey, VersionUsage] = {}
        self._reported: dict[VersionKey, Usage] = {}
        self._asked: dict[VersionKey, int] = {}  # the catalog generation in which each version was last asked for

    def serving(self, model: str) -> ModelStatus:
        """Returns the desired state of a model."""
        return next((status for status in self.snapshot.models if status.model == model), NO_DOCUMENT)

    def knows(self, model: str) -> bool:
        """Whether a model has versions or a document, served or not."""
        return any(status.model == model for each in (self.snapshot.versions, self.snapshot.models) for status in each)

    def manifest(self, key: VersionKey) -> Manifest | None:
        return self._manifests.get(key)

    def apply(self, snapshot: Catalog, manifests: Mapping[VersionKey, Manifest]) -> None:
        """Replaces the snapshot; `manifests` holds the manifest of every version whose manifest is readable."""
        self._forget_tallies(snapshot)
        self.snapshot = snapshot
        self._manifests = dict(manifests)
        up = {device.device for device in snapshot.devices if device.up}
        self._targets = {
            _key(status): self._target(status, manifests[_key(status)], up)
            for status in snapshot.versions
            if status.state == VersionState.READY and _key(status) in manifests
        }
        self._resolved.clear()
        self._canaries = {
            serving.model: serving
            for serving in snapshot.models
            if serving.canary and VersionKey(serving.model, serving.canary) in self._targets
        }
        self._shadows = dict(filter(None, map(self._shadow, snapshot.models)))
        self._forget(present={_key(status) for status in snapshot.versions})
        self._unacknowledged = snapshot.generation
        self._acknowledge_if_reconciled()
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def _forget(self, present: Set[VersionKey]) -> None:
        left = [key for key, usage in self._usages.items() if key not in present and not usage.in_flight]
        for key in left:
            del self._usages[key]
            self._metrics.version_left(key.model, str(key.version))
        self._asked = {key: generation for key, generation in self._asked.items() if key in present}
        self._tallies = {key: tally for key, tally in self._tallies.items() if key in present}

    def ask(self, key: VersionKey) -> None:
        """Asks the supervisor to load a version, at most once per snapshot; waiting requests ask again in the next."""
        if self._asked.get(key) != self.snapshot.generation:
            self._asked[key] = self.snapshot.generation
            self._desire(key)

    async def changed(self) -> None:
        """Waits until the next snapshot has been applied."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def load_seconds(self, key: VersionKey) -> float:
        """Returns the seconds that the last load of a version took; 0 before the first."""
        return next((status.load_seconds for status in self.snapshot.versions if _key(status) == key), 0.0)

    def usages(self) -> tuple[Usage, ...]:
        """Returns the usages that changed since the last call."""
        now = {
            key: Usage(key.model, key.version, usage.in_flight, usage.last_used_s)
            for key, usage in self._usages.items()
        }
        changed = tuple(usage for key, usage in now.items() if self._reported.get(key) != usage)
        self._reported = now
        return changed

    def answers(self, *, only_if_failed: bool) -> tuple[Answered, ...]:
        """Returns how requests ended since the last call that returned any; if so asked, none where none failed."""
        usages = self._usages.items()
        if only_if_failed and not any(usage.failed for _, usage in usages):
            return ()
        counts = []
        for key, usage in usages:
            if usage.answered or usage.failed:
                ended = (usage.answered + usage.failed, usage.failed, usage.not_finite)
                counts.append(Answered(key.model, key.version, *ended))
                usage.answered = usage.failed = usage.not_finite = 0
        return tuple(counts)

    def routed(
        self, model: str, version: str | None, label: str | None, routing_key: bytes
    ) -> tuple[str, str | None, str | None]:
        """Returns the names to resolve: the canary's label for its share of the requests that name only a model."""
        serving = self._canaries.get(model)
        if serving is None or version is not None or label is not None or not goes_to_canary(serving, routing_key):
            return model, version, label
        return model, None, CANARY

    def turns_of(self, target: ServingTarget) -> tuple[ServingTarget, ...]:
        """The version that was drawn for a request, and behind it the other one of the model's rollout."""
        serving = self._canaries.get(target.key.model)
        if serving is None:
            return (target,)
        ready = {key.version: each for key, each in self._targets.items() if key.model == serving.model}
        both = {serving.canary, default_version(ready, serving) or 0} & (ready.keys() - {target.key.version})
        return (target, *(ready[version] for version in both))

    def _target(self, status: VersionStatus, manifest: Manifest, up: Set[str]) -> ServingTarget:
        ready = tuple(instance for instance in status.instances if instance.state == VersionState.READY)
        instances = tuple(instance for instance in ready if instance.device in up) or ready
        loading = tuple(instance.variant for instance in status.instances if instance.state in _ON_THE_WAY)
        previous, objective_s = self._targets.get(_key(status)), self.serving(status.model).objective_s
        now = (instances, objective_s, loading)
        if previous is not None and (previous.instances, previous.objective_s, previous.loading) == now:
            return previous
        return ServingTarget(
            _key(status),
            instances,
            manifest,
            layout_of(manifest.input, manifest.answer, manifest.extras),
            VersionMetrics(self._metrics, status.model, str(status.version)),
            self._usages.setdefault(_key(status), VersionUsage()),
            self._tallies.setdefault(_key(status), Tally()),
            objective_s,
            loading,
        )

    def _shadow(self, serving: ModelStatus) -> tuple[VersionKey, tuple[ServingTarget, float]] | None:
        """Returns the stable version of a model and the ready version that shadows it; None where there is no pair."""
        ready = {key.version for key in self._targets if key.model == serving.model}
        stable = default_version(ready, serving)
        if stable is None or serving.shadow not in ready or serving.shadow == stable:
            return None
        pair = [self._targets[VersionKey(serving.model, version)] for version in (stable, serving.shadow)]
        if pair[0].manifest.task.task is not pair[1].manifest.task.task:
            return None
        return pair[0].key, (pair[1], serving.sample)

    def shadow_of(self, target: ServingTarget, request_id: str) -> ServingTarget | None:
        """Returns the version to ask about this request's images as well: stable's, if the request is drawn."""
        found = self._shadows.get(target.key)
        if found is None or not is_drawn(request_id.encode(), found[1], _SHADOW_SALT):
            return None
        return found[0]

    def _forget_tallies(self, snapshot: Catalog) -> None:
        """Counts under another desired state are those of another experiment."""
        before = {status.model: status.generation for status in self.snapshot.models}
        changed = {status.model for status in snapshot.models if before.get(status.model) != status.generation}
        for key, tally in self._tallies.items():
            if key.model in changed:
                tally.clear()

    def tallies(self) -> tuple[VersionTally, ...]:
        """Returns what was counted since the last call, of models with an automatic rollout."""
        rollouts = {status.model: status.generation for status in self.snapshot.models if status.rollout}
        told = [
            tally.told(key.model, key.version, rollouts[key.model])
            for key, tally in self._tallies.items()
            if key.model in rollouts
        ]
        return tuple(each for each in told if each is not None)

    def resolve(self, model: str, version: str | None, label: str | None) -> ServingTarget:
        """Returns the version that answers. Raises NotFound, NotLoaded or NotReady; the text names what there is."""
        names = (model, version, label)
        if (known := self._resolved.get(names)) is not None:
            return known
        target = self._resolve(model, version, label)
        # With versions loaded on demand nothing is kept, because each call of `_resolve` may ask for a load.
        if not any(status.on_demand for status in self.snapshot.versions):
            self._resolved[names] = target
        return target

    def _resolve(self, model: str, version: str | None, label: str | None) -> ServingTarget:
        statuses = [status for status in self.snapshot.versions if status.model == model]
        problem = self.serving(model).problem
        if not statuses and problem:  # nothing is loaded by a document that was refused
            raise NotReady(f"no version of model {model!r} is served, its document is refused: GET /v1/models says why")
        if not statuses:
            names = sorted({status.model for status in self.snapshot.versions})
            raise NotFound(f"no model {model!r}; there are: {', '.join(names) or 'none yet'}")
        ready = {key.version: target for key, target in self._targets.items() if key.model == model}
        serving = self.serving(model)
        if label is not None and label != STABLE:
            labels = labels_of(ready, serving)
            if label not in labels:
                raise NotFound(f"model {model!r} has no label {label!r}; there are: {', '.join(labels) or 'none yet'}")
            version = str(labels[label])
        elif version is None and serving.stable:
            version = str(serving.stable)
        if version is not None:
            return self._resolve_version(model, version, statuses, ready)
        chosen = default_version(ready)
        unloaded = default_version([status.version for status in statuses if _loads_on_request(status)])
        if unloaded is not None and (chosen is None or chosen < unloaded):
            if chosen is None:
                raise _not_loaded(statuses, unloaded)
            self.ask(VersionKey(model, unloaded))
        if chosen is None:
            raise NotReady(f"no version of {model!r} is ready: {_states(statuses)}")
        return ready[chosen]

    def _resolve_version(
        self, model: str, version: str, statuses: list[VersionStatus], ready: Mapping[int, ServingTarget]
    ) -> ServingTarget:
        status = next((status for status in statuses if str(status.version) == version), None)
        if status is None:
            known = ", ".join(str(status.version) for status in statuses)
            raise NotFound(
                f"model {model!r} has no version {version!r} loaded; there are: {known} "
                "(SACCADE_VERSIONS_PER_MODEL bounds how many)"
            )
        target = ready.get(status.version)
        if target is None and _loads_on_request(status):
            raise _not_loaded([status], status.version)
        if target is None:
            raise NotReady(f"version {version} of {model!r} is not ready: {_states([status])}")
        return target

    def begin(self, target: ServingTarget, variant: str | None) -> None:
        """Counts a request on every instance that may answer it. Raises as `instances_of`."""
        target.instances_of(variant)
        target.usage.in_flight += 1
        for instance in target.instances:
            self._in_flight[instance.instance_id] += 1

    def end(self, target: ServingTarget) -> None:
        """Ends the count of a request that `begin` counted."""
        is_last = False
        target.usage.in_flight -= 1
        target.usage.last_used_s = time.monotonic()
        for instance in target.instances:
            self._in_flight[instance.instance_id] -= 1
            if self._in_flight[instance.instance_id] == 0:
                del self._in_flight[instance.instance_id]
                is_last = True
        if is_last:
            self._acknowledge_if_reconciled()

    def _acknowledge_if_reconciled(self) -> None:
        if self._unacknowledged is None:
            return
        reachable = {
            instance.instance_id
            for status in self.snapshot.versions
            for instance in status.instances
            if instance.state == VersionState.READY
        }
        if self._in_flight.keys() <= reachable:
            self._acknowledge(self._unacknowledged)
            self._unacknowledged = None


def _key(status: VersionStatus) -> VersionKey:
    return VersionKey(status.model, status.version)


def _loads_on_request(status: VersionStatus) -> bool:
    """Returns whether a request for this version may wait until it is loaded."""
    return status.on_demand and status.state in (*_ON_THE_WAY, VersionState.UNLOADING)


def _not_loaded(statuses: list[VersionStatus], version: int) -> NotLoaded:
    return NotLoaded(
        f"version {version} of {statuses[0].model!r} is being loaded: {_states(statuses)}", statuses[0].model, version
    )


def _states(statuses: list[VersionStatus]) -> str:
    return "; ".join(
        f"version {status.version} is {status.state}" + (f" ({status.reason})" if status.reason else "")
        for status in statuses
    )
