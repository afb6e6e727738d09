"""A child process's side of its connection to the supervisor: settings arrive first, and the child ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.messages import AnyMessage, Configure
from saccade.service.settings import Settings


@dataclass(frozen=True, slots=True)
class ChildIdentity:
    settings: Settings
    name: str
    socket_path: str


class ControlConnection:
    """Receives messages from the supervisor and sends messages to it."""

    def __init__(self) -> None:
        self._configured: asyncio.Future[Configure] = asyncio.get_running_loop().create_future()
        self._early: list[AnyMessage] = []
        self._on_message: Callable[[AnyMessage], None] | None = None
        self._on_lost: Callable[[], None] | None = None
        self._protocol = FrameProtocol(self._receive, self._lost)

    @classmethod
    async def open(cls, descriptor: int) -> ControlConnection:
        connection = cls()
        await asyncio.get_running_loop().create_unix_connection(
            lambda: connection._protocol, sock=socket.socket(fileno=descriptor)
        )
        return connection

    async def identity(self) -> ChildIdentity:
        """Waits for the settings and the name, which the supervisor sends before anything else."""
        configure = await self._configured
        return ChildIdentity(
            Settings.model_validate_json(configure.settings_json), configure.name, configure.socket_path
        )

    def start(self, on_message: Callable[[AnyMessage], None], on_lost: Callable[[], None]) -> None:
        """Begins to deliver messages; those that came early are delivered first, in order."""
        self._on_message = on_message
        self._on_lost = on_lost
        early, self._early = self._early, []
        for message in early:
            on_message(message)

    def send(self, message: AnyMessage) -> None:
        self._protocol.send(message)

    def _receive(self, message: AnyMessage) -> None:
        if isinstance(message, Configure):
            self._configured.set_result(message)
        elif self._on_message is None:
            self._early.append(message)
        else:
            self._on_message(message)

    def _lost(self) -> None:
        if self._on_lost is not None:
            self._on_lost()
        elif not self._configured.done():
            self._configured.set_exception(ConnectionError("the supervisor went away before it sent settings"))


def begun(parser: ArgumentParser) -> Namespace:
    """Parses a child's arguments, has its events go where they say, and ignores what only the supervisor acts on.

    Ignored is what may reach the whole group: Ctrl-C, and the signals about the log level.
    """
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--log-fd", type=int, help="where events go; standard error is native code's alone then")
    arguments = parser.parse_args()
    if arguments.log_fd is not None:
        sys.stderr = os.fdopen(arguments.log_fd, "w", buffering=1, errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return arguments
