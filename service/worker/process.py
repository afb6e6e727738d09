"""Runs a device worker process: it owns one device, the instances on it, and the queue of their requests.

The event loop exchanges messages with API processes and the supervisor. The device loop runs batches in a thread of its
own, and a loader thread loads new versions during traffic. The event loop writes answers into the slots while the
device already runs the next batch.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from saccade.service.core import VersionState
from saccade.service.errors import DeviceLost, SaccadeError
from saccade.service.ipc import messages
from saccade.service.ipc.child import ControlConnection, begun
from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.handshake import receive_arena
from saccade.service.ipc.run_marker import RunMarker, marker_path
from saccade.service.ipc.tensor_slots import SlotArena
from saccade.service.logs import configure_logs, set_level
from saccade.service.metrics import Metrics
from saccade.service.settings import Settings
from saccade.service.worker.device_facts import device_facts
from saccade.service.worker.device_loop import DeviceLoop
from saccade.service.worker.freed_memory import return_freed_memory
from saccade.service.worker.instances import Finished, Work
from saccade.service.worker.jpegs import WorkerJpegs
from saccade.service.worker.loading import load_instance
from saccade.service.worker.scheduling.queue import Backlog

log = structlog.get_logger()

_EXIT_DEVICE_LOOP_DIED = 70
EXIT_DEVICE_LOST = 71  # after a sticky CUDA error only a new process can use the device
_METRICS_PERIOD_S = 0.5
_NO_BACKLOG = Backlog(0, 0.0, 0.0)  # for an instance that was removed


class ApiConnection:
    """The connection of one API process, with its arena and its replies."""

    def __init__(self, arena: SlotArena, device_loop: DeviceLoop) -> None:
        self._arena = arena
        self._device_loop = device_loop
        self.protocol = FrameProtocol(self._receive, self._lost)

    def _receive(self, message: messages.AnyMessage) -> None:
        match message:
            case messages.Submit():
                self._device_loop.submit(
                    Work(
                        self,
                        self._arena,
                        message.request_id,
                        message.slot,
                        message.instance_id,
                        message.deadline_s,
                        message.submitted_s,
                        message.encoded_bytes,
                        message.rank_offset_s,
                        message.asked,
                    )
                )
            case messages.Cancel():
                self._device_loop.cancel(self, message.request_id)

    def _lost(self) -> None:
        self._device_loop.cancel(self, None)
        self._arena.close()

    def finish(self, finished: Finished, backlog: Backlog) -> None:
        """Writes the answer into the slot, then sends the reply with the wait that a new request would have."""
        work = finished.work
        if finished.outputs is not None and finished.layout is not None:
            for there, output in zip(
                work.arena.views(work.slot, finished.layout).outputs, finished.outputs, strict=True
            ):
                there[...] = output
        self.protocol.send(
            messages.Done(
                work.request_id,
                finished.status,
                finished.queue_s,
                finished.infer_s,
                finished.batch_size,
                finished.decode_s,
                backlog.wait_s,
                backlog.image_s,
                finished.batch,
            )
        )


class Worker:
    """Connects control messages, API connections and the device loop."""

    def __init__(self, settings: Settings, control: ControlConnection, socket_path: str) -> None:
        self._settings = settings
        self._control = control
        self._socket_path = socket_path
        self._loop = asyncio.get_running_loop()
        self._metrics = Metrics(CollectorRegistry())
        self._names: dict[int, tuple[str, str]] = {}  # model and version of each loaded instance
        self._models: set[str] = set()  # all that were ever loaded, so that the depth of an unloaded one returns to 0
        self._loader = ThreadPoolExecutor(1, "loader")
        self._jpegs = WorkerJpegs(settings)
        self._device_loop = DeviceLoop(
            self._report_from_thread,
            self._call_from_thread,
            self._observe_batch,
            RunMarker.open(marker_path(socket_path)),
        )
        self._device_thread = threading.Thread(target=self._run_device, name="device", daemon=True)
        self._stopped = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Serves until told to stop or until the supervisor has ended; returns the exit code for the process."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._socket_path)
        listener.listen(64)
        listener.setblocking(False)
        self._device_thread.start()
        self._control.start(self._receive_control, self._stopped.set)
        facts = await asyncio.to_thread(device_facts, self._settings)
        self._control.send(messages.WorkerReady(self._socket_path, os.getpid(), facts))
        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(self._accept(listener))
            measuring = tasks.create_task(self._publish_depths())
            await self._stopped.wait()
            accepting.cancel()
            measuring.cancel()
        listener.close()
        return self._exit_code

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            try:
                arena = await asyncio.to_thread(receive_arena, connection)
            except (OSError, ValueError) as error:
                log.warning("handshake_failed", error=str(error))
                connection.close()
                continue
            client = ApiConnection(arena, self._device_loop)
            await self._loop.connect_accepted_socket(lambda client=client: client.protocol, connection)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            client.protocol.send(messages.Hello(arena.slot_count, arena.slot_bytes))

    def _receive_control(self, message: messages.AnyMessage) -> None:
        match message:
            case messages.Load():
                self._loader.submit(self._load, message)
            case messages.Unload():
                self._loader.submit(self._unload, message)
            case messages.LogLevel():
                set_level(message.level)
            case messages.Probe():
                self._device_loop.probe(partial(self._control.send, messages.Alive(message.sequence)))
            case messages.Stop():
                self._device_loop.stop()

    def _report_from_thread(self, batch: list[Finished]) -> None:
        if batch:
            self._loop.call_soon_threadsafe(self._deliver, batch)

    def _call_from_thread(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def _deliver(self, batch: list[Finished]) -> None:
        backlogs = self._device_loop.backlogs()
        for finished in batch:
            finished.work.connection.finish(finished, backlogs.get(finished.work.instance_id, _NO_BACKLOG))

    def _run_device(self) -> None:
        try:
            self._device_loop.run()
        except DeviceLost as error:
            self._lose_device(error)
            return
        except BaseException:
            # Without a device loop requests would wait for ever, so the process ends and the supervisor replaces it.
            log.exception("device_loop_died")
            os._exit(_EXIT_DEVICE_LOOP_DIED)
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _lose_device(self, error: DeviceLost) -> None:
        """Ends the process once all reports so far have been sent; the supervisor starts a new one."""
        log.error("device_lost", device=self._settings.device, reason=str(error))
        self._exit_code = EXIT_DEVICE_LOST
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _load(self, message: messages.Load) -> None:
        """Loads an instance in the loader thread; every outcome is reported, also an unforeseen one."""
        start_s = time.monotonic()
        key = {"model": message.model, "version": message.version, "variant": message.variant}

        def report(
            state: VersionState,
            reason: str = "",
            provider: str = "",
            memory_bytes: int = 0,
            decodes_jpegs: bool = False,
            gives: int = 0,
        ) -> None:
            seconds = time.monotonic() - start_s
            update = messages.InstanceState(
                message.instance_id, state.value, reason, provider, seconds, memory_bytes, decodes_jpegs, gives
            )
            self._loop.call_soon_threadsafe(self._control.send, update)

        try:
            exclusive = partial(self._device_loop.exclusive, message.instance_id)
            instance, provider, memory_bytes = load_instance(
                message, self._settings, exclusive, partial(report, VersionState.WARMING), self._jpegs
            )
        except SaccadeError as error:
            report(VersionState.FAILED, str(error))
            if isinstance(error, DeviceLost):
                self._lose_device(error)
            return
        except Exception as error:  # one model must not end the loader; /v1/models shows the reason
            log.exception("load_failed", **key)
            report(VersionState.FAILED, f"unexpected {type(error).__name__} while loading; see the worker's log")
            return
        self._names[message.instance_id] = names = (message.model, str(message.version))
        self._models.add(message.model)
        self._metrics.version_came(*names)
        weight = self._settings.shares.get(message.model, 1.0)
        self._device_loop.add(message.instance_id, instance, message.model, weight)
        report(
            VersionState.READY,
            provider=provider,
            memory_bytes=memory_bytes,
            decodes_jpegs=instance.jpegs is not None,
            gives=instance.gives,
        )

    def _unload(self, message: messages.Unload) -> None:
        self._device_loop.remove(message.instance_id)
        names = self._names.pop(message.instance_id)
        if names not in self._names.values():
            with self._device_loop.exclusive(message.instance_id):  # the device's thread counts batches
                self._metrics.version_left(*names)
        return_freed_memory()
        self._loop.call_soon_threadsafe(self._control.send, messages.Unloaded(message.instance_id))

    def _observe_batch(self, instance_id: int, batch_size: int) -> None:
        self._metrics.batch_size.labels(*self._names[instance_id]).observe(batch_size)

    async def _publish_depths(self) -> None:
        objective_s = (self._settings.objective_ms or self._settings.default_deadline_ms) / 1000
        while True:
            depth_by_model = {model: (0, 0.0) for model in list(self._models)}
            for instance_id, backlog in self._device_loop.backlogs().items():
                if (names := self._names.get(instance_id)) is None:  # it is being unloaded
                    continue
                model = names[0]
                depth, wait_s = depth_by_model[model]
                depth_by_model[model] = (depth + backlog.waiting, max(wait_s, backlog.wait_s))
            for model, (depth, wait_s) in depth_by_model.items():
                self._metrics.queue_depth.labels(model).set(depth)
                self._metrics.queue_wait_estimate_seconds.labels(model).set(wait_s)
                self._metrics.slo_headroom_ratio.labels(model).set(1.0 - wait_s / objective_s)
            await asyncio.sleep(_METRICS_PERIOD_S)


async def _main(descriptor: int) -> int:
    control = await ControlConnection.open(descriptor)
    identity = await control.identity()
    configure_logs(identity.settings.log_format, identity.name, identity.settings.log_level)
    return await Worker(identity.settings, control, identity.socket_path).run()


def main() -> None:
    """Entry point of the child process."""
    code = uvloop.run(_main(begun(argparse.ArgumentParser()).control_fd))
    if code:
        os._exit(code)  # sys.exit could hang, because libraries clean up on a lost device


if __name__ == "__main__":
    main()
