"""An API process's line to its worker: every submitted request ends, slots come back with the reply."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from saccade.service.api.admission import Admission
from saccade.service.api.worker_client import WorkerClient
from saccade.service.errors import NotReady, WorkerLost
from saccade.service.ipc.handshake import receive_arena
from saccade.service.ipc.messages import DONE_OK, Alive, AnyMessage, Cancel, Done, FrameProtocol, Submit

TIMEOUT_S = 20.0  # only a broken test waits so long


class NoGauge:
    def set(self, value: float) -> None:
        pass


class FakeWorker:
    """Listens as a worker does, takes one connection, and does what the test says."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._received: asyncio.Queue[AnyMessage] = asyncio.Queue()
        self._protocol = FrameProtocol(self._received.put_nowait, lambda: None)

    async def accept(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT_S):
            with self._listener:
                connection, _ = await loop.sock_accept(self._listener)
            arena = await asyncio.to_thread(receive_arena, connection)
            arena.close()
            await loop.connect_accepted_socket(lambda: self._protocol, connection)

    async def next_message(self) -> AnyMessage:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._received.get()

    def send(self, message: AnyMessage) -> None:
        self._protocol.send(message)

    def die(self) -> None:
        self._protocol.close()


class Line:
    """A client, its admission of two slots, and a worker at the other end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.admission = Admission(NoGauge())
        self.client = WorkerClient(self.admission, 2, 4096)
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
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    made = Line(tmp_path)
    running = asyncio.create_task(made.client.run())
    with structlog.testing.capture_logs():
        yield made
        await made.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_reply_resolves_the_request_and_frees_its_slot(line: Line) -> None:
    worker = await line.connect()
    (permit,) = line.admission.admit(1, 1.0)
    request_id, answer = line.client.submit(permit, 7, deadline_s=99.0)

    sent = await worker.next_message()
    assert isinstance(sent, Submit)
    assert (sent.request_id, sent.slot, sent.instance_id, sent.deadline_s) == (request_id, permit.slot, 7, 99.0)

    permit.let_go()  # the request itself no longer needs it, the worker still does
    assert line.admission.in_use == 1
    done = Done(request_id, DONE_OK, 0.1, 0.2, 1)
    worker.send(done)

    assert await answer == done
    assert line.admission.in_use == 0


async def test_slot_of_a_cancelled_request_comes_back_only_with_the_reply(line: Line) -> None:
    worker = await line.connect()
    (permit,) = line.admission.admit(1, 1.0)
    request_id, answer = line.client.submit(permit, 7, 99.0)
    answer.cancel()
    line.client.cancel(request_id)
    permit.let_go()

    assert isinstance(await worker.next_message(), Submit)
    assert await worker.next_message() == Cancel(request_id)
    assert line.admission.in_use == 1

    worker.send(Done(request_id, DONE_OK, 0.0, 0.0, 1))
    await line.until(lambda: line.admission.in_use == 0)


async def test_lost_worker_ends_its_requests_and_nobody_elses(line: Line) -> None:
    worker = await line.connect()
    permits = line.admission.admit(2, 1.0)
    answers = [line.client.submit(permit, 7, 99.0)[1] for permit in permits]

    worker.die()

    for answer in answers:
        with pytest.raises(WorkerLost, match="retry"):
            await answer
    assert not line.client.is_connected


async def test_next_worker_gets_fresh_slots_while_old_permits_expire(line: Line) -> None:
    first = await line.connect()
    (old,) = line.admission.admit(1, 1.0)
    first.die()
    await line.until(lambda: not line.client.is_connected)

    await line.connect()

    assert len(line.admission.admit(2, 1.0)) == 2
    with pytest.raises(NotReady, match="restarting"):
        line.client.submit(old, 7, 99.0)
    old.let_go()
    assert line.admission.in_use == 2


async def test_submit_without_a_connection_answers_not_ready(line: Line) -> None:
    worker = await line.connect()
    (permit,) = line.admission.admit(1, 1.0)
    worker.die()
    await line.until(lambda: not line.client.is_connected)

    with pytest.raises(NotReady):
        line.client.submit(permit, 7, 99.0)


async def test_unknown_or_repeated_reply_does_no_harm(line: Line) -> None:
    worker = await line.connect()
    permits = line.admission.admit(2, 1.0)
    (request_id, answer), (other_id, other) = [line.client.submit(permit, 7, 99.0) for permit in permits]

    for message in (Done(999, DONE_OK, 0.0, 0.0, 1), *[Done(request_id, DONE_OK, 0.0, 0.0, 1)] * 2, Alive(1)):
        worker.send(message)
    worker.send(Done(other_id, DONE_OK, 0.0, 0.0, 1))

    await answer
    await other
    for permit in permits:
        permit.let_go()
    assert line.admission.in_use == 0
