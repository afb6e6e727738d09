"""The supervisor: it reserves the port, keeps all processes running, sends the catalog, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from saccade.service.core import VersionKey
from saccade.service.errors import SettingsError, StartFailed
from saccade.service.ipc import messages
from saccade.service.ipc.api_keys import ApiKeys
from saccade.service.ipc.child_process import ALLOCATOR
from saccade.service.ipc.listening import reserve
from saccade.service.ipc.runtime_dir import runtime_dir
from saccade.service.logs import configure_logs, set_level
from saccade.service.metrics import MULTIPROCESS_DIR
from saccade.service.repository.trusted_keys import SignaturePolicy, signature_policy
from saccade.service.settings import Settings, resolved
from saccade.service.supervisor.api_processes import ApiEvents, ApiSupervision
from saccade.service.supervisor.devices import DeviceEvents, DeviceSupervision, WorkerEnd
from saccade.service.supervisor.ended_metrics import EndedMetrics
from saccade.service.supervisor.pins import ensure_pinned
from saccade.service.supervisor.process_figures import ProcessFigures
from saccade.service.supervisor.reconciler import Reconciler
from saccade.service.supervisor.repository_mirror import RepositoryMirror, repository_mirror
from saccade.service.supervisor.start_barrier import StartBarrier
from saccade.service.supervisor.tuning.tune import tuned
from saccade.service.supervisor.waiting_health import answered_health

log = structlog.get_logger()

_LEVEL_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # to debug, and back to the setting

_PYTHON_ERROR = 1  # exit code after an error that nothing caught, such as one while importing
_USE_PERIOD_S = 2.0  # more often than servers are scraped; reading takes less than a millisecond
_TOGETHER_WITHIN_S = 5.0  # an API process that takes longer to start listens later than the others


class Supervisor:
    """Runs a worker per device and the API processes, and tells them what the reconciler decides."""

    def __init__(
        self,
        settings: Settings,
        signatures: SignaturePolicy,
        runtime_dir: Path,
        reservation: socket.socket,
        mirror: RepositoryMirror | None = None,
        give_port: Callable[[], None] = lambda: None,
    ) -> None:
        """`give_port` is called before a process listens: whoever answered on the port until then stops."""
        self._settings = settings
        self._give_port = give_port
        self._reservation = reservation
        self._acknowledged: dict[str, int] = {}
        self._start_barrier = StartBarrier(settings.api_processes)
        self._reconciler = Reconciler(
            settings,
            signatures,
            self._send_catalog,
            lambda: min(self._acknowledged.values(), default=None),
            mirror,
        )
        self._quarantines = self._reconciler.quarantines
        limit_s = self._quarantines.first_run_limit_s
        metrics_dir = runtime_dir / "metrics"
        self._ended_metrics = EndedMetrics(metrics_dir)
        environment = {MULTIPROCESS_DIR: str(metrics_dir), **ALLOCATOR}
        events = DeviceEvents(
            self._reconciler.from_worker, self._worker_lost, self._reconciler.wake, limit_s, self._unable
        )
        self._devices = {
            device: DeviceSupervision(device, settings, runtime_dir / f"worker-{index}", environment, events)
            for index, device in enumerate(settings.devices)
        }
        port = reservation.getsockname()[1]
        api_events = ApiEvents(self._from_api, self._api_lost, self._unable)
        names = [f"api-{index}" for index in range(settings.api_processes)]
        self._apis = {name: ApiSupervision(name, port, settings, environment, api_events) for name in names}
        self._figures = ProcessFigures()
        self._failure = ""  # why the start failed
        self._was_ready = False
        self._started_s = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises StartFailed."""
        loop = asyncio.get_running_loop()
        loop.call_later(_TOGETHER_WITHIN_S, lambda: self._let_listen(self._start_barrier.wait_no_longer()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        for number, level in zip(_LEVEL_SIGNALS, ("debug", self._settings.log_level), strict=True):
            loop.add_signal_handler(number, self._set_log_level, level)
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(device.keep()) for device in self._devices.values()]
            apis = [tasks.create_task(api.keep()) for api in self._apis.values()]
            watching = [tasks.create_task(device.probe()) for device in self._devices.values()]
            watching += [tasks.create_task(api.probe()) for api in self._apis.values()]
            watching += [tasks.create_task(run) for run in self._reconciler.runs(self._devices)]
            watching.append(tasks.create_task(self._report_use()))
            building = tasks.create_task(self._reconciler.plans.run())
            await self._stop.wait()
            building.cancel()  # first, because a server that ends needs no new plans
            await self._shut_down(apis, workers)
            for task in (*watching, *apis, *workers):
                task.cancel()
        if self._failure:
            raise StartFailed(self._failure)

    def _set_log_level(self, level: str) -> None:
        """Holds for processes that run; one that is started later has the level of the settings."""
        set_level(level)
        log.warning("log_level", level=level)
        for api in self._apis.values():
            api.send(messages.LogLevel(level))
        for device in self._devices.values():
            device.send(messages.LogLevel(level))

    # Children

    def _api_lost(self, name: str, pid: int) -> None:
        self._acknowledged.pop(name, None)
        self._start_barrier.gone(name)
        self._reconciler.observed.api_gone(name, sum(api.restarts for api in self._apis.values()))
        self._ended_metrics.ended(pid)
        self._reconciler.wake()

    def _unable(self, name: str, exit_code: int) -> None:
        """Ends a start in which a process broke off before it could do anything, since the next would do the same."""
        if exit_code == _PYTHON_ERROR and not self._was_ready:
            self._failure = f"{name} ended with an error before it could serve; the lines above it say which"
            self._stop.set()

    def _worker_lost(self, device: str, end: WorkerEnd) -> None:
        self._ended_metrics.ended(end.pid)
        if not self._reconciler.is_draining:
            self._quarantines.worker_lost(device, end)

    async def _report_use(self) -> None:
        """Tells the API processes, which are scraped, what all processes take."""
        while True:
            self._ended_metrics.settle()
            apis = [("api", api.pid) for api in self._apis.values()]
            workers = [("worker", device.pid) for device in self._devices.values()]
            running = [(kind, pid) for kind, pid in (*apis, *workers) if pid is not None]
            use = messages.ProcessesUse(self._figures.read([("supervisor", os.getpid()), *running]))
            for api in self._apis.values():
                api.send(use)
            await asyncio.sleep(_USE_PERIOD_S)

    # API processes

    def _from_api(self, name: str, message: messages.AnyMessage) -> None:
        match message:
            case messages.ApiReady():
                self._acknowledged[name] = 0
                self._apis[name].send(self._reconciler.catalog)
            case messages.CatalogApplied():
                self._acknowledged[name] = message.generation
                self._let_listen(self._start_barrier.able(name))
                self._reconciler.wake()
                self._announce()
            case messages.DesireVersion():
                self._reconciler.desire(VersionKey(message.model, message.version))
            case messages.Answers():
                self._quarantines.answered(message.counts)
            case messages.Tallied():
                self._reconciler.rollouts.told(message.tallies)
            case messages.Used():
                self._reconciler.observed.used(name, message.usages)

    def _send_catalog(self, catalog: messages.Catalog) -> None:
        for api in self._apis.values():
            api.send(catalog)
        self._ended_metrics.follow(catalog)

    def _let_listen(self, names: list[str]) -> None:
        if names:
            self._give_port()
        for name in names:
            self._apis[name].send(messages.Listen())

    def _announce(self) -> None:
        """Logs once that all processes know all models."""
        generation = self._reconciler.catalog.generation
        is_known = len(self._acknowledged) == self._settings.api_processes and all(
            acknowledged == generation for acknowledged in self._acknowledged.values()
        )
        is_open = any(device.is_open for device in self._devices.values())
        is_serving = is_known and is_open and self._reconciler.is_settled
        if self._was_ready or self._reconciler.is_draining or not is_serving:
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
        self._reconciler.is_draining = True
        for device in self._devices.values():
            device.drain()
        for api in self._apis.values():
            api.drain()
        self._reconciler.turn()
        await asyncio.sleep(0.0 if self._failure else settings.drain_delay_ms / 1000)
        deadline_s = time.monotonic() + settings.shutdown_timeout_ms / 1000
        for api in self._apis.values():
            api.send(messages.StopAdmitting())
        await asyncio.wait(apis, timeout=deadline_s - time.monotonic())
        for device in self._devices.values():
            device.send(messages.Stop())
        await asyncio.wait(workers, timeout=max(0.0, deadline_s - time.monotonic()))
        for api in self._apis.values():
            if api.kill():
                log.error("killed_after_timeout", name=api.name)
        for device in self._devices.values():
            if device.kill():
                log.error("killed_after_timeout", name=f"worker-{device.device}")
        log.info("stopped")


def serve(settings: Settings, cores: int) -> None:
    """Serves until a signal; `settings` are as given, not resolved. Raises SettingsError or StartFailed."""
    configure_logs(settings.log_format, "supervisor", settings.log_level)
    for number in _LEVEL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # one that comes too early must not end the server
    mirror = repository_mirror(settings)
    if mirror is None and not settings.repository.is_dir():
        raise SettingsError(
            f"SACCADE_REPOSITORY: {settings.repository} is not a directory; publish a model with "
            "`saccade-export run RECIPE.yaml --repository DIR`"
        )
    # A bad file is refused here; an API process could only die repeatedly.
    plain_keys = ApiKeys.from_file(settings.api_keys_file).plain_count
    if plain_keys:
        log.warning(
            "api_keys_not_hashed", keys=plain_keys, change="put the lines of `saccade keys hash` in their place"
        )
    signatures = signature_policy(settings.trusted_keys, is_required=settings.require_signature)
    with ExitStack() as held, ExitStack() as waiting:
        reservation = held.enter_context(reserve(settings.host, settings.port))
        others = {"SACCADE_GRPC_PORT": settings.grpc_port, "SACCADE_ADMIN_PORT": settings.admin_port}
        for setting, other in others.items():
            if other:
                held.enter_context(reserve(settings.host, other, setting))
        host, port = reservation.getsockname()[:2]
        log.info("starting", host=host, port=port, pid=os.getpid())
        if mirror is not None:
            settings = settings.model_copy(update={"repository": held.enter_context(mirror).directory})
            waiting.enter_context(answered_health(settings.host, port, mirror.waits_for))
            with _ended_by_sigterm():
                mirror.wait_until_usable()
        ensure_pinned(settings, signatures)
        folder = held.enter_context(runtime_dir())
        with _ended_by_sigterm():
            complete = resolved(tuned(settings, cores), cores)
        asyncio.run(Supervisor(complete, signatures, folder, reservation, mirror, waiting.close).run())


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Until the event loop handles signals: as process 1 of a container, the kernel would drop SIGTERM without this."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
