"""Runs an API process: uvicorn on the shared port, a connection to the supervisor, and one to every worker."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from saccade.models.contract.manifest import Manifest, ManifestError, read_manifest
from saccade.service.api.app import Api, build_api
from saccade.service.api.http.early_refusals import EarlyRefusals
from saccade.service.api.http.limited_heads import LimitedHeads
from saccade.service.api.key_watch import KeyWatch
from saccade.service.api.refusal_log import RefusalLog
from saccade.service.core import VersionKey
from saccade.service.ipc import messages
from saccade.service.ipc.child import ControlConnection, begun
from saccade.service.ipc.child_process import inherited_environment
from saccade.service.ipc.listening import accepted, listen
from saccade.service.logs import configure_logs, set_level
from saccade.service.settings import Settings

if TYPE_CHECKING:
    from saccade.service.api.grpc.server import GrpcServer

log = structlog.get_logger()

_WORKER_WITHIN_S = 2.0  # longest wait for workers at start; health must be answered soon even without a worker
_FAILURES_PERIOD_S = 0.05
_ANSWERS_EVERY = 20  # of these periods: how requests ended is reported each second where none failed
_TALLY_PERIOD_S = 0.5  # a canary that harms is found out a fraction of a second later for it
_USAGE_PERIOD_S = 0.2  # much shorter than the shortest time that a version stays in memory
_TRIM_PERIOD_S = 15.0
_NEW_OBJECTS = 20_000  # new objects between garbage collections: some thousand requests, a few MB
_KEEP_ALIVE_S = 75  # longer than the idle timeout of common load balancers, so that they close first


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the supervisor, and resets no connection when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes the connections along that wait to be accepted; closing the port would reset them."""
        waiting = [connection for listener in sockets or () for connection in accepted(listener)]
        for server in self.servers:
            server.close()
        given: dict[str, Any] = {"config": self.config, "server_state": self.server_state, "app_state": {}}
        protocol = partial(self.config.http_protocol_class, **given)
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        await super().shutdown(sockets)


class ApiProcess:
    """Applies the supervisor's catalogs while uvicorn serves."""

    def __init__(
        self,
        api: Api,
        control: ControlConnection,
        server: uvicorn.Server,
        host: str,
        *,
        reports_usage: bool,
        grpc_server: GrpcServer | None = None,
        admin: tuple[uvicorn.Server, int] | None = None,
        shutdown_s: float = 1.0,
        keys_file: Path | None = None,
        worker_within_s: float = _WORKER_WITHIN_S,
    ) -> None:
        self._host = host
        self._worker_within_s = worker_within_s
        self._keys_file = keys_file
        self._grpc_server = grpc_server
        self._admin = admin  # the server of /admin/v1 and its port
        self._shutdown_s = shutdown_s
        self._reports_usage = reports_usage
        self._informed = asyncio.Event()
        self._may_listen = asyncio.Event()
        self._api = api
        self._control = control
        self._server = server
        self._catalogs: asyncio.Queue[messages.Catalog] = asyncio.Queue()
        self._manifests: dict[tuple[str, str], Manifest] = {}  # keys are version directory and digest

    async def run(self, port: int) -> None:
        """Serves until the supervisor says stop, and finishes the requests in flight.

        It listens only when the supervisor says so, the catalog has arrived, and every running worker is connected: a
        process that replaces a dead one must not answer its first requests with "no such model".
        """
        self._control.start(self._receive, self._stop)
        self._control.send(messages.ApiReady(os.getpid()))
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow_catalogs())
            connecting = tasks.create_task(self._api.devices.run())
            watching = tasks.create_task(self._watch_keys())
            reports = (self._report_usage(), self._report_answers(), self._report_tallies(), self._send_traces())
            others = (self._api.apart.run(), self._give_memory_back())
            endless = [tasks.create_task(each) for each in (*reports, *others)]
            await self._informed.wait()
            there = [device.device for device in self._api.catalog.snapshot.devices if device.socket_path]
            await self._api.devices.wait_connected(there, self._worker_within_s)
            await self._may_listen.wait()
            if not self._server.should_exit:
                await self._serve(port)
            following.cancel()
            connecting.cancel()
            watching.cancel()
            for task in endless:
                task.cancel()
        if self._api.traces is not None:
            await self._api.traces.close()
        for pool in self._api.pools:
            pool.shutdown()
        self._api.apart.close()

    async def _serve(self, port: int) -> None:
        """All ports are closed together."""
        if self._grpc_server is not None:
            await self._grpc_server.start()
        async with asyncio.TaskGroup() as tasks:
            if self._admin is not None:
                server, admin_port = self._admin
                tasks.create_task(server.serve(sockets=[listen(self._host, admin_port)]))
            await self._server.serve(sockets=[listen(self._host, port)])
            if self._admin is not None:
                self._admin[0].should_exit = True
        if self._grpc_server is not None:
            await self._grpc_server.stop(self._shutdown_s)

    def _receive(self, message: messages.AnyMessage) -> None:
        match message:
            case messages.Catalog():
                self._catalogs.put_nowait(message)
            case messages.LogLevel():
                set_level(message.level)
            case messages.ProcessesUse():
                self._api.metrics.processes = message.kinds
            case messages.Listen():
                self._may_listen.set()
            case messages.StopAdmitting():
                self._stop()
            case messages.Probe():
                self._control.send(messages.Alive(message.sequence))

    def _stop(self) -> None:
        self._api.switch.shut()
        if self._grpc_server is not None:
            self._grpc_server.end_streams()
        self._server.should_exit = True
        self._informed.set()
        self._may_listen.set()

    async def _follow_catalogs(self) -> None:
        while True:
            catalog = await self._catalogs.get()
            self._api.devices.follow(catalog)
            manifests = {
                VersionKey(status.model, status.version): manifest
                for status in catalog.versions
                if (manifest := await self._manifest(status)) is not None
            }
            present = {_digest_at(status) for status in catalog.versions}
            self._manifests = {known: each for known, each in self._manifests.items() if known in present}
            self._api.catalog.apply(catalog, manifests)
            self._informed.set()

    async def _watch_keys(self) -> None:
        if self._keys_file is not None:
            await KeyWatch(self._keys_file, self._api.keys).run()

    async def _send_traces(self) -> None:
        if self._api.traces is not None:
            await self._api.traces.run()

    async def _give_memory_back(self) -> None:
        """Collects what refers to itself, and has the allocator return what it keeps, while no request has a slot.

        Requests that failed hold their bodies by their errors' frames, and bodies that came at one time leave gaps.
        """
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        while True:
            await asyncio.sleep(_TRIM_PERIOD_S)
            if not any(device.slots.in_use for device in self._api.devices.by_name.values()):
                gc.collect()
                if trim is not None:
                    await asyncio.to_thread(trim, 0)

    async def _report_usage(self) -> None:
        """Reports which versions requests use; the supervisor unloads the least recently used ones."""
        while self._reports_usage:
            await asyncio.sleep(_USAGE_PERIOD_S)
            usages = self._api.catalog.usages()
            if usages:
                self._control.send(messages.Used(usages))

    async def _report_answers(self) -> None:
        """Reports how requests ended, failures at once: a version that fails them loses its traffic."""
        for number in itertools.count():
            await asyncio.sleep(_FAILURES_PERIOD_S)
            counts = self._api.catalog.answers(only_if_failed=number % _ANSWERS_EVERY > 0)
            if counts:
                self._control.send(messages.Answers(counts))

    async def _report_tallies(self) -> None:
        """Reports what happened to the requests of models with an automatic rollout."""
        while True:
            await asyncio.sleep(_TALLY_PERIOD_S)
            tallies = self._api.catalog.tallies()
            if tallies:
                self._control.send(messages.Tallied(tallies))

    async def _manifest(self, status: messages.VersionStatus) -> Manifest | None:
        """Reads the manifest that the supervisor verified; None when it is unreadable or has changed since."""
        known = _digest_at(status)
        if status.manifest_sha256 and known not in self._manifests:
            try:
                manifest, sha256 = await asyncio.to_thread(read_manifest, Path(status.version_dir))
            except ManifestError as error:
                log.warning("manifest_unreadable", version_dir=status.version_dir, error=str(error))
                return None
            if sha256 != status.manifest_sha256:
                log.warning("manifest_changed", version_dir=status.version_dir)
                return None
            self._manifests[known] = manifest
        return self._manifests.get(known)


