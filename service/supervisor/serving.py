"""Decides which versions are loaded, from the repository and from requests; each is verified before it is loaded.

It changes the version table; the supervisor places and loads what the table holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from saccade.service.core import STABLE, VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.ipc import messages
from saccade.service.repository.open import FoundVersion, Listing, RefusedDirectory, list_repository
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.repository.verify import VerifiedVersion, ensure_judged, verify_version
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.plan_reconciler import PlanReconciler
from saccade.service.supervisor.placement.model_cache import ModelCache, ModelCacheEvents, ModelCacheRule
from saccade.service.supervisor.placement.specs import Specs, batch_sizes, ensure_fits_slot, specs_for
from saccade.service.supervisor.policy import FOLLOW, ServingPolicy, stable_now
from saccade.service.supervisor.serving_documents import Ruling, ServingDocuments
from saccade.service.supervisor.version_entry import Instance, VersionEntry
from saccade.service.supervisor.versions import VersionTable

log = structlog.get_logger()

_DIRECTORY_GONE = "its directory was removed; it stays loaded because SACCADE_SERVE_VERSIONS or serving.json names it"
_REPOSITORY_EMPTY = "the repository was found empty, so what is loaded stays; another version must appear to replace it"
_REPLACED = "its files were replaced after it was verified: what was loaded goes on serving; publish under a new number"
_REVIEW_PERIOD_S = 0.1  # short against the duration of any load


@dataclass(frozen=True, slots=True)
class ServingEvents:
    """The functions of the supervisor that are called when something has changed."""

    publish: Callable[[], None]  # sends the catalog
    load: Callable[[], None]  # places and loads waiting instances
    next_generation: Callable[[], int]  # number of the catalog that will be sent next


class VersionServing:
    """Keeps one version table up to date; only the supervisor's event loop may call it."""

    def __init__(
        self,
        settings: Settings,
        signatures: SignaturePolicy,
        table: VersionTable,
        held_bytes: Callable[[VersionEntry, Instance], int],
        engines: PlanReconciler,
        events: ServingEvents,
    ) -> None:
        """`held_bytes` returns the device memory that an instance holds."""
        self._settings = settings
        self._signatures = signatures
        self._table = table
        self._engines = engines
        self._events = events
        self._documents = ServingDocuments(settings.repository, settings.serving_dir, settings.pins)
        self._rulings: dict[str, Ruling] = {}
        self._stable: dict[str, int | None] = {}  # the version that answers by default
        self._was_stable: dict[VersionKey, float] = {}  # and when it was replaced, on the monotonic clock
        self.refused: tuple[RefusedDirectory, ...] = ()  # at the last look at the repository
        rule = ModelCacheRule(settings.load_models == "on_demand", settings.pinned, settings.max_loaded_models)
        self.model_cache = ModelCache(table, rule, held_bytes, ModelCacheEvents(self._unload, self._release))

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        """Returns the coroutines to run, each until it is cancelled."""
        return [self._watch(), self._review_model_cache()]

    def desire(self, key: VersionKey) -> None:
        """Notes that requests wait for a version, and loads it."""
        self.model_cache.desire(key)
        self.load_requested()

    def load_requested(self) -> None:
        """Loads the versions that requests wait for."""
        for key in self.model_cache.take_requested():
            entry = self._table.entry(key)
            if entry is not None and entry.verified is not None:
                self._table.load(key)
                log.info("version_wanted", model=key.model, version=key.version)
                self._bring_up(entry.verified)

    def _unload(self, key: VersionKey) -> None:
        if self._table.unload(key, self._events.next_generation()):
            log.info("version_evicted", model=key.model, version=key.version)
            self._engines.drop(key)

    def _release(self, key: VersionKey, instance: Instance) -> None:
        spec = instance.spec
        log.warning("rung_gave_way", model=key.model, version=key.version, variant=spec.variant, device=spec.device)
        self._table.release(key, instance, self._events.next_generation())

    # The repository

    async def _watch(self) -> None:
        last_error = ""
        while True:
            try:
                await self._follow()
                last_error = ""
            except RepositoryError as error:  # the repository may become readable again; loaded versions still serve
                if str(error) != last_error:
                    log.error("repository_unreadable", reason=str(error))
                last_error = str(error)
            await asyncio.sleep(self._settings.repository_poll_ms / 1000)

    async def _follow(self) -> None:
        listing, rulings = await asyncio.to_thread(self._look)
        found = listing.versions
        is_news = rulings != self._rulings
        self._rulings = rulings
        policies = self._documents.policies(rulings)
        plan = self._table.plan(found, self._settings.versions_per_model, policies, self._kept(policies))
        is_news |= self._refuse_directories(listing.refused)
        for key in plan.forget:
            self._table.forget(key)
            self._engines.drop(key)
        for version in plan.load:
            self._table.add(version)
        for key in plan.unload:
            log.info("version_unloading", model=key.model, version=key.version)
            self._engines.drop(key)
            self._table.begin_unload(key, self._events.next_generation())
        is_news |= self._note_missing(plan.missing, is_empty=not found)
        if is_news or plan.load or plan.unload or plan.forget:
            self._events.publish()
        for version in plan.load:
            await self._verify(version)
        for version in self._table.changed(found):
            await self._compare(version)

    def _look(self) -> tuple[Listing, dict[str, Ruling]]:
        listing = list_repository(self._settings.repository)
        return listing, self._documents.look(listing, self._rulings)

    def _kept(self, policies: Mapping[str, ServingPolicy]) -> set[VersionKey]:
        """Returns the versions that were stable a short while ago, so that going back to them takes no time."""
        now_s = time.monotonic()
        self._was_stable = {
            key: since_s
            for key, since_s in self._was_stable.items()
            if now_s - since_s < policies.get(key.model, FOLLOW).grace_s
        }
        return {*self._was_stable}

    def model_statuses(self) -> tuple[messages.ModelStatus, ...]:
        """Returns what rules each model that has a document, and notes which version is stable from now on."""
        policies = self._documents.policies(self._rulings)
        for model, policy in policies.items():
            before = self._stable.get(model)
            now = stable_now(policy, before, self._table.ready(model))
            if now != before and before is not None:
                self._was_stable[VersionKey(model, before)] = time.monotonic()
            self._stable[model] = now
        shown = {model: ruling for model, ruling in self._rulings.items() if ruling.document or ruling.problem}
        return tuple(_status(model, ruling, self._stable[model]) for model, ruling in shown.items())

    def _refuse_directories(self, refused: tuple[RefusedDirectory, ...]) -> bool:
        """Notes directories that cannot be versions; returns whether they are others than before."""
        is_news = refused != self.refused
        for each in refused:
            if each not in self.refused:
                log.error("version_refused", model=each.model, version=each.name, reason=each.reason)
        self.refused = refused
        return is_news

    def _note_missing(self, missing: tuple[VersionKey, ...], *, is_empty: bool) -> bool:
        """Notes versions that stay loaded without their directories; returns whether there are more than before."""
        notice = _REPOSITORY_EMPTY if is_empty else _DIRECTORY_GONE
        news = [key for key in missing if self._table.missing(key, notice)]
        if news and is_empty:
            log.error("repository_empty", repository=str(self._settings.repository), kept=len(missing))
        elif news:
            log.error("named_version_removed", versions=[f"{key.model}/{key.version}" for key in news])
        return bool(news)

    async def _compare(self, version: FoundVersion) -> None:
        """Says so when the files of a loaded version are no longer those that were verified."""
        key, entry = version.key, self._table.entry(version.key)
        try:
            now = (await asyncio.to_thread(verify_version, version.path, self._signatures)).manifest_sha256
            reason = "" if entry is None or now == entry.manifest_sha256 else f"its manifest has SHA-256 {now[:12]}…"
        except RepositoryError as error:
            reason = str(error)
        if self._table.entry(key) is not entry:  # it was unloaded meanwhile
            return
        notice = f"{_REPLACED} ({reason})" if reason else ""
        if self._table.note(key, notice):
            if notice:
                log.error("version_replaced", model=key.model, version=key.version, reason=reason)
            self._events.publish()

    async def _verify(self, version: FoundVersion) -> None:
        key = version.key
        try:
            verified = await asyncio.to_thread(verify_version, version.path, self._signatures)
            ensure_judged(verified.manifest, allow_unjudged=self._settings.allow_unjudged)
            self._specs(verified)
            ensure_fits_slot(verified.manifest, self._settings)
        except RepositoryError as error:
            self._table.refuse(key, str(error))
            log.error("version_refused", model=key.model, version=key.version, reason=str(error))
            self._events.publish()
            return
        if not verified.manifest.judged:
            log.warning("version_unjudged", model=key.model, version=key.version)
        if verified.signed_by is not None:
            log.info("version_signed", model=key.model, version=key.version, key_id=verified.signed_by)
        self._table.verified(key, verified, batch_sizes(verified.manifest, self._settings))
        self._table.on_demand(key, is_so=self.model_cache.is_on_demand(key))
        if self.model_cache.starts_unloaded(key):
            self._table.unload(key, self._events.next_generation())
            self._events.publish()
        else:
            self._bring_up(verified)

    def _specs(self, version: VerifiedVersion) -> Specs:
        """Returns the instances for devices without TensorRT. Raises RepositoryError when no device can serve."""
        others = [device for device in self._settings.devices if device not in self._engines.devices]
        return specs_for(version.manifest, others, self._settings)

    def _bring_up(self, version: VerifiedVersion) -> None:
        """Adds all instances of a version to the table."""
        specs = self._specs(version)
        key = VersionKey(version.manifest.model, version.manifest.version)
        for spec in (spec for levels in specs.by_device.values() for spec in levels):
            self._table.desire(key, spec)
        for device, reason in specs.refusals.items():
            self._table.cannot(key, device, reason)
        for device, reasons in specs.left_out.items():
            log.warning("rungs_left_out", model=key.model, version=key.version, device=device, reasons=reasons)
        self._engines.keep(version)
        self._events.load()

    async def _review_model_cache(self) -> None:
        """Tries to place waiting versions again, because others may now be unloaded: they became idle or old enough."""
        while True:
            await asyncio.sleep(_REVIEW_PERIOD_S)
            if self.model_cache.is_waiting:
                self._events.load()


def _status(model: str, ruling: Ruling, stable: int | None) -> messages.ModelStatus:
    document = ruling.document
    if document is None:
        return messages.ModelStatus(model, problem=ruling.problem)
    labels = tuple((label, version) for label, version in sorted(document.labels.items()) if label != STABLE)
    canary = document.canary
    return messages.ModelStatus(
        model,
        document.generation,
        (stable or 0) if STABLE in document.labels else 0,
        labels,
        *((canary.version, canary.share, canary.salt) if canary else ()),
        reason=document.reason,
        problem=ruling.problem,
    )
