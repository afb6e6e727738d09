"""Two servers behind a proxy beside one: `python -m tests.load.replicas`. Exit code 1: they carry less than 1.9 times.

The device is simulated (the fake backend takes 40 ms a picture), so that the servers share nothing but the machine's
cores, of which they need little. The proxy hands whole connections on by turns, as a balancer of layer 4 does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.load.arguments import seconds_above_0
from tests.load.ledger import Plan, asking, counts, known_answers, p99_ms
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import publish_fake

LEAST = 1.9
_MODEL = "classifier"
_CONTENT = b"an image takes 40 ms"
_CONNECTIONS = 16
_BEGIN_S = 3.0  # not measured


@contextmanager
def proxy(ports: Sequence[int]) -> Iterator[int]:
    """Yields the port of a proxy, which runs in a thread."""
    turn, loop, port = itertools.cycle(ports), asyncio.new_event_loop(), list[int]()
    is_there = threading.Event()

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", next(turn))
        await asyncio.gather(copied(reader, back), copied(there, writer))

    async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(hand_on, "127.0.0.1", 0)
        port.append(server.sockets[0].getsockname()[1])
        is_there.set()
        with suppress(asyncio.CancelledError):
            await server.serve_forever()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    is_there.wait()
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join()


def carried(servers: Sequence[Server], seconds: float, work: Path) -> float:
    """Right answers a second through the proxy."""
    known = {_MODEL: known_answers(servers[0].client, _MODEL, [red_png(10 * number) for number in range(20)])}
    with (
        proxy([server.port for server in servers]) as port,
        asking(Plan(f"http://127.0.0.1:{port}", known, _CONNECTIONS), work) as ended,
    ):
        time.sleep(_BEGIN_S)
        start_s = time.monotonic()
        time.sleep(seconds)
        end_s = time.monotonic()
        entries = [each for each in ended() if each.sent_s >= start_s and each.end_s < end_s]
    found = counts(entries)
    print(f"{len(servers)} servers: {found}, p99 {p99_ms(entries):.0f} ms", flush=True)
    return found.get("right", 0) / (end_s - start_s)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.replicas", description=__doc__)
    parser.add_argument("--seconds", type=seconds_above_0, default=15.0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work = Path(folder)
        publish_fake(work / "repository", _MODEL, 1, content=_CONTENT)
        servers = []
        for number in range(2):
            (work / str(number)).mkdir()
            servers.append(
                stack.enter_context(running_server(work / "repository", work / str(number), max_batch_size=1))
            )
        one, two = (carried(servers[:count], given.seconds, work) for count in (1, 2))
    print(f"one carries {one:.1f} a second, two {two:.1f}: {two / one:.2f} times, asked {LEAST}")
    return int(two < LEAST * one)


if __name__ == "__main__":
    sys.exit(main())
