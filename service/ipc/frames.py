"""Sends messages between processes: on the wire, a frame is a length and a msgpack list of messages."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
import structlog

from saccade.service.ipc.messages import AnyMessage

log = structlog.get_logger()

_LENGTH = struct.Struct("<I")
_MAX_FRAME_BYTES = 16 * 1024 * 1024  # far above a catalog of thousands of versions; a longer frame is an error
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMessage])


def frame_of(messages: Sequence[AnyMessage]) -> bytes:
    """Encodes messages as one frame."""
    body = _encoder.encode(messages)
    return _LENGTH.pack(len(body)) + body


def _can_be_encoded(message: AnyMessage) -> bool:
    """Whether text and numbers of a message fit the wire; one that does not loses itself, and not its neighbours."""
    try:
        frame_of([message])
    except (UnicodeEncodeError, OverflowError) as error:
        log.error("message_lost", kind=type(message).__name__, reason=str(error))
        return False
    return True


class FrameProtocol(asyncio.Protocol):
    """Turns a byte stream into messages, and sends all messages of one event-loop iteration as one frame."""

    def __init__(self, on_message: Callable[[AnyMessage], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._received = bytearray()
        self._outgoing: list[AnyMessage] = []
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # kept, because asking for it is a system call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport does not inherit from it

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received, start)
            if length > _MAX_FRAME_BYTES:
                self.close()
                return
            end = start + _LENGTH.size + length
            if len(received) < end:
                break
            try:
                messages = _decoder.decode(memoryview(received)[start + _LENGTH.size : end])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                log.error("frame_unreadable", reason=str(error))
                self.close()
                return
            start = end
            for message in messages:
                self._on_message(message)
        if start:
            del received[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def send(self, message: AnyMessage) -> None:
        """Queues a message for the next write; without a connection the message is dropped."""
        if self._transport is None:
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)

    def _flush(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if self._transport is None:
            return
        try:
            self._transport.write(frame_of(messages))
        except (UnicodeEncodeError, OverflowError):
            for message in filter(_can_be_encoded, messages):
                self._transport.write(frame_of([message]))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
