"""Reads request bodies. Promises: limits before work; a slow, large or broken-off upload costs only its own bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from saccade.service.api.http.begun import Begun
from saccade.service.errors import BadRequest, ClientLeft, Overloaded, PayloadTooLarge

# The rest of a refused body is read and dropped up to so many times the limit, so that clients which send all before
# they read get the answer, and keep their connection.
_DROPPED_TIMES = 8
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class BodyLimits:
    max_body_bytes: int
    max_buffered_bytes: int
    timeout_s: float


class UploadBudget:
    """Bytes of request bodies that one process holds. Belongs to its event loop."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self.buffered_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raises Overloaded when the process would hold too much."""
        if self.buffered_bytes + size_bytes > self._limits.max_buffered_bytes:
            raise Overloaded(
                f"{self.buffered_bytes:,} bytes of uploads are being held, the limit is "
                f"{self._limits.max_buffered_bytes:,}; retry later, or raise SACCADE_MAX_BUFFERED_BYTES",
                1.0,
                "uploads",
            )
        self.buffered_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        self.buffered_bytes -= size_bytes


class Body:
    """One request's body; give it back with `release`."""

    def __init__(self, budget: UploadBudget, limits: BodyLimits) -> None:
        self._budget = budget
        self._limits = limits
        self._taken_bytes = 0
        self._made_bytes = 0
        self._is_begun = self._is_late = self._is_complete = False

    def can_be_dropped(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the connection may go on after an answer to a body that was not read: it is dropped as it comes."""
        if self._is_complete or self._is_late:
            return self._is_complete
        return can_be_dropped(headers, self._limits, is_begun=self._is_begun)

    def is_free_to_read(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether to begin reading costs nothing, if all has come: nobody is told to send, and nothing decompressed."""
        length = headers.get(b"content-length", b"0")
        is_allowed = length.isdigit() and int(length) <= self._limits.max_body_bytes
        return is_allowed and b"expect" not in headers and b"content-encoding" not in headers

    async def read(
        self, receive: Receive, content_length: bytes | None, before_waiting: Callable[[], None] | None = None
    ) -> bytes:
        """The whole body. Raises PayloadTooLarge before reading when the length is declared, BadRequest, ClientLeft.

        `before_waiting` is called unless all of it has come already, and may raise to refuse it.
        """
        self._ensure_allowed(_declared_bytes(content_length))
        self._is_begun = True
        first = Begun(receive())
        try:
            if first.result is not None and _is_all(first.result):  # the usual case: no timer
                return self._whole(first.result)
            if before_waiting is not None:
                before_waiting()
            async with asyncio.timeout(self._limits.timeout_s):
                message = await first
                return self._whole(message) if _is_all(message) else await self._read_on(message, receive)
        except TimeoutError as error:
            self._is_late = True
            raise BadRequest(f"the body did not arrive within {self._limits.timeout_s:g} s") from error
        finally:
            first.close()

    def _whole(self, message: Message) -> bytes:
        """Of a body in one message; it is not copied."""
        content: bytes = message.get("body", b"")
        self._is_complete = True
        self._take(len(content))
        self._ensure_allowed(len(content))
        return content

    async def _read_on(self, message: Message, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        while True:
            if message["type"] == "http.disconnect":
                raise ClientLeft("the client closed the connection during the upload")
            chunk = message.get("body", b"")
            self._take(len(chunk))
            self._ensure_allowed(self._taken_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                self._is_complete = True
                return b"".join(chunks)
            message = await receive()

    def take(self, size_bytes: int) -> None:
        """Counts bytes that were made of the body. Raises PayloadTooLarge or Overloaded."""
        self._take(size_bytes)
        self._made_bytes += size_bytes
        self._ensure_allowed(self._made_bytes)

    def release(self) -> None:
        self._budget.give_back(self._taken_bytes)
        self._taken_bytes = 0

    def _take(self, size_bytes: int) -> None:
        self._budget.take(size_bytes)
        self._taken_bytes += size_bytes

    def _ensure_allowed(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_body_bytes:
            raise PayloadTooLarge(
                f"the body has {size_bytes:,} bytes or more, at most {self._limits.max_body_bytes:,} are allowed: "
                "send smaller images, or raise SACCADE_MAX_BODY_BYTES"
            )


def _is_all(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


def can_be_dropped(headers: Mapping[bytes, bytes], limits: BodyLimits, *, is_begun: bool = False) -> bool:
    """Whether a body that is not read is short enough to be dropped as it comes; one that may never come is not."""
    length = headers.get(b"content-length", b"")
    may_never_come = b"expect" in headers and not is_begun
    return length.isdigit() and not may_never_come and int(length) <= _DROPPED_TIMES * limits.max_body_bytes


def _declared_bytes(content_length: bytes | None) -> int:
    if content_length is None:
        return 0
    if not content_length.isdigit():
        raise BadRequest("Content-Length is not a number")
    return int(content_length)
