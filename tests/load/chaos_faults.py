"""What `tests.load.chaos` does to a running server, and what each of it may cost."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.images import CRASH_PNG, HANG_PNG, HUGE_PNG, LOST_PNG, NOT_FINITE_PNG, POISON_PNG
from tests.support.server import Server, wait_until
from tests.support.versions import publish_fake

TARGET, OTHER = "classifier", "segmenter"
HANG_TIMEOUT_MS = 1500
AFTER_KILL_S = 3.0
AFTER_STOP_S = HANG_TIMEOUT_MS / 1000 + 3.0
_IDLE_CONNECTIONS = 300
_VERSIONS = 20
_AWAY_S = 2.0
_DISK_BYTES = 4 * 2**20
_FILLED_S = 1.5  # until memory is full and the kernel ends the worker
_MEMORY_BYTES = 512 * 2**20  # twice what the server takes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs: the folder of its log and cache, and what stands in front of its command."""

    folder: Path
    program: Sequence[str] = ()


@contextmanager
def _anywhere(work: Path) -> Iterator[Place]:
    yield Place(work)


@contextmanager
def _with_few_files(work: Path) -> Iterator[Place]:
    yield Place(work, ("prlimit", "--nofile=128:128"))


class NotAllowedHere(Exception):
    """The fault needs a right that this account or container does not have."""


@contextmanager
def _on_a_small_disk(work: Path) -> Iterator[Place]:
    """Raises NotAllowedHere."""
    disk = work / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", disk], check=False).returncode:
        raise NotAllowedHere("it needs to mount a small disk")
    try:
        yield Place(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


@contextmanager
def _in_little_memory(work: Path) -> Iterator[Place]:
    """In a control group of its own, so that the kernel ends a process of it. Raises NotAllowedHere."""
    first = Path("/sys/fs/cgroup/memory")  # of the first version of control groups
    limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
    group = (first if first.is_dir() else first.parent) / f"saccade-{work.name}"
    try:
        group.mkdir()
    except OSError as error:
        raise NotAllowedHere("it needs a control group of its own") from error
    try:
        (group / limit).write_text(str(_MEMORY_BYTES))
        yield Place(work, ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"))
    finally:
        group.rmdir()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and its bounds. `inject` gets the server and its repository, and returns when it is done."""

    name: str
    inject: Callable[[Server, Path], None]
    right_again_s: float = 0.0  # from the fault on, until every request is answered rightly; 0: none may miss it
    breaks: bool = False  # connections of the process that is lost end without an answer
    place: Callable[[Path], AbstractContextManager[Place]] = _anywhere

    @property
    def is_felt(self) -> bool:
        return self.right_again_s > 0


def _signal_worker(number: signal.Signals, server: Server, repository: Path) -> None:
    server.worker().send_signal(number)


def _signal_api(number: signal.Signals, server: Server, repository: Path) -> None:
    server.api_processes()[0].send_signal(number)


def _send(picture: bytes, times: int, server: Server, repository: Path) -> None:
    """Asked with a short deadline, so that a run that never ends does not hold this client."""
    for _ in range(times):
        server.predict(TARGET, picture, params={"deadline_ms": "500"})


def _publish_useless(content: bytes, server: Server, repository: Path) -> None:
    publish_fake(repository, TARGET, 2, content=content)
    _wait_given_up(server)


def _wait_given_up(server: Server, number: int = 2) -> None:
    """This version of the target is told as one that will not serve."""

    def is_given_up() -> bool:
        version = server.version(TARGET, number)
        return version is not None and version["state"] in ("refused", "failed", "quarantined")

    wait_until(is_given_up, 30.0, "the new version is given up")


def _publish_damaged(server: Server, repository: Path, number: int = 2) -> None:
    building = repository.with_name("building")
    version = publish_fake(building, TARGET, number)
    (version / "model.onnx").write_bytes(b"other bytes")
    version.rename(repository / TARGET / str(number))
    _wait_given_up(server, number)


def _fill_disk(server: Server, repository: Path) -> None:
    """What happens meanwhile is told, though no line can be logged; once there is room, the log goes on."""
    filler = server.log_path.with_name("filler")
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    _publish_damaged(server, repository)
    time.sleep(_AWAY_S)
    filler.unlink()
    _publish_damaged(server, repository, 3)
    wait_until(lambda: f"{TARGET}/3" in server.logs() or '"version": 3' in server.logs(), what="the log goes on")


def _republish(server: Server, repository: Path) -> None:
    """The number that is being served, with other bytes in one rename each way."""
    version = repository / TARGET / "1"
    version.rename(version.with_name(".old"))
    publish_fake(repository, TARGET, 1, content=b"other weights")
    wait_until(lambda: server.model(TARGET)["versions"][0].get("notice"), what="the change is told")


def _publish_many(server: Server, repository: Path) -> None:
    for version in range(2, 2 + _VERSIONS):
        publish_fake(repository, TARGET, version)
        server.wait_state(TARGET, version, "ready")


def _empty_repository(server: Server, repository: Path) -> None:
    away = repository.with_name("away")
    repository.rename(away)
    repository.mkdir()
    time.sleep(_AWAY_S)
    repository.rmdir()
    away.rename(repository)


def _hold_idle_connections(server: Server, repository: Path) -> None:
    with ExitStack() as held:
        for _ in range(_IDLE_CONNECTIONS):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        time.sleep(_AWAY_S)


FAULTS = (
    Fault("worker killed", partial(_signal_worker, signal.SIGKILL), AFTER_KILL_S),
    Fault("worker stopped", partial(_signal_worker, signal.SIGSTOP), AFTER_STOP_S),
    Fault("HTTP process killed", partial(_signal_api, signal.SIGKILL), AFTER_KILL_S, breaks=True),
    Fault("HTTP process stopped", partial(_signal_api, signal.SIGSTOP), AFTER_STOP_S, breaks=True),
    Fault("device lost", partial(_send, LOST_PNG, 1), AFTER_KILL_S),
    Fault("run crashes", partial(_send, CRASH_PNG, 1), AFTER_KILL_S),
    Fault("run hangs", partial(_send, HANG_PNG, 1), AFTER_STOP_S),
    Fault(
        "run takes more memory than there is",
        partial(_send, HUGE_PNG, 1),
        AFTER_KILL_S + _FILLED_S,
        place=_in_little_memory,
    ),
    Fault("run fails", partial(_send, POISON_PNG, 20)),
    Fault("answers that are no numbers", partial(_send, NOT_FINITE_PNG, 20)),
    Fault("new version with other bytes than its manifest says", _publish_damaged),
    Fault("new version that kills the process that opens it", partial(_publish_useless, b"crash on load"), 15.0),
    Fault("new version whose first run never ends", partial(_publish_useless, b"hang in warm-up"), 15.0),
    Fault("served version replaced by other bytes", _republish),
    Fault(f"{_VERSIONS} new versions", _publish_many),
    Fault("repository away for two seconds", _empty_repository),
    Fault(
        f"{_IDLE_CONNECTIONS} idle connections where 128 files may be open",
        _hold_idle_connections,
        place=_with_few_files,
    ),
    Fault("disk of log and cache full for two seconds", _fill_disk, place=_on_a_small_disk),
)
