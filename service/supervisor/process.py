"""The supervisor: it reserves the port, keeps all processes running, sends the catalog, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import structlog

from saccade.service.core import VersionKey, VersionState
from saccade.service.errors import SettingsError
from saccade.service.ipc import messages
from saccade.service.ipc.api_keys import ApiKeys
from saccade.service.ipc.child_process import BackOff, ChildProcess, ChildSpec
from saccade.service.ipc.listening import reserve
from saccade.service.ipc.runtime_dir import runtime_dir
from saccade.service.metrics import MULTIPROCESS_DIR, mark_process_dead
from saccade.service.repository.trusted_keys import SignaturePolicy, signature_policy
from saccade.service.settings import MIB, Settings, resolved
from saccade.service.supervisor.devices import DeviceEvents, DeviceSupervision
from saccade.service.supervisor.engines.plan_reconciler import PlanReconciler, PlanReconcilerEvents
from saccade.service.supervisor.pins import ensure_pinned
from saccade.service.supervisor.placement.device_placement import DevicePlacement, MemoryLimits
from saccade.service.supervisor.serving import ServingEvents, VersionServing
from saccade.service.supervisor.start_barrier import StartBarrier
from saccade.service.supervisor.tuning.tune import tuned
from saccade.service.supervisor.versions import VersionTable

log = structlog.get_logger()

# By default glibc returns image-sized blocks to the kernel at every free; getting them again, page by page, costs as
# much as decoding a small image. With these values a process keeps blocks up to 8 MiB, at most 64 MiB of them unused.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(8 * MIB), "MALLOC_TRIM_THRESHOLD_": str(64 * MIB)}
_TOGETHER_WITHIN_S = 5.0  # an API process that takes longer to start listens later than the others


class Supervisor:
    """Runs a worker per device and the API processes, by one version table."""

    def __init__(
        self, settings: Settings, signatures: SignaturePolicy, runtime_dir: Path, reservation: socket.socket
    ) -> None:
        self._settings = settings
        self._runtime_dir = runtime_dir
        self._reservation = reservation
        self._table = VersionTable()
        limits = MemoryLimits(settings.device_memory_reserve_mb, settings.device_memory_limit_mb)
        self._placement = DevicePlacement(self._table, settings.placement, limits)
        engine_events = PlanReconcilerEvents(self._engines_decided, self._publish, lambda: self._generation + 1)
        self._engines = PlanReconciler(settings, self._table, engine_events)
        serving_events = ServingEvents(self._publish, self._load_next, lambda: self._generation + 1)
        self._versions = VersionServing(
            settings, signatures, self._table, self._placement.held_bytes, self._engines, serving_events
        )
        self._apis: dict[str, ChildProcess] = {}
        self._acknowledged: dict[str, int] = {}
        self._start_barrier = StartBarrier(settings.api_processes)
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
        """Serves until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        loop.call_later(_TOGETHER_WITHIN_S, lambda: self._let_listen(self._start_barrier.wait_no_longer()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(device.keep()) for device in self._devices.values()]
            names = [f"api-{index}" for index in range(self._settings.api_processes)]
            apis = [tasks.create_task(self._keep_api(name)) for name in names]
            watching = [tasks.create_task(device.probe()) for device in self._devices.values()]
            watching += [tasks.create_task(run) for run in self._versions.runs()]
            building = [tasks.create_task(run) for run in self._engines.runs()]
            await self._stop.wait()
            for task in building:  # stopped first, because a server that ends needs no new plans
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
                "saccade.service.api.process",
                name,
                ("--port", str(self._reservation.getsockname()[1])),
                self._child_environment(),
                "",
            )
            api = await ChildProcess.start(spec, self._settings, lambda message: self._from_api(name, message))
            self._apis[name] = api
            self._acknowledged[name] = 0
            if self._is_draining:  # the process was being started when the others were told to stop
                api.send(messages.StopAdmitting())
            code = await api.wait()
            self._apis.pop(name)
            self._acknowledged.pop(name)
            self._start_barrier.gone(name)
            self._versions.model_cache.api_gone(name)
            mark_process_dead(api.pid, self._metrics_dir)
            self._unload_unreachable()
            if not self._is_draining:
                log.error("api_process_died", name=name, exit_code=code)
                await back_off.pause(time.monotonic() - started_s, self._stop)

    def _worker_lost(self, device: str, pid: int) -> None:
        mark_process_dead(pid, self._metrics_dir)
        if not self._is_draining:
            self._table.worker_lost(device)
            self._placement.device_lost(device)
            self._publish()

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
                self._let_listen(self._start_barrier.able(name))
                self._unload_unreachable()
                self._announce()
            case messages.DesireVersion():
                self._versions.desire(VersionKey(message.model, message.version))
            case messages.Used():
                self._versions.model_cache.used(name, message.usages)

    def _from_worker(self, device: str, message: messages.AnyMessage) -> None:
        match message:
            case messages.WorkerReady():
                if message.facts.problem:
                    log.error("device_unusable", device=device, reason=message.facts.problem)
                self._placement.device_ready(device, message.facts)
                self._engines.device_found(device, message.facts)
                self._publish()
                self._load_next()
            case messages.InstanceState():
                self._report(message)
            case messages.Unloaded():
                self._table.unloaded(message.instance_id)
                self._placement.instance_gone()
                self._versions.load_requested()
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
            self._versions.model_cache.ready(key)
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
        """Places waiting instances, and sends the next load to every worker that loads nothing."""
        changes = 0
        self._versions.model_cache.is_waiting = False
        for refused in self._placement.reconcile(self._versions.model_cache.room):
            fields = {"model": refused.key.model, "version": refused.key.version, "device": refused.device}
            if refused.ladder_level:
                log.warning("rung_has_no_room", **fields, variant=refused.variant, reason=refused.reason)
            else:
                log.error("version_has_no_room", **fields, reason=refused.reason)
            changes += 1
        for name, device in self._devices.items():
            load = self._table.next_load(name) if device.is_open else None
            if load is not None:
                device.send(load)
                changes += 1
        if changes or self._versions.model_cache.has_released():
            self._publish()

    def _let_listen(self, names: list[str]) -> None:
        for name in names:
            self._apis[name].send(messages.Listen())

    def _unload_unreachable(self) -> None:
        """Unloads the instances that no API process can reach any more."""
        acknowledged = min(self._acknowledged.values(), default=self._generation)
        for device, instance_id in self._table.to_unload(acknowledged):
            self._devices[device].send(messages.Unload(instance_id))

    # Catalog

    def _catalog(self) -> messages.Catalog:
        devices = tuple(device.status(self._placement.measured_bytes(name)) for name, device in self._devices.items())
        versions = self._table.statuses(self._engines.statuses)
        refused = tuple(messages.RefusedStatus(each.model, each.name, each.reason) for each in self._versions.refused)
        models = self._versions.model_statuses()
        return messages.Catalog(self._generation, devices, versions, self._is_draining, refused, models)

    def _publish(self) -> None:
        """Sends the whole catalog to every API process."""
        self._generation += 1
        catalog = self._catalog()
        for api in self._apis.values():
            api.send(catalog)

    def _announce(self) -> None:
        """Logs once that all processes know all models."""
        is_known = len(self._acknowledged) == self._settings.api_processes and all(
            generation == self._generation for generation in self._acknowledged.values()
        )
        is_open = any(device.is_open for device in self._devices.values())
        is_serving = is_known and is_open and self._table.has_no_load_pending()
        if self._was_ready or self._is_draining or not is_serving:
            return
        self._was_ready = True
        host, port = self._reservation.getsockname()[:2]
        seconds = round(time.monotonic() - self._started_s, 2)
        log.info("serving", url=f"http://{host}:{port}", docs="/docs", seconds=seconds)

    # Shutdown

    async def _shut_down(self, apis: list[asyncio.Task[None]], workers: list[asyncio.Task[None]]) -> None:
        """Drains: not ready, stop admitting, finish requests, stop the workers; one timeout bounds all steps."""
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


def serve(settings: Settings, cores: int) -> None:
    """Serves until a signal; `settings` are as given, not resolved. Raises SettingsError when it cannot start."""
    if not settings.repository.is_dir():
        raise SettingsError(
            f"SACCADE_REPOSITORY: {settings.repository} is not a directory; publish a model with "
            "`saccade-export run RECIPE.yaml --repository DIR`"
        )
    ApiKeys.from_file(settings.api_keys_file)  # a bad file is refused here; an API process could only die repeatedly
    signatures = signature_policy(settings.trusted_keys, is_required=settings.require_signature)
    ensure_pinned(settings, signatures)
    with reserve(settings.host, settings.port) as reservation, runtime_dir() as folder:
        host, port = reservation.getsockname()[:2]
        log.info("starting", host=host, port=port, pid=os.getpid())
        complete = resolved(tuned(settings, cores), cores)
        asyncio.run(Supervisor(complete, signatures, folder, reservation).run())
