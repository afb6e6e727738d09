"""Quarantines versions that kill workers or fail requests on this replica, and releases those that are asked for again.

What versions do is counted here, over devices and API processes; `breaker.py` decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from saccade.service.core import GIVEN_UP, VersionKey
from saccade.service.ipc import messages
from saccade.service.settings import Settings
from saccade.service.supervisor.breaker import Answers, Kill, RecentAnswers, reason_of_answers, reason_of_kills
from saccade.service.supervisor.devices import WorkerEnd
from saccade.service.supervisor.engines.plan_decision import PlanDecision
from saccade.service.supervisor.facts import instances_by_version
from saccade.service.supervisor.observed import Observed
from saccade.service.supervisor.policy import FOLLOW, ServingPolicy, without
from saccade.service.supervisor.repository_watch import RepositoryWatch
from saccade.service.supervisor.serving_documents import Ruling
from saccade.service.supervisor.stable_versions import StableVersions
from saccade.service.supervisor.state import Quarantine, may_recover, version_state

log = structlog.get_logger()

_MOST_KILLS = 8  # kept per version
_SHARED_FIRST_RUN = 1 / 3  # of the hang timeout: while it lasts, no other version of the device answers


class Quarantines:
    """Only the supervisor's event loop may call it."""

    def __init__(
        self,
        settings: Settings,
        observed: Observed,
        watch: RepositoryWatch,
        stable: StableVersions,
        changed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._observed = observed
        self._watch = watch
        self._stable = stable
        self._changed = changed
        self._kills: dict[VersionKey, list[Kill]] = {}
        self._answers: dict[VersionKey, RecentAnswers] = {}

    # What versions do

    def worker_lost(self, device: str, end: WorkerEnd) -> None:
        """Notes that a worker ended. What it held is loaded again, except a version that is to blame too often."""
        culprit = self._observed.culprit(device, end.run.instance_id if end.run else 0)
        self._observed.device_lost(device)
        self._changed()
        if culprit is None:
            return
        key, is_loading = culprit
        if end.is_from_outside and not is_loading:
            return
        kill = Kill(time.monotonic(), is_loading, end.is_hang)
        log.error("worker_killed", **key.fields, device=device, loading=is_loading, hang=end.is_hang)
        if key not in self._observed.versions:  # it was forgotten, and its instance was not unloaded yet
            return
        kills = [*self._kills.get(key, []), kill][-_MOST_KILLS:]
        self._kills[key] = kills
        self._quarantine(key, reason_of_kills(kills, kill.at_s, is_on_trial=self._is_on_trial(key, kill.at_s)))

    def first_run_limit_s(self, instance_id: int) -> float:
        """How long one run may take while its instance is loaded: less where other versions wait for the device."""
        is_shared = self._observed.shares_device_with_others(instance_id)
        if is_shared is None:
            return math.inf
        return self._settings.hang_timeout_ms / 1000 * (_SHARED_FIRST_RUN if is_shared else 1.0)

    def loaded(self, key: VersionKey) -> None:
        """Forgives the kills of earlier loads."""
        if key in self._kills:
            self._kills[key] = [kill for kill in self._kills[key] if not kill.is_loading]

    def answered(self, counts: Iterable[messages.Answered]) -> None:
        """Notes how requests ended in an API process."""
        now_s = time.monotonic()
        for each in counts:
            key = VersionKey(each.model, each.version)
            if key not in self._observed.versions:  # it was forgotten before its last answers were told
                continue
            answers = Answers(each.requests, each.failed, each.not_finite)
            self._answers.setdefault(key, RecentAnswers()).add(answers, now_s)
            if each.failed and self._is_on_trial(key, now_s):
                canary = self._canary(key.model)
                others = [self._recent(other, now_s) for other in self._others(key) if other.version != canary]
                self._quarantine(key, reason_of_answers(self._recent(key, now_s), sum(others, Answers())))

    def _recent(self, key: VersionKey, now_s: float) -> Answers:
        recent = self._answers.get(key)
        return Answers() if recent is None else recent.total(now_s)

    def forget(self, key: VersionKey) -> None:
        """Forgets a version and all that it did."""
        self._observed.forgotten(key)
        self._kills.pop(key, None)
        self._answers.pop(key, None)

    # Quarantine

    def _quarantine(self, key: VersionKey, reason: str) -> None:
        version = self._observed.versions.get(key)
        if not reason or version is None or version.quarantine is not None:
            return
        document = self._ruling(key.model).document
        log.error("version_quarantined", **key.fields, reason=reason)
        self._observed.quarantined(key, Quarantine(reason, document.generation if document else 0))
        self._changed()

    def release(self) -> None:
        """Has quarantined versions loaded again that a newer desired state names."""
        for key, version in list(self._observed.versions.items()):
            document = self._ruling(key.model).document
            if version.quarantine is None or document is None:
                continue
            if document.generation > version.quarantine.generation and key.version in document.named:
                log.info("version_released", **key.fields, generation=document.generation)
                self.forget(key)

    def policies(self, plans: Mapping[tuple[VersionKey, str], PlanDecision | str]) -> dict[str, ServingPolicy]:
        """Returns what rules each model now, without versions that are quarantined or failed for good.

        A pinned version is not replaced by another one.
        """
        policies = self._watch.documents.policies(self._watch.rulings)
        decided = {key for (key, _), decision in plans.items() if isinstance(decision, PlanDecision)}
        instances = instances_by_version(self._observed.instances)
        given_up: dict[str, set[int]] = {}
        for key, version in self._observed.versions.items():
            states = instances.get(key, {}).values()
            is_given_up = version_state(version, states) in GIVEN_UP and not version.is_asleep
            is_pinned = key.model in self._settings.pins
            if is_given_up and not is_pinned and not may_recover(version, states, is_decided=key in decided):
                given_up.setdefault(key.model, set()).add(key.version)
        for model, versions in given_up.items():
            present = self._watch.listing.of(model) if self._watch.listing is not None else ()
            earlier = (*self._stable.before(model), *self._ruling(model).before)
            now = self._stable.now.get(model)
            before = earlier if now is None else (now, *earlier)
            policies[model] = without(policies.get(model, FOLLOW), versions, before, present)
        return policies

    # Who is on trial

    def _is_on_trial(self, key: VersionKey, now_s: float) -> bool:
        """Returns whether a version is new to its traffic, and another one could take over."""
        is_new = self._canary(key.model) == key.version or self._stable.is_on_probation(key, now_s)
        return is_new and bool(self._others(key))

    def _others(self, key: VersionKey) -> list[VersionKey]:
        """Returns the other versions of a model that may answer."""
        versions = self._observed.versions
        return [
            other for other in versions if other.model == key.model and other != key and self._observed.is_proven(other)
        ]

    def _canary(self, model: str) -> int | None:
        document = self._ruling(model).document
        return document.canary.version if document is not None and document.canary is not None else None

    def _ruling(self, model: str) -> Ruling:
        return self._watch.rulings.get(model, Ruling())
