"""An API process's connection to a device worker; every submitted request ends, even when the worker dies.

A permit is released when the reply arrives. When the connection ends, all open requests end with WorkerLost and the
arena is retired with them; the next connection starts with a fresh one.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import time

import msgspec
import structlog

from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.slots import Permit, Slots
from saccade.service.errors import ClientLeft, DeadlineExceeded, InferenceFailed, NotReady, SaccadeError, WorkerLost
from saccade.service.ipc import messages
from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.handshake import send_arena
from saccade.service.ipc.tensor_slots import SlotArena

log = structlog.get_logger()

_RETRY_S = 0.05  # time between attempts to connect; a worker opens its socket within a second of its start
_COLLECT_AFTER_S = 1.0  # when the answers to lost requests are written
_ERRORS: dict[int, tuple[type[SaccadeError], str]] = {
    messages.DONE_EXPIRED: (
        DeadlineExceeded,
        "the deadline cannot be met with the requests ahead; ask for a longer deadline_ms or send less",
    ),
    messages.DONE_CANCELLED: (ClientLeft, "the request was cancelled"),
    messages.DONE_UNKNOWN_INSTANCE: (NotReady, "the version was unloaded while the request waited; retry"),
    messages.DONE_FAILED: (InferenceFailed, "the model failed on this image"),
    messages.DONE_DEVICE_LOST: (
        WorkerLost,
        "the device failed with this image; another worker takes over, retry shortly",
    ),
}


class _Open(msgspec.Struct, frozen=True):
    answer: asyncio.Future[messages.Done]
    permit: Permit
    is_jpeg: bool  # the worker was to decode it


class WorkerClient:
    """Keeps one connection at a time, to the socket that the catalog names."""

    def __init__(self, slots: Slots, estimates: InstanceEstimates, slot_count: int, slot_bytes: int) -> None:
        self._slots = slots
        self._estimates = estimates
        self._slot_count = slot_count
        self._slot_bytes = slot_bytes
        self._protocol: FrameProtocol | None = None
        self._open: dict[int, _Open] = {}
        self._ids = itertools.count(1)
        self._socket_path = ""
        self._path_changed = asyncio.Event()
        self._lost = asyncio.Event()
        self._is_answered = asyncio.Event()  # the worker has sent its hello, or the connection was lost before
        self.connected = asyncio.Event()  # set by the first connection, and never cleared

    @property
    def is_connected(self) -> bool:
        return self._protocol is not None

    def follow(self, socket_path: str) -> None:
        """Sets the socket on which the worker listens now; the previous connection ends by itself."""
        if socket_path != self._socket_path:
            self._socket_path = socket_path
            self._path_changed.set()

    async def run(self) -> None:
        """Keeps a connection open until it is cancelled."""
        while True:
            await self._path_changed.wait()
            self._path_changed.clear()
            while self._socket_path and not self._path_changed.is_set():
                if await self._connect():
                    await self._lost.wait()
                else:
                    await asyncio.sleep(_RETRY_S)

    async def _connect(self) -> bool:
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, self._socket_path)
        except OSError:
            connection.close()
            return False
        arena = SlotArena.create(self._slot_count, self._slot_bytes)
        try:
            send_arena(connection, arena)
        except OSError:
            connection.close()
            return False
        finally:
            arena.close()  # closes the descriptor only: the mapping and the worker's copy stay valid
        self._lost.clear()
        self._is_answered.clear()
        protocol = FrameProtocol(self._receive, self._connection_lost)
        await loop.create_unix_connection(lambda: protocol, sock=connection)
        # The socket of a worker that ended takes connections until the kernel has closed it, and answers none.
        await self._is_answered.wait()
        if self._lost.is_set():
            return False
        self._protocol = protocol
        self._slots.adopt(arena)
        self._estimates.clear()
        self.connected.set()
        log.info("worker_connected", socket=self._socket_path)
        return True

    def submit(
        self,
        permit: Permit,
        instance_id: int,
        deadline_s: float,
        encoded_bytes: int = 0,
        rank_offset_s: float = 0.0,
        asked: int = 0,
    ) -> tuple[int, asyncio.Future[messages.Done]]:
        """Sends a filled slot to the worker; the slot holds pixels, or `encoded_bytes` bytes of a JPEG.

        Raises NotReady when there is no connection to the worker that has the permit's arena.
        """
        if self._protocol is None or not self._slots.is_current(permit):
            raise NotReady("the device worker is restarting; retry shortly")
        request_id = next(self._ids)
        answer: asyncio.Future[messages.Done] = asyncio.get_running_loop().create_future()
        permit.hold()
        self._open[request_id] = _Open(answer, permit, encoded_bytes > 0)
        now_s = time.monotonic()
        place = (permit.slot, instance_id, deadline_s, now_s)
        self._protocol.send(messages.Submit(request_id, *place, encoded_bytes, rank_offset_s, asked))
        self._estimates.sent(instance_id, is_jpeg=encoded_bytes > 0)
        return request_id, answer

    def cancel(self, request_id: int) -> None:
        """Tells the worker that nobody waits for the answer; the slot stays taken until the worker replies."""
        if self._protocol is not None and request_id in self._open:
            self._protocol.send(messages.Cancel(request_id))

    def _receive(self, message: messages.AnyMessage) -> None:
        if isinstance(message, messages.Hello):
            self._is_answered.set()
        if not isinstance(message, messages.Done):
            return
        opened = self._open.pop(message.request_id, None)
        if opened is None:
            log.warning("unknown_reply", request_id=message.request_id)
            return
        now_s = time.monotonic()
        self._estimates.answered(opened.permit.instance_id, message, now_s, was_jpeg=opened.is_jpeg)
        # The answer is set before the permit is released; its reader holds the permit too, so the slot stays valid.
        if not opened.answer.done():
            opened.answer.set_result(message)
        opened.permit.release()

    def _connection_lost(self) -> None:
        was_connected = self._protocol is not None
        self._protocol = None
        opened, self._open = self._open, {}
        for request in opened.values():
            if not request.answer.done():
                request.answer.set_exception(WorkerLost("the device worker stopped with this request; retry shortly"))
            request.permit.release()
        self._lost.set()
        self._is_answered.set()
        if was_connected:
            log.warning("worker_connection_lost", open_requests=len(opened))
        # The errors of these requests hold the arena in cycles of frames, and a full collection is rare.
        asyncio.get_running_loop().call_later(_COLLECT_AFTER_S, gc.collect)


def ensure_ok(status: int) -> None:
    """Raises the error that the client gets for a reply other than DONE_OK."""
    if status == messages.DONE_OK:
        return
    kind, text = _ERRORS.get(status, (WorkerLost, f"the worker answered with an unknown status {status}"))
    raise kind(text)
