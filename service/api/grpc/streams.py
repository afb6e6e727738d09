"""ModelStreamInfer: many requests over one call. Promises: answers in the order of requests, errors as messages in it.

Requests of a stream run side by side, so that they share batches. A bounded number is in flight: the next one is not
read before the oldest is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Never

import grpc
from google.protobuf.message import DecodeError

from saccade.service.api.grpc.messages import message_class

_MOST_IN_FLIGHT = 16


class _Refused(Exception):
    """With the words of the protocol."""


class _OneOfMany:
    """A request's part of the stream's context: its refusal does not end the stream."""

    def __init__(self, context: Any) -> None:
        self.invocation_metadata = context.invocation_metadata
        self.time_remaining = context.time_remaining

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Belongs to the stream."""

    async def abort(self, code: grpc.StatusCode, details: str) -> Never:
        raise _Refused(details)


async def stream_of_answers(
    infer: Callable[[bytes, Any], Awaitable[Any]], stopping: asyncio.Event, requests: AsyncIterator[bytes], context: Any
) -> None:
    """Answers all requests of a call that come before `stopping`; `infer` takes one of them and its context.

    A client that would go on sending is told UNAVAILABLE then, behind the answers to all that was read.
    """
    in_flight = asyncio.Semaphore(_MOST_IN_FLIGHT)

    async def answer(request: bytes, before: asyncio.Task[None] | None) -> None:
        try:
            response = await _answer(infer, request, context)
            if before is not None:
                await before
            await context.write(response)
        finally:
            in_flight.release()

    latest: asyncio.Task[None] | None = None
    is_cut = False
    async with asyncio.TaskGroup() as tasks:
        async for request in _until(stopping, requests):
            if request is None:
                is_cut = True
                break
            await in_flight.acquire()
            latest = tasks.create_task(answer(request, latest))
    if is_cut:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down; ask again elsewhere")


async def _until(stopping: asyncio.Event, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """The requests; None behind the last one where the client had not ended them."""
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while not stopping.is_set():
            reading = asyncio.ensure_future(anext(requests))
            await asyncio.wait((stop, reading), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                break
            yield reading.result()
        yield None
    except StopAsyncIteration:
        return
    finally:
        stop.cancel()


async def _answer(infer: Callable[[bytes, Any], Awaitable[Any]], request: bytes, context: Any) -> Any:
    stream_response = message_class("ModelStreamInferResponse")
    try:
        return stream_response(infer_response=await infer(request, _OneOfMany(context)))
    except _Refused as refused:
        return stream_response(error_message=str(refused), infer_response={"id": _id_of(request)})


def _id_of(request: bytes) -> str:
    """Says whose error it is, as Triton's server does it; empty where the request cannot be read."""
    try:
        found: str = message_class("ModelInferRequest").FromString(request).id
    except DecodeError:
        found = ""
    return found
