"""Reading bodies: limits before work, every end gives the budget back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from saccade.service.api.http.limits import Body, BodyLimits, Receive, UploadBudget
from saccade.service.errors import BadRequest, ClientLeft, Overloaded, PayloadTooLarge

LIMITS = BodyLimits(max_body_bytes=10, max_buffered_bytes=25, timeout_s=60.0)
Message = dict[str, Any]


def chunk(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


LEAVES = {"type": "http.disconnect"}


class Upload:
    """An ASGI receive that plays messages and counts how many were asked for."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        return self._messages.pop(0)


@pytest.fixture
def budget() -> UploadBudget:
    return UploadBudget(LIMITS)


@pytest.fixture
def read(budget: UploadBudget) -> Callable[..., Any]:
    async def from_(receive: Receive, content_length: bytes | None = None) -> bytes:
        body = Body(budget, LIMITS)
        try:
            return await body.read(receive, content_length)
        finally:
            body.release()

    return from_


@pytest.mark.parametrize(
    "messages",
    [
        (chunk(b"0123456789", more=False),),
        (chunk(b"01234"), chunk(b"56789", more=False)),
        (chunk(b"0123456789"), chunk(b"", more=False)),
        (chunk(b""), chunk(b"0123456789"), {"type": "http.request"}),
    ],
)
async def test_body_is_put_together_from_its_chunks(read: Callable[..., Any], messages: tuple[Message, ...]) -> None:
    assert await read(Upload(*messages)) == b"0123456789"


async def test_declared_size_over_the_limit_is_refused_before_reading(read: Callable[..., Any]) -> None:
    upload = Upload(chunk(b"x" * 11, more=False))

    with pytest.raises(PayloadTooLarge, match=r"11 bytes or more, at most 10 .*SACCADE_MAX_BODY_BYTES"):
        await read(upload, b"11")
    assert upload.asked == 0


@pytest.mark.parametrize(
    "messages",
    [
        (chunk(b"x" * 11, more=False),),
        (chunk(b"x" * 6), chunk(b"x" * 6), chunk(b"never asked for", more=False)),
    ],
    ids=["at once", "in chunks"],
)
async def test_undeclared_size_over_the_limit_is_refused_when_it_is_reached(
    read: Callable[..., Any], messages: tuple[Message, ...]
) -> None:
    upload = Upload(*messages)

    with pytest.raises(PayloadTooLarge):
        await read(upload)
    assert upload.asked <= 2


@pytest.mark.parametrize("length", [b"ten", b"-1", b"1.5", b"", b"0x10"])
async def test_length_that_is_no_number_is_refused(read: Callable[..., Any], length: bytes) -> None:
    with pytest.raises(BadRequest, match="Content-Length is not a number"):
        await read(Upload(), length)


@pytest.mark.parametrize("messages", [(LEAVES,), (chunk(b"012"), LEAVES)], ids=["before", "midway"])
async def test_client_that_leaves_during_the_upload_is_noticed(
    read: Callable[..., Any], messages: tuple[Message, ...]
) -> None:
    with pytest.raises(ClientLeft):
        await read(Upload(*messages), b"10")


@pytest.mark.parametrize("first", [(), (chunk(b"012"),)], ids=["nothing came", "stopped midway"])
async def test_upload_that_stalls_is_ended(budget: UploadBudget, first: tuple[Message, ...]) -> None:
    # given a limit that has already passed when the client falls silent
    messages = list(first)

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    body = Body(budget, BodyLimits(10, 25, timeout_s=0.0))
    with pytest.raises(BadRequest, match="did not arrive within 0 s"):
        await body.read(receive, b"10")


async def test_budget_is_held_until_release_and_given_back_once(budget: UploadBudget) -> None:
    body = Body(budget, LIMITS)
    await body.read(Upload(chunk(b"0123456", more=False)), b"7")
    assert budget.buffered_bytes == 7

    body.release()
    body.release()

    assert budget.buffered_bytes == 0


@pytest.mark.parametrize(
    "messages", [(chunk(b"x" * 11, more=False),), (chunk(b"x" * 6), chunk(b"x" * 6)), (chunk(b"x" * 6), LEAVES)]
)
async def test_budget_is_given_back_when_reading_fails(
    budget: UploadBudget, read: Callable[..., Any], messages: tuple[Message, ...]
) -> None:
    with pytest.raises((PayloadTooLarge, ClientLeft)):
        await read(Upload(*messages))

    assert budget.buffered_bytes == 0


async def test_full_budget_answers_overloaded_and_takes_nothing(budget: UploadBudget, read: Callable[..., Any]) -> None:
    budget.take(20)

    with pytest.raises(Overloaded, match=r"20 bytes of uploads .*SACCADE_MAX_BUFFERED_BYTES") as caught:
        await read(Upload(chunk(b"0123456789", more=False)))

    assert caught.value.what == "uploads"
    assert budget.buffered_bytes == 20


async def test_only_a_body_that_is_still_to_come_is_asked_about(budget: UploadBudget) -> None:
    def refuse() -> None:
        raise Overloaded("no room", 1.0, "slots")

    assert await Body(budget, LIMITS).read(Upload(chunk(b"012", more=False)), b"3", refuse) == b"012"
    for messages in ((chunk(b"012"), chunk(b"345", more=False)), (LEAVES,)):
        with pytest.raises(Overloaded):
            await Body(budget, LIMITS).read(Upload(*messages), b"6", refuse)


async def test_a_body_that_is_refused_is_waited_for_no_longer(budget: UploadBudget) -> None:
    ended: list[str] = []

    async def receive() -> Message:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("no longer")
        raise AssertionError("unreachable")

    def refuse() -> None:
        raise Overloaded("no room", 1.0, "slots")

    with pytest.raises(Overloaded):
        await Body(budget, LIMITS).read(receive, b"6", refuse)
    assert ended == ["no longer"]


@pytest.mark.parametrize(
    ("headers", "is_free"),
    [
        ({}, True),
        ({b"content-length": b"10"}, True),
        ({b"content-length": b"11"}, False),
        ({b"content-length": b"ten"}, False),
        ({b"expect": b"100-continue"}, False),
        ({b"content-encoding": b"gzip"}, False),
    ],
)
def test_what_costs_something_to_read_is_known_by_its_head(
    budget: UploadBudget, headers: dict[bytes, bytes], is_free: bool
) -> None:
    assert Body(budget, LIMITS).is_free_to_read(headers) is is_free
