"""An API process's connection to its worker: every submitted request ends, slots come back with the reply."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.slots import Slots
from saccade.service.api.worker_client import WorkerClient
from saccade.service.errors import NotReady, WorkerLost
from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.handshake import receive_arena
from saccade.service.ipc.messages import DONE_OK, Alive, AnyMessage, Cancel, Done, Hello, Submit

TIMEOUT_S = 20.0  # only a broken test waits so long


class FakeWorker:
    """Listens as a worker does, takes one connection, and does what the test says."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._received: asyncio.Queue[AnyMessage] = asyncio.Queue()
        self._protocol = FrameProtocol(self._received.put_nowait, lambda: None)

    async def accept(self, *, answers: bool = True) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT_S):
            with self._listener:
                connection, _ = await loop.sock_accept(self._listener)
            arena = await asyncio.to_thread(receive_arena, connection)
            arena.close()
            await loop.connect_accepted_socket(lambda: self._protocol, connection)
            if answers:
                self.send(Hello(2, 4096))

    async def next_message(self) -> AnyMessage:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._received.get()

    def send(self, message: AnyMessage) -> None:
        self._protocol.send(message)

    def die(self) -> None:
        self._protocol.close()


class Connection:
    """A client with two slots, and a worker at the other end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.slots = Slots()
        self.estimates = InstanceEstimates()
        self.client = WorkerClient(self.slots, self.estimates, 2, 4096)
        self._workers: list[FakeWorker] = []

    async def connect(self) -> FakeWorker:
        """A new worker, once the client is connected to it."""
        path = self._directory / f"{len(self._workers)}.sock"
        worker = FakeWorker(path)
        self._workers.append(worker)
        self.client.follow(str(path))
        await worker.accept()
        await self.until(lambda: self.client.is_connected)
        return worker

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Lets the loop turn until `is_so()`."""
        async with asyncio.timeout(TIMEOUT_S):
            while not is_so():  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Ends every worker; the client's sockets end with them."""
        for worker in self._workers:
            worker.die()
        await self.until(lambda: not self.client.is_connected)
        await asyncio.sleep(0)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    made = Connection(tmp_path)
    running = asyncio.create_task(made.client.run())
    with structlog.testing.capture_logs():
        yield made
        await made.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_socket_that_nobody_serves_any_more_is_no_worker(connection: Connection, tmp_path: Path) -> None:
    ended = FakeWorker(tmp_path / "ended.sock")
    connection.client.follow(str(tmp_path / "ended.sock"))
    await ended.accept(answers=False)
    assert not connection.client.is_connected
    ended.die()

    await connection.connect()
    assert connection.client.is_connected


async def test_reply_resolves_the_request_and_frees_its_slot(connection: Connection) -> None:
    worker = await connection.connect()
    (permit,) = connection.slots.take(1, 7)
    request_id, answer = connection.client.submit(permit, 7, deadline_s=99.0)

    sent = await worker.next_message()
    assert isinstance(sent, Submit)
    assert (sent.request_id, sent.slot, sent.instance_id, sent.deadline_s) == (request_id, permit.slot, 7, 99.0)

    permit.release()  # the request itself no longer needs it, the worker still does
    assert connection.slots.in_use == 1
    done = Done(request_id, DONE_OK, 0.1, 0.2, 1)
    worker.send(done)

    assert await answer == done
    assert connection.slots.in_use == 0


async def test_jpegs_at_the_worker_are_counted_until_they_are_answered(connection: Connection) -> None:
    worker = await connection.connect()
    jpeg, pixels = connection.slots.take(2, 7)
    waiting = []
    request_id, answer = connection.client.submit(jpeg, 7, 99.0, encoded_bytes=100)
    waiting.append(connection.estimates.decoding.load.waiting)
    connection.client.submit(pixels, 7, 99.0)
    waiting.append(connection.estimates.decoding.load.waiting)

    worker.send(Done(request_id, DONE_OK, 0.0, 0.002, 1, 0.004))
    await answer

    load = connection.estimates.decoding.load
    assert (*waiting, load.waiting) == (1, 1, 0)
    assert (load.image_s, load.run_s) == (0.004, 0.002)


async def test_slot_of_a_cancelled_request_comes_back_only_with_the_reply(connection: Connection) -> None:
    worker = await connection.connect()
    (permit,) = connection.slots.take(1, 7)
    request_id, answer = connection.client.submit(permit, 7, 99.0)
    answer.cancel()
    connection.client.cancel(request_id)
    permit.release()

    assert isinstance(await worker.next_message(), Submit)
    assert await worker.next_message() == Cancel(request_id)
    assert connection.slots.in_use == 1

    worker.send(Done(request_id, DONE_OK, 0.0, 0.0, 1))
    await connection.until(lambda: connection.slots.in_use == 0)


async def test_lost_worker_ends_its_requests_and_nobody_elses(connection: Connection) -> None:
    worker = await connection.connect()
    permits = connection.slots.take(2, 7)
    answers = [connection.client.submit(permit, 7, 99.0)[1] for permit in permits]

    worker.die()

    for answer in answers:
        with pytest.raises(WorkerLost, match="retry"):
            await answer
    assert not connection.client.is_connected


async def test_next_worker_gets_fresh_slots_while_old_permits_expire(connection: Connection) -> None:
    first = await connection.connect()
    (old,) = connection.slots.take(1, 7)
    first.die()
    await connection.until(lambda: not connection.client.is_connected)

    await connection.connect()

    assert len(connection.slots.take(2, 7)) == 2
    with pytest.raises(NotReady, match="restarting"):
        connection.client.submit(old, 7, 99.0)
    old.release()
    assert connection.slots.in_use == 2


async def test_submit_without_a_connection_answers_not_ready(connection: Connection) -> None:
    worker = await connection.connect()
    (permit,) = connection.slots.take(1, 7)
    worker.die()
    await connection.until(lambda: not connection.client.is_connected)

    with pytest.raises(NotReady):
        connection.client.submit(permit, 7, 99.0)


async def test_unknown_or_repeated_reply_does_no_harm(connection: Connection) -> None:
    worker = await connection.connect()
    permits = connection.slots.take(2, 7)
    (request_id, answer), (other_id, other) = [connection.client.submit(permit, 7, 99.0) for permit in permits]

    for message in (Done(999, DONE_OK, 0.0, 0.0, 1), *[Done(request_id, DONE_OK, 0.0, 0.0, 1)] * 2, Alive(1)):
        worker.send(message)
    worker.send(Done(other_id, DONE_OK, 0.0, 0.0, 1))

    await answer
    await other
    for permit in permits:
        permit.release()
    assert connection.slots.in_use == 0


async def test_estimates_follow_the_replies_and_end_with_the_worker(connection: Connection) -> None:
    worker = await connection.connect()
    (permit,) = connection.slots.take(1, 7)
    request_id, answer = connection.client.submit(permit, 7, 99.0)

    worker.send(Done(request_id, DONE_OK, 0.1, 0.25, 2, decode_s=0.75, wait_s=50.0))
    await answer
    assert connection.estimates.image_s(7) == 0.5
    assert connection.estimates.wait(7, 0, time.monotonic()).wait_s == pytest.approx(50.0, abs=1.0)

    worker.die()
    await connection.until(lambda: not connection.client.is_connected)
    await connection.connect()
    assert connection.estimates.image_s(7) is None
    permit.release()
