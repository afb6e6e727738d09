"""Memory for pictures that are decoded at one time. Promises: never more than the room, in order, none lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from saccade.service.api.cancellation import Cancellation
from saccade.service.api.decode_room import DecodeRoom
from saccade.service.errors import DeadlineExceeded

MB = 2**20


class Nobody:
    has_left = False

    def begin(self, on_leave: object) -> None: ...

    def end(self, on_leave: object) -> None: ...


def cancellation(seconds: float = 60.0) -> Cancellation:
    return Cancellation(time.monotonic() + seconds, Nobody())


def entering(room: DecodeRoom, megabytes: int, seconds: float = 60.0) -> asyncio.Task[int]:
    return asyncio.create_task(room.enter(megabytes * MB, cancellation(seconds)))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_pictures_wait_in_order_until_there_is_room() -> None:
    room = DecodeRoom(100 * MB)
    first, second, third = (entering(room, size) for size in (60, 60, 30))
    await settled()

    assert [task.done() for task in (first, second, third)] == [True, False, False]
    room.leave(first.result())
    await settled()
    assert [task.done() for task in (second, third)] == [True, True]


async def test_a_picture_larger_than_the_room_goes_alone_and_small_ones_never_wait() -> None:
    room = DecodeRoom(100 * MB)
    large, other = entering(room, 900), entering(room, 20)
    await settled()

    assert (large.done(), other.done()) == (True, False)
    assert await room.enter(16 * MB, cancellation()) == 0
    room.leave(large.result())
    assert await other == 20 * MB


async def test_who_gives_up_at_the_head_of_the_line_lets_the_next_one_in() -> None:
    room = DecodeRoom(100 * MB)
    await room.enter(60 * MB, cancellation())
    late, next_one = entering(room, 90, seconds=0.01), entering(room, 30)

    with pytest.raises(DeadlineExceeded):
        await late
    assert await next_one == 30 * MB


async def test_a_task_that_is_ended_just_after_its_turn_gives_its_room_back() -> None:
    room = DecodeRoom(100 * MB)
    held = await room.enter(60 * MB, cancellation())
    ended, next_one = entering(room, 90), entering(room, 90)
    await settled()
    room.leave(held)
    ended.cancel()

    assert await next_one == 90 * MB
    assert ended.cancelled()
