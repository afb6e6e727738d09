"""Framing: whole messages in order, however the bytes arrive; a broken peer is cut off."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.service.ipc.frames import FrameProtocol, frame_of
from saccade.service.ipc.messages import (
    Alive,
    AnyMessage,
    Cancel,
    Done,
    Load,
    Probe,
    Stop,
    Submit,
)

MESSAGES: list[AnyMessage] = [
    Submit(1, 2, 3, 4.5, 6.5),
    Cancel(1),
    Done(1, 0, 0.001, 0.002, 8),
    Load(7, "digits", 3, "int8-cpu", "/models/digits/3", "a" * 64, (1, 2, 4), "onnxruntime"),
    Stop(),
]


class RecordedTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


class Peer:
    """A protocol with a recorded transport."""

    def __init__(self) -> None:
        self.received: list[AnyMessage] = []
        self.times_lost = 0
        self.transport = RecordedTransport()
        self.protocol = FrameProtocol(self.received.append, self._lost)
        self.protocol.connection_made(self.transport)

    def _lost(self) -> None:
        self.times_lost += 1


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_frame_survives_a_split_at_every_byte_boundary() -> None:
    stream = frame_of(MESSAGES)
    for cut in range(len(stream) + 1):
        peer = Peer()
        peer.protocol.data_received(stream[:cut])
        peer.protocol.data_received(stream[cut:])
        assert peer.received == MESSAGES


def test_frame_survives_byte_by_byte_arrival(peer: Peer) -> None:
    for byte in frame_of(MESSAGES):
        peer.protocol.data_received(bytes([byte]))

    assert peer.received == MESSAGES


def test_several_frames_in_one_read_are_all_delivered_in_order(peer: Peer) -> None:
    peer.protocol.data_received(frame_of(MESSAGES[:2]) + frame_of(MESSAGES[2:]) + frame_of([Probe(1)])[:3])

    assert peer.received == MESSAGES


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.lists(st.sampled_from(MESSAGES), max_size=3), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_any_split_of_any_frames_delivers_the_same_messages(frames: list[list[AnyMessage]], cuts: list[int]) -> None:
    stream = b"".join(frame_of(messages) for messages in frames)
    peer = Peer()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    for start, end in pairwise(edges):
        peer.protocol.data_received(stream[start:end])

    assert peer.received == [message for messages in frames for message in messages]


def test_oversize_frame_closes_the_connection(peer: Peer) -> None:
    peer.protocol.data_received(struct.pack("<I", 16 * 1024 * 1024 + 1))

    assert peer.transport.is_closed
    assert peer.received == []


def test_frame_before_an_oversize_one_is_still_delivered(peer: Peer) -> None:
    peer.protocol.data_received(frame_of([Probe(1)]) + b"\xff\xff\xff\xff")

    assert peer.received == [Probe(1)]
    assert peer.transport.is_closed


@pytest.mark.parametrize("body", [b"garbage", msgspec.msgpack.encode([["Unheard", 1]]), msgspec.msgpack.encode({})])
def test_frame_that_is_no_message_ends_the_connection(peer: Peer, body: bytes) -> None:
    peer.protocol.data_received(struct.pack("<I", len(body)) + body)

    assert peer.received == []
    assert peer.transport.is_closed


async def test_messages_of_one_loop_turn_leave_as_one_frame(peer: Peer) -> None:
    peer.protocol.send(Probe(1))
    peer.protocol.send(Alive(2))
    assert peer.transport.written == []

    await asyncio.sleep(0)

    assert peer.transport.written == [frame_of([Probe(1), Alive(2)])]


async def test_message_after_the_connection_ended_is_dropped(peer: Peer) -> None:
    peer.protocol.send(Probe(1))
    peer.protocol.connection_lost(None)
    peer.protocol.send(Probe(2))
    await asyncio.sleep(0)

    assert peer.transport.written == []
    assert peer.times_lost == 1


def test_close_after_the_connection_ended_does_nothing(peer: Peer) -> None:
    peer.protocol.connection_lost(None)
    peer.protocol.close()

    assert not peer.transport.is_closed


def test_messages_are_frozen() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        MESSAGES[1].request_id = 2  # type: ignore[union-attr,misc]  # the point of the test
