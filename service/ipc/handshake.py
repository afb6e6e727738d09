"""Sends the descriptor of a slot arena from an API process to a worker, as the first bytes of their connection."""

from __future__ import annotations

import os
import socket

import msgspec

from saccade.service.ipc.messages import Hello
from saccade.service.ipc.tensor_slots import SlotArena

_TIMEOUT_S = 5.0
_MAX_HELLO_BYTES = 256


def send_arena(connection: socket.socket, arena: SlotArena) -> None:
    """Sends the arena; this blocks for a few microseconds on a fresh Unix socket."""
    hello = msgspec.msgpack.encode(Hello(arena.slot_count, arena.slot_bytes))
    socket.send_fds(connection, [hello], [arena.descriptor])


def receive_arena(connection: socket.socket) -> SlotArena:
    """Receives the arena; this blocks for up to 5 s, so call it in a thread.

    Raises OSError, or ValueError when the first message is not a matching hello.
    """
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
