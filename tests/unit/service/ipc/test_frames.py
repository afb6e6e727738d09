"""Messages on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
from unittest.mock import Mock

import pytest

from saccade.service.ipc.frames import FrameProtocol, frame_of
from saccade.service.ipc.messages import AnyMessage, DesireVersion, Probe


async def test_a_message_that_cannot_be_encoded_loses_itself_and_not_its_neighbours() -> None:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    received: list[AnyMessage] = []
    ended = asyncio.Event()
    sender = FrameProtocol(lambda message: None, lambda: None)
    receiver = FrameProtocol(received.append, ended.set)
    await loop.create_unix_connection(lambda: receiver, sock=theirs)
    await loop.create_unix_connection(lambda: sender, sock=ours)

    for message in (Probe(1), DesireVersion("bad\udcff", 1), Probe(2**70), Probe(2)):
        sender.send(message)
    await asyncio.sleep(0)  # the turn in which they leave
    sender.close()
    await ended.wait()

    assert received == [Probe(1), Probe(2)]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91\x91\xa4Stay", b"\x91\x91\xa2\xff\xfe", b"\x91" * 5000], ids=["empty", *"abcd"]
)
def test_a_frame_that_is_no_list_of_messages_ends_the_connection(body: bytes) -> None:
    received: list[AnyMessage] = []
    protocol, transport = FrameProtocol(received.append, lambda: None), Mock()
    protocol.connection_made(transport)

    protocol.data_received(frame_of([Probe(1)]) + struct.pack("<I", len(body)) + body)

    assert received == [Probe(1)]
    transport.close.assert_called_once()
