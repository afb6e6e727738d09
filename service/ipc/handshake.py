"""First bytes between an API process and a worker: the arena's descriptor. Promises: bounded in time and size."""

from __future__ import annotations

import os
import socket

import msgspec

from saccade.service.ipc.messages import Hello
from saccade.service.ipc.tensor_slots import SlotArena

_TIMEOUT_S = 5.0
_MAX_HELLO_BYTES = 256


def send_arena(connection: socket.socket, arena: SlotArena) -> None:
    """Blocking; a few microseconds on a fresh Unix socket."""
    hello = msgspec.msgpack.encode(Hello(arena.slot_count, arena.slot_bytes))
    socket.send_fds(connection, [hello], [arena.descriptor])


def receive_arena(connection: socket.socket) -> SlotArena:
    """Blocking; call it off the loop. Raises OSError, or ValueError for anything but a matching hello."""
    connection.settimeout(_TIMEOUT_S)
    raw, descriptors, _, _ = socket.recv_fds(connection, _MAX_HELLO_BYTES, 1)
    connection.setblocking(False)
    if len(descriptors) != 1:
        raise ValueError("no arena came with the hello")
    try:
        hello = msgspec.msgpack.decode(raw, type=Hello)
        if os.fstat(descriptors[0]).st_size != hello.slot_count * hello.slot_bytes:
            raise ValueError("the arena is not of the announced size")
        return SlotArena(descriptors[0], hello.slot_count, hello.slot_bytes)
    except BaseException:
        os.close(descriptors[0])
        raise
