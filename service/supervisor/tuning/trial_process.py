"""A process of a trial: the server's own program, forked from one that has imported it already.

Importing takes longer than all trials of a form, and a trial needs a dozen processes.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from typing import TypeVar

from saccade.service.errors import BackendError
from saccade.service.ipc.child_process import API_MODULE, WORKER_MODULE
from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.messages import AnyMessage, Configure, Message
from saccade.service.settings import Settings

MessageT = TypeVar("MessageT", bound=Message)

_context = multiprocessing.get_context("forkserver")


def import_once() -> None:
    """Has the process that is forked import both programs; call it before the first one is started.

    Its environment is the one of this moment.
    """
    _context.set_forkserver_preload([API_MODULE, WORKER_MODULE, "onnxruntime"])


class TrialProcess:
    """A process and the messages that came from it; they end with None."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[AnyMessage | None] = asyncio.Queue()
        self._protocol = FrameProtocol(self._received.put_nowait, lambda: self._received.put_nowait(None))
        self._process: ForkServerProcess | None = None
        self._name = ""

    async def start(self, module: str, name: str, arguments: Sequence[str], settings: Settings, place: str) -> None:
        """Starts the program and sends its settings; `place` is where a worker listens."""
        self._name = name
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = _context.Process(target=run_program, args=(module, theirs, arguments), daemon=True)
            await asyncio.to_thread(self._process.start)
        await asyncio.get_running_loop().create_unix_connection(lambda: self._protocol, sock=ours)
        self._protocol.send(Configure(settings.model_dump_json().encode(), name, place))

    def send(self, message: AnyMessage) -> None:
        self._protocol.send(message)

    async def receive(self, kind: type[MessageT], is_it: Callable[[MessageT], bool] = lambda message: True) -> MessageT:
        """Waits for a message and drops all before it. Raises BackendError when the process ends."""
        while (message := await self._received.get()) is not None:
            if isinstance(message, kind) and is_it(message):
                return message
        raise BackendError(f"{self._name} ended while forms were tried")

    def end(self) -> None:
        """Nobody waits for its answers any more, so it is killed."""
        self._protocol.close()
        if self._process is not None and self._process.pid is not None:
            self._process.kill()
            self._process.join()


def run_program(module: str, control: socket.socket, arguments: Sequence[str]) -> None:
    """What the forked process does."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    sys.argv = [module, "--control-fd", str(control.detach()), *arguments]
    importlib.import_module(module).main()


def _end_with_parent() -> None:
    """Ends this process with whoever tries forms, who is not its parent to the kernel: it was forked by another."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
