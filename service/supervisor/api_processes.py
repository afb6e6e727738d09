"""Starts, probes and replaces one API process.

One that hangs would keep its connections waiting and get its share of new ones, so it is killed: the kernel then ends
the former and gives the latter to the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from saccade.service.ipc import messages
from saccade.service.ipc.child_process import API_MODULE, BackOff, ChildProcess, ChildSpec
from saccade.service.settings import Settings
from saccade.service.supervisor.native_lines import NativeLines
from saccade.service.supervisor.probing import next_look_s

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ApiEvents:
    """The functions that are called with a process's name when something happens there."""

    on_message: Callable[[str, messages.AnyMessage], None]  # called for every message except answers to probes
    on_lost: Callable[[str, int], None]  # with the pid of the one that ended
    on_unable: Callable[[str, int], None]  # with the exit code of one that ended before it could do anything


class ApiSupervision:
    """One of the API processes, over all its restarts."""

    def __init__(
        self, name: str, port: int, settings: Settings, environment: Mapping[str, str], events: ApiEvents
    ) -> None:
        self.name = name
        self.restarts = 0
        self._spec = ChildSpec(API_MODULE, name, ("--port", str(port)), environment, "")
        self._settings = settings
        self._events = events
        self._process: ChildProcess | None = None
        self._is_ready = False
        self._probe_sent_s: float | None = None
        self._stop = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def send(self, message: messages.AnyMessage) -> None:
        """Sends a message to the process; without one the message is dropped."""
        if self._process is not None:
            self._process.send(message)

    async def keep(self) -> None:
        """Keeps a process running until told to stop."""
        back_off = BackOff()
        while not self._stop.is_set():
            started_s = time.monotonic()
            stderr = await NativeLines.opened(self.name)
            process = await ChildProcess.start(self._spec, self._settings, self._receive, stderr)
            self._process = process
            if self._stop.is_set():  # the order to stop came while the process was being started
                process.send(messages.StopAdmitting())
            code = await process.wait()
            was_ready, self._is_ready = self._is_ready, False
            self._process, self._probe_sent_s = None, None
            if not self._stop.is_set():
                log.error("api_process_died", name=self.name, exit_code=code)
                self.restarts += 1
                if not was_ready:
                    self._events.on_unable(self.name, code)
            self._events.on_lost(self.name, process.pid)
            await back_off.pause(time.monotonic() - started_s, self._stop)

    async def probe(self) -> None:
        """Sends probes that the event loop must answer; a process that hangs is killed, and so restarted."""
        sequence = 0
        limit_s = self._settings.hang_timeout_ms / 1000
        while True:
            sent_s = self._probe_sent_s
            await asyncio.sleep(next_look_s(None if sent_s is None else time.monotonic() - sent_s, limit_s))
            if self._process is None or not self._is_ready:
                continue
            if self._probe_sent_s is None:
                sequence += 1
                self._probe_sent_s = time.monotonic()
                self.send(messages.Probe(sequence))
                continue
            waited_s = time.monotonic() - self._probe_sent_s
            if waited_s >= limit_s:
                log.error("api_process_hangs", name=self.name, waited_s=round(waited_s, 1))
                self._process.kill()

    def drain(self) -> None:
        """Expects the process's end from now on, and does not replace it; until then it still serves."""
        self._stop.set()

    def kill(self) -> bool:
        """Sends SIGKILL; returns False when there is no process."""
        if self._process is None:
            return False
        self._process.kill()
        return True

    def _receive(self, message: messages.AnyMessage) -> None:
        match message:
            case messages.Alive():
                self._probe_sent_s = None
            case messages.ApiReady():
                self._is_ready = True
                self._events.on_message(self.name, message)
            case _:
                self._events.on_message(self.name, message)
