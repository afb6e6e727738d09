"""A server's processes: start, watch, end. Promises: bounded life, everything it started is gone at the end.

Every process of a server carries a mark in its environment, so that those which leave their parent are found too.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.load.peers.wire import Request

MIB = 2**20
_MARK = "PEER_RUN"
_POLL_S = 0.05
_ANSWER_TIMEOUT_S = 10.0
_SAMPLE_EVERY_S = 0.5
_LOOK_EVERY_S = 10.0  # for new processes: going through all of a machine's costs milliseconds
_END_GRACE_S = 15.0
_LOG_TAIL = 6000


class ServerFailed(Exception):
    """It did not start, or ended early; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of all processes of a server over a stretch of time."""

    rss_mib: tuple[float, ...]  # sum of resident sets, twice a second; shared pages count in each process
    cpu_cores: float


@dataclass(slots=True)
class RunningServer:
    """A started server; made by `running`."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str
    started_s: float
    _known: list[psutil.Process] = field(default_factory=list)

    def await_right(self, port: int, request: Request, is_right: Callable[[bytes], bool], timeout_s: float) -> float:
        """Seconds from the start to the first right answer. Raises ServerFailed, and what `is_right` raises."""
        deadline_s = self.started_s + timeout_s
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise ServerFailed(f"it ended with {self.process.returncode}: {self.log_tail()}")
            with suppress(OSError, http.client.HTTPException):
                status, body = post(port, request)
                if status == 200 and is_right(body):
                    return time.monotonic() - self.started_s
            time.sleep(_POLL_S)
        raise ServerFailed(f"no right answer within {timeout_s:g} s: {self.log_tail()}")

    def log_tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-_LOG_TAIL:].strip()

    def look(self) -> None:
        """Finds the processes that carry the mark."""
        self._known = [process for process in psutil.process_iter() if _mark_of(process) == self.mark]

    @contextmanager
    def watched(self) -> Iterator[list[Usage]]:
        """The list has one Usage at the end."""
        self.look()
        ended = threading.Event()
        samples: list[float] = []
        thread = threading.Thread(target=self._sample, args=(ended, samples), daemon=True)
        cpu_s, start_s = self.cpu_s(), time.monotonic()
        thread.start()
        found: list[Usage] = []
        try:
            yield found
        finally:
            ended.set()
            thread.join()
            cores = (self.cpu_s() - cpu_s) / max(time.monotonic() - start_s, 1e-9)
            found.append(Usage(tuple(samples), cores))

    def _sample(self, ended: threading.Event, samples: list[float]) -> None:
        next_look_s = time.monotonic() + _LOOK_EVERY_S
        while True:
            samples.append(self.rss_mib())
            if ended.wait(_SAMPLE_EVERY_S):
                return
            if time.monotonic() > next_look_s:
                self.look()
                next_look_s = time.monotonic() + _LOOK_EVERY_S

    def rss_mib(self) -> float:
        total = 0
        for process in self._known:
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total / MIB

    def cpu_s(self) -> float:
        total = 0.0
        for process in self._known:
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def end(self) -> None:
        """Asks the server to stop, then kills whatever carries the mark."""
        self.look()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_GRACE_S)
        for process in [*self._known, *(each for each in psutil.process_iter() if _mark_of(each) == self.mark)]:
            with suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait()


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(_MARK)
    except (psutil.Error, OSError):
        return None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Short, since sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], scratch: Path, life_s: float
) -> Iterator[RunningServer]:
    """Ends after `life_s` whatever happens, even if this process is gone by then. Raises ServerFailed."""
    mark = uuid.uuid4().hex
    log = scratch / "server.log"
    bounded = ["timeout", "--kill-after=10", f"{life_s:.0f}", *command]
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(
                bounded,
                cwd=scratch,
                env={**environment, _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerFailed(f"cannot start {command[0]}: {error}; run with --setup") from error
    server = RunningServer(process, log, mark, time.monotonic())
    try:
        yield server
    finally:
        server.end()


def post(port: int, request: Request) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    return _exchanged(port, "POST", request)


def get(port: int, path: str) -> tuple[int, bytes]:
    """As `post`, without a body."""
    return _exchanged(port, "GET", Request(path, (), b""))


def _exchanged(port: int, method: str, request: Request) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request(method, request.path, request.content or None, dict(request.headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def cores() -> int:
    return len(os.sched_getaffinity(0))
