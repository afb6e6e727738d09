"""An HTTP process listens once every worker is connected, for as long as it was told to wait for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from saccade.service.api.app import build_api
from saccade.service.api.process import ApiProcess
from saccade.service.ipc.frames import FrameProtocol
from saccade.service.ipc.handshake import receive_arena
from saccade.service.ipc.messages import AnyMessage, Catalog, DeviceStatus, Hello, Listen
from saccade.service.metrics import MULTIPROCESS_DIR
from saccade.service.settings import Settings, resolved


class Listening(ApiProcess):
    """Says that it listens instead of doing so."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.listens = asyncio.Event()

    async def _serve(self, port: int) -> None:
        self.listens.set()


async def listens_before_and_after(place: Path, worker_within_s: float) -> tuple[bool, bool]:
    """Whether the process listens before its worker answered, and after that."""
    applied: asyncio.Queue[int] = asyncio.Queue()
    api = build_api(resolved(Settings(backend="fake", device="cpu"), cores=2), applied.put_nowait)
    begun: asyncio.Future[Callable[[AnyMessage], None]] = asyncio.get_running_loop().create_future()
    control = SimpleNamespace(start=lambda receive, stop: begun.set_result(receive), send=lambda message: None)
    server = SimpleNamespace(should_exit=False)
    process = Listening(
        api,
        cast(Any, control),
        cast(Any, server),
        "127.0.0.1",
        reports_usage=False,
        worker_within_s=worker_within_s,
    )
    running = asyncio.create_task(process.run(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
        worker.bind(str(place))
        worker.listen()
        worker.setblocking(False)
        receive = await begun
        receive(Catalog(1, (DeviceStatus("cpu", True, 0, str(place)),), (), draining=False))
        receive(Listen())
        await applied.get()
        connection, _ = await asyncio.get_running_loop().sock_accept(worker)
        arena = await asyncio.to_thread(receive_arena, connection)
        before = process.listens.is_set()
        protocol = FrameProtocol(lambda message: None, lambda: None)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
        protocol.send(Hello(arena.slot_count, arena.slot_bytes))
        async with asyncio.timeout(20.0):
            await process.listens.wait()
            await running
    protocol.close()
    await api.devices.by_name["cpu"].client._lost.wait()
    arena.close()
    return before, process.listens.is_set()


@pytest.mark.parametrize(("worker_within_s", "before"), [(0.0, True), (60.0, False)])
def test_process_listens_when_the_worker_has_answered_or_the_wait_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker_within_s: float, *, before: bool
) -> None:
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)

    assert asyncio.run(listens_before_and_after(tmp_path / "worker", worker_within_s)) == (before, True)