def _digest_at(status: messages.VersionStatus) -> tuple[str, str]:
    return status.version_dir, status.manifest_sha256


async def _main(control_descriptor: int, port: int, worker_within_s: float) -> None:
    control = await ControlConnection.open(control_descriptor)
    identity = await control.identity()
    settings = identity.settings
    configure_logs(settings.log_format, identity.name, settings.log_level)
    api = build_api(
        settings,
        lambda generation: control.send(messages.CatalogApplied(generation)),
        lambda key: control.send(messages.DesireVersion(key.model, key.version)),
        inherited_environment(),
    )
    process = ApiProcess(
        api,
        control,
        _http_server(api.asgi, api.refusals, settings, api.early),
        settings.host,
        reports_usage=settings.load_models != "all",
        grpc_server=_grpc_server(api, settings),
        admin=(_http_server(api.admin, api.refusals, settings), settings.admin_port) if api.admin else None,
        shutdown_s=settings.shutdown_timeout_ms / 1000,
        keys_file=settings.api_keys_file,
        worker_within_s=worker_within_s,
    )
    await process.run(port)


def _http_server(
    asgi: ASGIApp, refusals: RefusalLog, settings: Settings, early: EarlyRefusals | None = None
) -> uvicorn.Server:
    protocol = partial(LimitedHeads, timeout_s=settings.body_timeout_ms / 1000, refusals=refusals, early=early)
    config = uvicorn.Config(
        asgi,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        http=protocol,  # type: ignore[arg-type]  # made like a class
        loop="none",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout_ms / 1000)),
    )
    return _Server(config)


def _grpc_server(api: Api, settings: Settings) -> GrpcServer | None:
    if not settings.grpc_port:
        return None
    from saccade.service.api.grpc.server import GrpcServer  # late: an extra, and 20 MB that most servers do not need

    return GrpcServer(api.asgi, settings)


def _tune_garbage_collection() -> None:
    """Excludes imported objects from garbage collection and makes it rare: requests leave hardly any cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--worker-within-s", type=float, default=_WORKER_WITHIN_S)
    arguments = begun(parser)
    _tune_garbage_collection()
    uvloop.run(_main(arguments.control_fd, arguments.port, arguments.worker_within_s))


if __name__ == "__main__":
    main()
