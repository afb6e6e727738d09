"""Starts, probes and replaces the worker process of one device.

Each device has its own back-off and its own probe, so a broken device does not affect the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from saccade.service.device_names import inner_name, worker_environment
from saccade.service.ipc import messages
from saccade.service.ipc.child_process import WORKER_MODULE, BackOff, ChildProcess, ChildSpec, inherited_environment
from saccade.service.ipc.run_marker import Run, create, marker_path, present_run
from saccade.service.settings import Settings
from saccade.service.supervisor.native_lines import NativeLines
from saccade.service.supervisor.probing import next_look_s

log = structlog.get_logger()

_PROBE_STALE_S = 5.0  # a probe waits for one batch at most; after this time the worker counts as not ready


_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker ended, and what its device was at."""

    pid: int
    run: Run | None
    is_hang: bool = False  # the supervisor ended it, because it did not answer
    is_from_outside: bool = False  # somebody ended or stopped it, and no model is to blame


@dataclass(frozen=True, slots=True)
class DeviceEvents:
    """The functions that are called with a device's name when something happens there."""

    on_message: Callable[[str, messages.AnyMessage], None]  # called for every message except answers to probes
    on_lost: Callable[[str, WorkerEnd], None]
    on_changed: Callable[[], None]  # called when a worker begins or stops to answer probes
    first_run_limit_s: Callable[[int], float]  # how long a run of this instance may take; infinite once it is loaded
    on_unable: Callable[[str, int], None]  # called with the exit code of a worker that ended before it could load


class DeviceSupervision:
    """The worker of one device, over all its restarts."""

    def __init__(
        self, device: str, settings: Settings, socket_stem: Path, environment: Mapping[str, str], events: DeviceEvents
    ) -> None:
        """Raises SettingsError for a device that the server's own environment hides."""
        self.device = device
        # The fake backend needs no real device, so any valid name is allowed.
        given = {} if settings.backend == "fake" else inherited_environment()
        self._environment = {**environment, **worker_environment(device, given)}
        self._settings = settings
        self._socket_stem = socket_stem
        self._events = events
        self._worker: ChildProcess | None = None
        self._socket_path = ""
        self._restarts = 0
        self._probe_sent_s: float | None = None
        self._last_run: Run | None = None  # at the last probe
        self._is_hang = False
        self._stop = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the worker accepts connections and loads."""
        return self._worker is not None and bool(self._socket_path)

    @property
    def is_up(self) -> bool:
        """Whether the worker also answers probes."""
        is_stale = self._probe_sent_s is not None and time.monotonic() - self._probe_sent_s > _PROBE_STALE_S
        return bool(self._socket_path) and not is_stale

    def status(self, memory_bytes: int) -> messages.DeviceStatus:
        return messages.DeviceStatus(self.device, self.is_up, self._restarts, self._socket_path, memory_bytes)

    @property
    def pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    def send(self, message: messages.AnyMessage) -> None:
        """Sends a message to the worker; without a worker the message is dropped."""
        if self._worker is not None:
            self._worker.send(message)

    async def keep(self) -> None:
        """Keeps a worker running until told to stop."""
        back_off = BackOff()
        while not self._stop.is_set():
            started_s = time.monotonic()
            spec, out_of_memory = self._spec(), _memory_kills()
            create(marker_path(spec.socket_path))
            stderr = await NativeLines.opened(spec.name)
            worker = await ChildProcess.start(spec, self._child_settings(), self._receive, stderr)
            self._worker = worker
            if self._stop.is_set():  # the order to stop came while the worker was being started
                worker.send(messages.Stop())
            code = await worker.wait()
            was_open = self.is_open
            self._worker = None
            self._socket_path = ""
            self._probe_sent_s = None
            if not self._stop.is_set():
                log.error("worker_died", device=self.device, exit_code=code)
                self._restarts += 1
                if not was_open:
                    self._events.on_unable(f"worker-{self.device}", code)
            run = present_run(marker_path(spec.socket_path))
            for path in (marker_path(spec.socket_path), Path(spec.socket_path)):
                path.unlink(missing_ok=True)
            is_signal = code in _FROM_OUTSIDE and _memory_kills() == out_of_memory
            end = WorkerEnd(worker.pid, run, is_hang=self._is_hang, is_from_outside=is_signal and not self._is_hang)
            self._is_hang, self._last_run = False, None
            self._events.on_lost(self.device, end)
            await back_off.pause(time.monotonic() - started_s, self._stop)

    async def probe(self) -> None:
        """Sends probes that the device loop must answer; a worker that hangs is killed, and so restarted."""
        sequence = 0
        limit_s = self._settings.hang_timeout_ms / 1000
        while True:
            sent_s = self._probe_sent_s
            await asyncio.sleep(next_look_s(None if sent_s is None else time.monotonic() - sent_s, limit_s))
            if not self.is_open:
                continue
            self._watch_first_run()
            if self._probe_sent_s is None:
                sequence += 1
                self._probe_sent_s = time.monotonic()
                self.send(messages.Probe(sequence))
                continue
            waited_s = time.monotonic() - self._probe_sent_s
            if waited_s >= limit_s:
                self._kill_hanging(waited_s)
            elif waited_s > _PROBE_STALE_S:
                self._events.on_changed()

    def _watch_first_run(self) -> None:
        """Kills a worker in which a version that is being loaded hangs, which need not keep a probe from its answer."""
        assert self._worker is not None  # it is open
        before, self._last_run = self._last_run, present_run(marker_path(self._spec().socket_path))
        run = self._last_run
        if run is not None and run == before:
            waited_s = time.monotonic() - run.since_s
            if waited_s > self._events.first_run_limit_s(run.instance_id):
                self._kill_hanging(waited_s)

    def _kill_hanging(self, waited_s: float) -> None:
        if self._worker is None:
            return
        # Whoever stopped the process from outside is not a model that hangs.
        self._is_hang = not _is_stopped(self._worker.pid)
        log.error("worker_hangs", device=self.device, waited_s=round(waited_s, 1))
        self.kill()

    def drain(self) -> None:
        """Expects the worker's end from now on, and does not replace it; until then the worker still serves."""
        self._stop.set()

    def kill(self) -> bool:
        """Sends SIGKILL; returns False when there is no worker."""
        if self._worker is None:
            return False
        self._worker.kill()
        return True

    def _receive(self, message: messages.AnyMessage) -> None:
        match message:
            case messages.Alive():
                was_up = self.is_up
                self._probe_sent_s = None
                if not was_up:
                    self._events.on_changed()
            case messages.WorkerReady():
                self._socket_path = message.socket_path
                self._events.on_message(self.device, message)
            case _:
                self._events.on_message(self.device, message)

    def _spec(self) -> ChildSpec:
        socket_path = f"{self._socket_stem}-{self._restarts}.sock"
        return ChildSpec(WORKER_MODULE, f"worker-{self.device}", (), self._environment, socket_path)

    def _child_settings(self) -> Settings:
        return self._settings.model_copy(update={"device": inner_name(self.device)})


def _memory_kills() -> int:
    """Returns how many processes of this machine the kernel ended for want of memory."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text("ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _is_stopped(pid: int) -> bool:
    """Returns whether a process was stopped by a signal, so that it cannot answer."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(") ")[2].startswith("T")
    return False
