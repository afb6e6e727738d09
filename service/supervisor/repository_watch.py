"""Looks at the repository: lists versions and desired states, and verifies what is to be loaded. It decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from saccade.models.contract.replay import REPLAY_FILE
from saccade.service.core import VersionKey, VersionState
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.mirror import MirrorState
from saccade.service.repository.open import FoundVersion, Listing, RefusedDirectory, list_repository
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.repository.verify import VerifiedVersion, ensure_judged, verify_version
from saccade.service.settings import Settings
from saccade.service.supervisor.facts import instances_by_version
from saccade.service.supervisor.observed import Observed
from saccade.service.supervisor.placement.specs import batch_sizes, ensure_fits_slot, specs_for
from saccade.service.supervisor.repository_mirror import RepositoryMirror
from saccade.service.supervisor.serving_documents import Ruling, ServingDocuments, has_new_problem, log_changes
from saccade.service.supervisor.state import Refused, Verified, version_state
from saccade.service.supervisor.tuning.variant_speeds import compared_here

log = structlog.get_logger()

_COPY_DAMAGED = "the copy on this machine is damaged; it is fetched from the store again"
_DOCUMENTS_PERIOD_S = 0.2
_REPLACED = "its files were replaced after it was verified: what was loaded goes on serving; publish under a new number"


class RepositoryWatch:
    """The last look at one repository, and the results of verifying; only the supervisor's event loop may call it."""

    def __init__(
        self,
        settings: Settings,
        signatures: SignaturePolicy,
        plan_devices: tuple[str, ...],
        observed: Observed,
        changed: Callable[[], None],
        mirror: RepositoryMirror | None = None,
    ) -> None:
        """`changed` is called after every look and every verification; `mirror` where this is a copy of a store."""
        self._settings = settings
        self._signatures = signatures
        self._other_devices = [device for device in settings.devices if device not in plan_devices]
        self._observed = observed
        self._changed = changed
        self._mirror = mirror
        self._store_notices: dict[VersionKey, str] = {}  # what was said of versions because of the store
        self._to_verify: asyncio.Queue[FoundVersion] = asyncio.Queue()
        self.documents = ServingDocuments(settings.repository, settings.serving_dir, settings.pins)
        self.listing: Listing | None = None
        self.rulings: dict[str, Ruling] = {}

    def verify(self, found: FoundVersion) -> None:
        """Has a version verified, after those that wait already."""
        self._observed.added(found)
        self._to_verify.put_nowait(found)

    async def look_again_and_again(self) -> None:
        """Runs until it is cancelled. Loaded versions serve on while the repository cannot be read."""
        last_error = ""
        while True:
            try:
                served, failed = self._known()
                listing, rulings, told = await asyncio.to_thread(self._look, served, failed)
                self._take(rulings)
                self._log_refused(listing.refused)
                self._note_store(told)
                self.listing = listing
                self._changed()
                for version in self._observed.replaced(listing.versions):
                    await self._compare(version)
                last_error = ""
            except RepositoryError as error:
                if str(error) != last_error:
                    log.error("repository_unreadable", reason=str(error))
                last_error = str(error)
            await self._follow_documents(self._settings.repository_poll_ms / 1000)

    async def _follow_documents(self, seconds: float) -> None:
        """Reads the documents alone for a while: they are few, and a rollback must not wait for a listing."""
        count = max(1, round(seconds / _DOCUMENTS_PERIOD_S))
        for number in range(count):
            await asyncio.sleep(seconds / count)
            if self.listing is not None and number < count - 1:  # after the last one comes a listing
                rulings = await asyncio.to_thread(self.documents.look, self.listing, self.rulings)
                if has_new_problem(self.rulings, rulings):
                    return  # it may name a version that appeared after the listing, so the whole is looked at again
                if rulings != self.rulings:
                    self._take(rulings)
                    self._changed()

    async def verify_one_by_one(self) -> None:
        """Runs until it is cancelled."""
        while True:
            found = await self._to_verify.get()
            self._observed.checked(found, await self._checked(found))
            self._changed()

    def _look(
        self, served: frozenset[VersionKey], failed: frozenset[VersionKey]
    ) -> tuple[Listing, dict[str, Ruling], MirrorState]:
        told = MirrorState() if self._mirror is None else self._mirror.told(served, failed)
        listing = list_repository(self._settings.repository)
        listing = Listing(listing.versions, (*listing.refused, *told.refused))
        return listing, self.documents.look(listing, self.rulings), told

    def _known(self) -> tuple[frozenset[VersionKey], frozenset[VersionKey]]:
        """Returns the versions that are known, and those of them that failed."""
        if self._mirror is None:
            return frozenset(), frozenset()
        instances = instances_by_version(self._observed.instances)
        versions = self._observed.versions
        failed = {
            key
            for key, version in versions.items()
            if version_state(version, instances.get(key, {}).values()) is VersionState.FAILED
        }
        return frozenset(versions), frozenset(failed)

    def _note_store(self, told: MirrorState) -> None:
        """Says of every loaded version what befell it in the store, or why the store cannot be read."""
        versions = dict(self._observed.versions)
        notices = dict.fromkeys(versions, told.problem) | dict(told.notices)
        self._store_notices = {key: text for key, text in self._store_notices.items() if key in versions}
        for key, version in versions.items():
            notice, before = notices.get(key, ""), self._store_notices.get(key, "")
            if version.verified is not None and notice != before and version.notice in ("", before):
                self._observed.noticed(key, notice)
                self._store_notices[key] = notice
                if notice and notice != told.problem:  # that one is in the log already
                    log.error("version_changed_in_store", **key.fields, reason=notice)

    def _take(self, rulings: dict[str, Ruling]) -> None:
        log_changes(self.rulings, rulings)
        self.rulings = rulings

    async def _checked(self, found: FoundVersion) -> Refused | Verified:
        try:
            return await self._verified(found)
        except RepositoryError as error:
            reason = str(error)
            if self._mirror is not None and await asyncio.to_thread(self._mirror.is_damaged, found.key):
                reason = _COPY_DAMAGED  # the version in the store is another matter
            log.error("version_refused", **found.key.fields, reason=reason)
            return Refused(reason)

    async def _verified(self, found: FoundVersion) -> Verified:
        """Raises RepositoryError with the reason why the version must not be served."""
        key, settings = found.key, self._settings
        fields = key.fields
        version = await asyncio.to_thread(verify_version, found.path, self._signatures)
        ensure_judged(version.manifest, allow_unjudged=settings.allow_unjudged)
        ensure_fits_slot(version.manifest, settings)
        if not version.manifest.judged:
            log.warning("version_unjudged", **fields)
        if not any(entry.path == REPLAY_FILE for entry in version.manifest.files):
            log.info("version_without_replay", **fields)  # its answers are not compared with recorded ones
        if settings.quality != "asked" and version.manifest.quality is None:
            log.warning("version_without_quality", **fields, quality=settings.quality)  # it answers poor pictures too
        if version.signed_by is None:
            log.info("version_unsigned", **fields)
        else:
            log.info("version_signed", **fields, key_id=version.signed_by)
        on_demand = settings.load_models == "on_demand" and key.model not in settings.pinned
        is_asleep = on_demand and not self._observed.is_loaded(key.model)  # one of a loaded model takes over by itself
        # A request that waits for a load does not wait for a comparison too.
        version = await compared_here(version, settings, may_measure=not is_asleep)
        specs = specs_for(version.manifest, self._other_devices, settings)
        for device, reasons in specs.left_out.items():
            log.warning("rungs_left_out", **fields, device=device, reasons=reasons)
        choice = specs.choice(is_compared_here=version.is_compared_here)
        if choice:
            log.info("variant_chosen", **fields, reason=choice)
        sizes = batch_sizes(version.manifest, settings)
        return Verified(version, sizes, specs, on_demand, is_asleep, choice=choice)

    async def _compare(self, found: FoundVersion) -> None:
        """Says so when the files of a loaded version are no longer those that were verified."""
        key, loaded = found.key, self._loaded(found)
        if loaded is None:
            return
        try:
            now = (await asyncio.to_thread(verify_version, found.path, self._signatures)).manifest_sha256
            reason = "" if now == loaded.manifest_sha256 else f"its manifest has SHA-256 {now[:12]}…"
        except RepositoryError as error:
            reason = str(error)
        if self._loaded(found) is not loaded:  # it left meanwhile
            return
        if self._observed.noticed(key, f"{_REPLACED} ({reason})" if reason else ""):
            if reason:
                log.error("version_replaced", **key.fields, reason=reason)
            self._changed()

    def _loaded(self, found: FoundVersion) -> VerifiedVersion | None:
        version = self._observed.versions.get(found.key)
        return version.verified.version if version is not None and version.verified is not None else None

    def _log_refused(self, refused: tuple[RefusedDirectory, ...]) -> None:
        before = () if self.listing is None else self.listing.refused
        for each in refused:
            if each not in before:
                log.error("version_refused", model=each.model, version=each.name, reason=each.reason)
