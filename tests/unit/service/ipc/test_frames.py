"""Messages on the wire."""

from __future__ import annotations

import asyncio
import socket

from saccade.service.ipc.frames import FrameProtocol
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
