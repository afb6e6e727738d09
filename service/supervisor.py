"""Owns the port and all processes. Promises: children come back, versions follow the repository, SIGTERM drains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import structlog

from service.core import VersionKey, VersionState
from service.engines.engine_serving import EngineEvents, EngineServing
from service.errors import RepositoryError, SettingsError
from service.http.auth import ApiKeys
from service.http.listening import reserve
from service.metrics import MULTIPROCESS_DIR, mark_process_dead
from service.placement.placer import MemoryLimits, Placer
from service.placement.residency import Residency, ResidencyEvents, ResidencyRule
from service.placement.specs import Specs, batch_sizes, ensure_fits_slot, specs_for
from service.repository.open import FoundVersion, list_versions
from service.repository.trusted_keys import SignaturePolicy, signature_policy
from service.repository.verify import VerifiedVersion, verify_version
from service.runtime_dir import runtime_dir
from service.settings import MIB, Settings
from service.version_entry import Instance
from service.version_table import VersionTable
from service.workers import messages
from service.workers.child_process import BackOff, ChildProcess, ChildSpec
from service.workers.device_supervision import DeviceEvents, DeviceSupervision

log = structlog.get_logger()

_REVIEW_PERIOD_S = 0.1  # short against any load

# glibc gives image-sized blocks back to the kernel at every free; getting them again, page by page, costs as much as
# decoding a small image. Blocks up to 8 MiB stay with the process, and at most 64 MiB of them unused.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(8 * MIB), "MALLOC_TRIM_THRESHOLD_": str(64 * MIB)}


class Supervisor:
    """A worker per device and some API processes around one version table."""

    def __init__(
        self, settings: Settings, signatures: SignaturePolicy, runtime_dir: Path, reservation: socket.socket
    ) -> None:
        self._settings = settings
        self._signatures = signatures
        self._runtime_dir = runtime_dir
        self._reservation = reservation
        self._table = VersionTable()
        limits = MemoryLimits(settings.device_memory_reserve_mb, settings.device_memory_limit_mb)
        self._placer = Placer(self._table, settings.placement, limits)
        rule = ResidencyRule(settings.load_models == "on_demand", settings.pinned, settings.max_loaded_models)
        residency_events = ResidencyEvents(self._rest, self._let_go)
        self._residency = Residency(self._table, rule, self._placer.held_bytes, residency_events)
        engine_events = EngineEvents(self._engines_decided, self._publish, lambda: self._generation + 1)
        self._engines = EngineServing(settings, self._table, engine_events)
        self._apis: dict[str, ChildProcess] = {}
        self._acknowledged: dict[str, int] = {}
        events = DeviceEvents(self._from_worker, self._worker_lost, self._publish)
        self._devices = {
            device: DeviceSupervision(
                device, settings, runtime_dir / f"worker-{index}", self._child_environment(), events
            )
            for index, device in enumerate(settings.devices)
        }
        self._generation = 0
        self._is_draining = False
        self._was_ready = False
        self._started_s = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(device.keep()) for device in self._devices.values()]
            names = [f"api-{index}" for index in range(self._settings.api_processes)]
            apis = [tasks.create_task(self._keep_api(name)) for name in names]
            watching = [tasks.create_task(device.probe()) for device in self._devices.values()]
            watching.append(tasks.create_task(self._watch_repository()))
            watching.append(tasks.create_task(self._review_residency()))
            building = [tasks.create_task(run) for run in self._engines.runs()]
            await self._stop.wait()
            for task in building:  # at once: what serves needs no new plan any more
                task.cancel()
            await self._shut_down(apis, workers)
            for task in (*watching, *apis, *workers):
                task.cancel()

    # Children

    async def _keep_api(self, name: str) -> None:
        back_off = BackOff()
        while not self._stop.is_set():
            started_s = time.monotonic()
            spec = ChildSpec(
                "service.api_process",
                name,
                ("--port", str(self._reservation.getsockname()[1])),
                self._child_environment(),
                "",
            )
            api = await ChildProcess.start(spec, self._settings, lambda message: self._from_api(name, message))
            self._apis[name] = api
            self._acknowledged[name] = 0
            if self._is_draining:  # it was being started when the others were told
                api.send(messages.StopAdmitting())
            code = await api.wait()
            self._apis.pop(name)
            self._acknowledged.pop(name)
            self._residency.api_gone(name)
            mark_process_dead(api.pid, self._metrics_dir)
            self._unload_settled()
            if not self._is_draining:
                log.error("api_process_died", name=name, exit_code=code)
                await self._pause(back_off.after_life_of(time.monotonic() - started_s))

    def _worker_lost(self, device: str, pid: int) -> None:
        mark_process_dead(pid, self._metrics_dir)
        if not self._is_draining:
            self._table.worker_lost(device)
            self._placer.device_lost(device)
            self._publish()

    async def _pause(self, seconds: float) -> None:
        """A back-off, cut short by the order to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _child_environment(self) -> dict[str, str]:
        return {MULTIPROCESS_DIR: str(self._metrics_dir), **_ALLOCATOR}

    @property
    def _metrics_dir(self) -> Path:
        return self._runtime_dir / "metrics"

    # Messages

    def _from_api(self, name: str, message: messages.AnyMessage) -> None:
        match message:
            case messages.ApiReady():
                self._apis[name].send(self._catalog())
            case messages.CatalogApplied():
                self._acknowledged[name] = message.generation
                self._unload_settled()
                self._announce()
            case messages.Want():
                self._residency.want(VersionKey(message.model, message.version))
                self._wake_wanted()
            case messages.Used():
                self._residency.used(name, message.usages)

    def _from_worker(self, device: str, message: messages.AnyMessage) -> None:
        match message:
            case messages.WorkerReady():
                if message.facts.problem:
                    log.error("device_unusable", device=device, reason=message.facts.problem)
                self._placer.device_ready(device, message.facts)
                self._engines.device_found(device, message.facts)
                self._publish()
                self._load_next()
            case messages.InstanceState():
                self._report(message)
            case messages.Unloaded():
                self._table.unloaded(message.instance_id)
                self._placer.instance_gone()
                self._wake_wanted()
                self._publish()
                self._load_next()

    def _report(self, update: messages.InstanceState) -> None:
        reported = self._table.report(update)
        if reported is None:
            return
        key, instance = reported
        spec = instance.spec
        fields = {"model": key.model, "version": key.version, "variant": spec.variant, "device": spec.device}
        if instance.state is VersionState.READY:
            self._residency.ready(key)
            log.info("version_ready", **fields, provider=update.provider, seconds=round(update.seconds, 2))
        elif instance.state is VersionState.FAILED:
            log.error("version_failed", **fields, reason=instance.reason)
        self._engines.reported(key, instance)
        self._publish()
        if instance.state is not VersionState.WARMING:
            self._load_next()

    def _engines_decided(self) -> None:
        self._load_next()
        self._publish()

    def _load_next(self) -> None:
        """Places what waits, and gives every worker that loads nothing its next instance."""
        changes = 0
        self._residency.is_waiting = False
        for refused in self._placer.settle(self._residency.room):
            fields = {"model": refused.key.model, "version": refused.key.version, "device": refused.device}
            if refused.rung:
                log.warning("rung_has_no_room", **fields, variant=refused.variant, reason=refused.reason)
            else:
                log.error("version_has_no_room", **fields, reason=refused.reason)
            changes += 1
        for name, device in self._devices.items():
            load = self._table.next_load(name) if device.is_open else None
            if load is not None:
                device.send(load)
                changes += 1
        if changes or self._residency.has_let_go():
            self._publish()

    # Models on demand

    def _wake_wanted(self) -> None:
        """Brings up what requests wait for."""
        for key in self._residency.take_wanted():
            entry = self._table.entry(key)
            if entry is not None and entry.verified is not None:
                self._table.wake(key)
                log.info("version_wanted", model=key.model, version=key.version)
                self._bring_up(entry.verified)

    def _rest(self, key: VersionKey) -> None:
        if self._table.rest(key, self._generation + 1):
            log.info("version_evicted", model=key.model, version=key.version)
            self._engines.drop(key)

    def _let_go(self, key: VersionKey, instance: Instance) -> None:
        spec = instance.spec
        log.warning("rung_gave_way", model=key.model, version=key.version, variant=spec.variant, device=spec.device)
        self._table.let_go(key, instance, self._generation + 1)

    async def _review_residency(self) -> None:
        """What could not leave may do so later: requests end, and a stay becomes long enough."""
        while True:
            await asyncio.sleep(_REVIEW_PERIOD_S)
            if self._residency.is_waiting:
                self._load_next()

    def _unload_settled(self) -> None:
        """Unloads what no API process can reach any more."""
        acknowledged = min(self._acknowledged.values(), default=self._generation)
        for device, instance_id in self._table.to_unload(acknowledged):
            self._devices[device].send(messages.Unload(instance_id))

    # Catalog

    def _catalog(self) -> messages.Catalog:
        devices = tuple(device.status(self._placer.measured_bytes(name)) for name, device in self._devices.items())
        versions = self._table.statuses(self._engines.statuses)
        return messages.Catalog(self._generation, devices, versions, self._is_draining)

    def _publish(self) -> None:
        """Sends the whole catalog to every API process."""
        self._generation += 1
        catalog = self._catalog()
        for api in self._apis.values():
            api.send(catalog)

    def _announce(self) -> None:
        """Says once that all processes know of all models."""
        is_known = len(self._acknowledged) == self._settings.api_processes and all(
            generation == self._generation for generation in self._acknowledged.values()
        )
        is_open = any(device.is_open for device in self._devices.values())
        is_serving = is_known and is_open and self._table.is_settled()
        if self._was_ready or self._is_draining or not is_serving:
            return
        self._was_ready = True
        host, port = self._reservation.getsockname()[:2]
        seconds = round(time.monotonic() - self._started_s, 2)
        log.info("serving", url=f"http://{host}:{port}", docs="/docs", seconds=seconds)

    # Repository

    async def _watch_repository(self) -> None:
        last_error = ""
        while True:
            try:
                await self._follow_repository()
                last_error = ""
            except RepositoryError as error:  # it may come back; what is loaded goes on
                if str(error) != last_error:
                    log.error("repository_unreadable", reason=str(error))
                last_error = str(error)
            await asyncio.sleep(self._settings.repository_poll_ms / 1000)

    async def _follow_repository(self) -> None:
        found = await asyncio.to_thread(list_versions, self._settings.repository)
        plan = self._table.plan(found, self._settings.versions_per_model)
        for key in plan.forget:
            self._table.forget(key)
            self._engines.drop(key)
        for version in plan.load:
            self._table.add(version)
        for key in plan.unload:
            log.info("version_unloading", model=key.model, version=key.version)
            self._engines.drop(key)
            self._table.begin_unload(key, self._generation + 1)
        if plan.load or plan.unload or plan.forget:
            self._publish()
        for version in plan.load:
            await self._verify(version)

    async def _verify(self, version: FoundVersion) -> None:
        key = version.key
        try:
            verified = await asyncio.to_thread(verify_version, version.path, self._signatures)
            self._specs(verified)
            ensure_fits_slot(verified.manifest, self._settings)
        except RepositoryError as error:
            self._table.refuse(key, str(error))
            log.error("version_refused", model=key.model, version=key.version, reason=str(error))
            self._publish()
            return
        if verified.signed_by is not None:
            log.info("version_signed", model=key.model, version=key.version, key_id=verified.signed_by)
        self._table.verified(key, verified, batch_sizes(verified.manifest, self._settings))
        self._table.on_demand(key, is_so=self._residency.is_on_demand(key))
        if self._residency.starts_resting(key):
            self._table.rest(key, self._generation + 1)
            self._publish()
        else:
            self._bring_up(verified)

    def _specs(self, version: VerifiedVersion) -> Specs:
        """Of the devices that no plans are built for. Raises RepositoryError when no device has anything."""
        others = [device for device in self._devices if device not in self._engines.devices]
        return specs_for(version.manifest, others, self._settings)

    def _bring_up(self, version: VerifiedVersion) -> None:
        """Asks for all instances of a version."""
        specs = self._specs(version)
        key = VersionKey(version.manifest.model, version.manifest.version)
        for spec in (spec for rungs in specs.by_device.values() for spec in rungs):
            self._table.want(key, spec)
        for device, reason in specs.refusals.items():
            self._table.cannot(key, device, reason)
        for device, reasons in specs.left_out.items():
            log.warning("rungs_left_out", model=key.model, version=key.version, device=device, reasons=reasons)
        self._engines.keep(version)
        self._load_next()

    # Shutdown

    async def _shut_down(self, apis: list[asyncio.Task[None]], workers: list[asyncio.Task[None]]) -> None:
        """Named steps, one timeout: not ready, stop admitting, finish, stop the workers."""
        settings = self._settings
        log.info("draining", in_s=settings.drain_delay_ms / 1000)
        self._is_draining = True
        for device in self._devices.values():
            device.drain()
        self._publish()
        await asyncio.sleep(settings.drain_delay_ms / 1000)
        deadline_s = time.monotonic() + settings.shutdown_timeout_ms / 1000
        for api in self._apis.values():
            api.send(messages.StopAdmitting())
        await asyncio.wait(apis, timeout=deadline_s - time.monotonic())
        for device in self._devices.values():
            device.send(messages.Stop())
        await asyncio.wait(workers, timeout=max(0.0, deadline_s - time.monotonic()))
        for api in self._apis.values():
            log.error("killed_after_timeout", name=api.name)
            api.kill()
        for device in self._devices.values():
            if device.kill():
                log.error("killed_after_timeout", name=f"worker-{device.device}")
        log.info("stopped")


def serve(settings: Settings) -> None:
    """Serves until a signal. Raises SettingsError when it cannot start."""
    if not settings.repository.is_dir():
        raise SettingsError(
            f"SACCADE_REPOSITORY: {settings.repository} is not a directory; publish a model with "
            "`saccade-export run RECIPE.yaml --repository DIR`"
        )
    ApiKeys.from_file(settings.api_keys_file)  # refused here: an API process could only die of it, again and again
    signatures = signature_policy(settings.trusted_keys, is_required=settings.require_signature)
    with reserve(settings.host, settings.port) as reservation, runtime_dir() as folder:
        host, port = reservation.getsockname()[:2]
        log.info("starting", host=host, port=port, pid=os.getpid())
        asyncio.run(Supervisor(settings, signatures, folder, reservation).run())
