"""Runs the real processes of all forms side by side, with one version loaded; a form is tried by its catalog.

Processes that do not belong to the form that is being tried get no requests, and sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from saccade.service.backends.registry import backend_name
from saccade.service.backends.requests import variant_named
from saccade.service.core import VersionState
from saccade.service.device_names import CPU
from saccade.service.errors import BackendError
from saccade.service.ipc import messages
from saccade.service.ipc.child_process import API_MODULE, WORKER_MODULE
from saccade.service.ipc.listening import reserve
from saccade.service.ipc.run_marker import create, marker_path
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.settings import Settings, resolved
from saccade.service.supervisor.tuning.forms import ProcessForm, TuningTask
from saccade.service.supervisor.tuning.trial_process import TrialProcess

HOST = "127.0.0.1"
_DEADLINE_MS = 60_000.0  # longer than all trials together
_WORKER_WITHIN_S = 60.0  # likewise: a process that listens has every worker, so that no request is refused


class TrialServer:
    """An asynchronous context: the processes run, and have loaded the version, as long as it lasts."""

    def __init__(self, task: TuningTask, version: VerifiedVersion, folder: Path) -> None:
        """`folder` is for sockets."""
        self._task = task
        self._version = version
        self._folder = folder
        # Whoever tries the forms is the only client, and must never be refused.
        self._settings = Settings.model_validate_json(task.settings_json).model_copy(
            update={
                "host": HOST,
                "grpc_port": 0,
                "admin_port": 0,
                "api_keys_file": None,
                "max_concurrent_per_key": 0,
                "load_models": "all",
                "ladder": "off",
                "max_estimated_wait_ms": 0,
                "default_deadline_ms": _DEADLINE_MS,
                "max_deadline_ms": _DEADLINE_MS,
            }
        )
        self._backend = backend_name(variant_named(version.manifest, task.variant), self._settings.backend)
        self._workers: dict[tuple[int, bool], list[_Worker]] = {}
        self._apis: dict[int, list[_Api]] = {}
        self._generation = 0

    async def __aenter__(self) -> TrialServer:
        """Starts everything at once. Raises BackendError when a process ends or the version cannot be loaded."""
        for form in self._task.forms:
            workers = self._workers.setdefault((form.threads, form.allow_spinning), [])
            workers += [_Worker() for _ in range(form.workers - len(workers))]
            self._apis.setdefault(form.api_processes, [_Api() for _ in range(form.api_processes)])
        for number, worker in enumerate(self._all_workers()):
            worker.device, worker.instance_id = f"{CPU}:{number}", number + 1
        try:
            await asyncio.gather(
                *(self._start_worker(each, *kind) for kind, workers in self._workers.items() for each in workers),
                *(self._start_api(api, count) for count, apis in self._apis.items() for api in apis),
            )
            for form in {form.api_processes: form for form in self._task.forms}.values():
                await self.use(form)
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    async def use(self, form: ProcessForm) -> list[int]:
        """Sends requests to this form's workers from now on; returns the ports of its HTTP processes."""
        self._generation += 1
        catalog = self._catalog(self._workers[form.threads, form.allow_spinning][: form.workers])
        apis = self._apis[form.api_processes]
        for api in apis:
            api.send(catalog)
        for api in apis:
            await api.receive(messages.CatalogApplied, lambda applied: applied.generation == self._generation)
            if not api.is_listening:
                api.send(messages.Listen())
                api.is_listening = True
        return [api.port for api in apis]

    def _all_workers(self) -> list[_Worker]:
        return [worker for workers in self._workers.values() for worker in workers]

    async def _start_worker(self, worker: _Worker, threads: int, spinning: bool) -> None:
        version, key = self._version, self._version.manifest
        settings = self._settings.model_copy(
            update={"device": CPU, "device_threads": threads, "allow_spinning": spinning}
        )
        place = str(self._folder / f"worker-{worker.instance_id}.sock")
        create(marker_path(place))
        await worker.start(WORKER_MODULE, f"worker-{worker.device}", (), settings, place)
        worker.socket_path = (await worker.receive(messages.WorkerReady)).socket_path
        worker.send(
            messages.Load(
                worker.instance_id,
                key.model,
                key.version,
                self._task.variant,
                str(version.path),
                version.manifest_sha256,
                self._task.batch_sizes,
                self._backend,
            )
        )
        ends = (VersionState.READY, VersionState.FAILED)
        state = await worker.receive(messages.InstanceState, lambda state: state.state in ends)
        if state.state != VersionState.READY:
            raise BackendError(state.reason)

    async def _start_api(self, api: _Api, count: int) -> None:
        with reserve(HOST, 0) as reservation:
            api.port = reservation.getsockname()[1]
        devices = ",".join(worker.device for worker in self._all_workers())
        settings = self._settings.model_copy(update={"device": devices, "api_processes": count})
        arguments = ("--port", str(api.port), "--worker-within-s", str(_WORKER_WITHIN_S))
        await api.start(API_MODULE, f"api-{api.port}", arguments, resolved(settings, self._task.cores), "")
        await api.receive(messages.ApiReady)

    def _catalog(self, workers: Iterable[_Worker]) -> messages.Catalog:
        version, manifest, variant = self._version, self._version.manifest, self._task.variant
        ready, backend = VersionState.READY.value, self._backend
        devices = tuple(messages.DeviceStatus(each.device, True, 0, each.socket_path) for each in self._all_workers())
        instances = tuple(
            messages.InstanceStatus(each.device, each.instance_id, ready, "", variant, backend, "") for each in workers
        )
        names = (manifest.model, manifest.version, str(version.path), version.manifest_sha256)
        status = messages.VersionStatus(*names, ready, "", variant, instances)
        return messages.Catalog(self._generation, devices, (status,), draining=False)

    def _end(self) -> None:
        for process in (*self._all_workers(), *(api for group in self._apis.values() for api in group)):
            process.end()


class _Worker(TrialProcess):
    device = ""
    instance_id = 0
    socket_path = ""


class _Api(TrialProcess):
    port = 0
    is_listening = False
