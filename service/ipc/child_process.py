"""The supervisor's side of a child process: it starts it, sends its settings first, and notices its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.messages import AnyMessage, Configure
from saccade.service.settings import MIB, Settings

API_MODULE = "saccade.service.api.process"
WORKER_MODULE = "saccade.service.worker.process"

# By default glibc returns image-sized blocks to the kernel at every free; getting them again, page by page, costs as
# much as decoding a small image. With these values a process keeps blocks up to 8 MiB, at most 64 MiB of them unused.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(8 * MIB), "MALLOC_TRIM_THRESHOLD_": str(64 * MIB)}


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a child: `python -m module --control-fd N [arguments]`."""

    module: str
    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    socket_path: str


def inherited_environment() -> Mapping[str, str]:
    """Returns the environment that every child inherits; its own variables replace inherited ones."""
    return os.environ


def extend_environment(values: Mapping[str, str]) -> None:
    """Sets variables of this process, for children that get no environment of their own."""
    os.environ.update(values)


class ChildProcess:
    """One running child process."""

    def __init__(self, process: asyncio.subprocess.Process, protocol: FrameProtocol, name: str) -> None:
        self._process = process
        self._protocol = protocol
        self.name = name

    @classmethod
    async def start(
        cls,
        spec: ChildSpec,
        settings: Settings,
        on_message: Callable[[AnyMessage], None],
        native_stderr: int,
    ) -> ChildProcess:
        """Starts the child and sends its settings.

        `native_stderr`, a descriptor that is closed here, becomes the standard error of the child and of its children;
        its events go to that of this process.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        log_fd = os.dup(2)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a models.py or export/ in the current directory must not be imported instead of ours
                "-m",
                spec.module,
                "--control-fd",
                str(theirs.fileno()),
                "--log-fd",
                str(log_fd),
                *spec.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=native_stderr,
                pass_fds=(theirs.fileno(), log_fd),
                env={**inherited_environment(), **spec.environment},
            )
        finally:
            theirs.close()
            os.close(native_stderr)
            os.close(log_fd)
        protocol = FrameProtocol(on_message, lambda: None)
        await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=ours)
        protocol.send(Configure(settings.model_dump_json().encode(), spec.name, spec.socket_path))
        return cls(process, protocol, spec.name)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: AnyMessage) -> None:
        self._protocol.send(message)

    async def wait(self) -> int:
        """Waits for the end and returns the exit code; a negative one is a signal."""
        code = await self._process.wait()
        self._protocol.close()
        return code

    def kill(self) -> None:
        """Sends SIGKILL, for a child that no longer answers."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)


@dataclass(slots=True)
class BackOff:
    """Computes the pause before a restart, in seconds: doubled after a short life, short again after a long one."""

    first_s: float = 0.1
    last_s: float = 5.0
    healthy_after_s: float = 10.0
    _next_s: float = 0.0

    def after_life_of(self, lived_s: float) -> float:
        if lived_s >= self.healthy_after_s or self._next_s == 0.0:
            self._next_s = self.first_s
        else:
            self._next_s = min(self.last_s, self._next_s * 2)
        return self._next_s

    async def pause(self, lived_s: float, stop: asyncio.Event) -> None:
        """Waits before a restart after a life of `lived_s` seconds; the order to stop ends the wait."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), self.after_life_of(lived_s))
