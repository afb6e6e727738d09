"""Every message between processes, and its wire form. Promises: frozen values; a frame is a length and a msgpack list.

Rules
1. Only ids and numbers travel; pixels and answers stay in the slot arena.
2. A `Submit` is answered by exactly one `Done`, unless the connection ends: then every open request is lost.
3. Times are seconds on CLOCK_MONOTONIC, shared by all processes of the machine.
4. An instance is one variant of one version on one worker; the supervisor numbers them, never twice.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import cast

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages; the tag is the class name."""


# API process -> worker


class Hello(Message, frozen=True):
    """First message on a connection; the arena's descriptor travels with it as ancillary data."""

    slot_count: int
    slot_bytes: int


class Submit(Message, frozen=True):
    request_id: int
    slot: int
    instance_id: int
    deadline_s: float
    submitted_s: float
    encoded_bytes: int = 0  # the slot begins with so many bytes of a JPEG, for a worker that decodes; 0: it has pixels
    rank_offset_s: float = 0.0  # its priority: how much later than its deadline its place in line is


class Cancel(Message, frozen=True):
    """Nobody waits for this request any more; it still gets its `Done`, so that the slot comes back."""

    request_id: int


class Probe(Message, frozen=True):
    """Asks for a sign of life that passes through the device loop."""

    sequence: int


# worker -> API process


class Done(Message, frozen=True):
    """`status` is one of DONE_*; the answer is in the slot only for DONE_OK."""

    request_id: int
    status: int
    queue_s: float
    infer_s: float
    batch_size: int
    decode_s: float = 0.0  # of its batch, when the worker decoded it
    wait_s: float = 0.0  # what a request for the same instance that came now would wait before its run
    image_s: float = 0.0  # what each further one adds to that; 0: not known


class Alive(Message, frozen=True):
    sequence: int


DONE_OK = 0
DONE_EXPIRED = 1
DONE_CANCELLED = 2
DONE_FAILED = 3
DONE_UNKNOWN_INSTANCE = 4
DONE_UNDECODED = 5  # the worker cannot decode these bytes; the sender's own decoder has the last word
DONE_DEVICE_LOST = 6  # the device failed with this request on it; the worker ends


# supervisor -> worker


class Load(Message, frozen=True):
    """Load one variant, warm it at every allowed size, then report `ready`."""

    instance_id: int
    model: str
    version: int
    variant: str
    version_dir: str
    manifest_sha256: str
    allowed_batch_sizes: tuple[int, ...]
    backend: str  # as in `backends/registry.py`
    plan_dir: str = ""  # of a TensorRT plan; empty for a backend that opens the variant's own file
    plan_sha256: str = ""  # of the plan that passed its gate: no other is opened


class Unload(Message, frozen=True):
    instance_id: int


class Stop(Message, frozen=True):
    """Finish what is queued, then exit 0."""


# worker -> supervisor


class DeviceFacts(msgspec.Struct, frozen=True, array_like=True):
    """What a worker found on its device. Empty or 0 where the device has no such thing."""

    name: str = ""
    compute_capability: str = ""  # "SM90"
    tensorrt: str = ""  # module name
    tensorrt_version: str = ""
    driver_version: str = ""  # the CUDA version that the driver is for
    memory_total_bytes: int = 0
    memory_free_bytes: int = 0  # before any model was loaded
    problem: str = ""  # why the device cannot be used, in one line


class WorkerReady(Message, frozen=True):
    """The socket for API processes is open."""

    socket_path: str
    pid: int
    facts: DeviceFacts = DeviceFacts()


class InstanceState(Message, frozen=True):
    """`state` is a VersionState; `reason` says why it failed; `seconds` since the load began."""

    instance_id: int
    state: str
    reason: str
    provider: str
    seconds: float
    memory_bytes: int = 0  # that the load took on its device, measured; 0 until it is ready
    decodes_jpegs: bool = False  # its worker does, on the device: it was measured to be faster and faithful


class Unloaded(Message, frozen=True):
    instance_id: int


# supervisor -> API process


class DeviceStatus(Message, frozen=True):
    device: str
    up: bool
    restarts: int
    socket_path: str
    memory_bytes: int = 0  # held by its instances, as far as measured


class InstanceStatus(Message, frozen=True):
    """A version on one device; while one instance replaces another there, a device has two of the same version."""

    device: str
    instance_id: int  # 0: not on the worker
    state: str
    reason: str
    variant: str
    backend: str
    provider: str
    decodes_jpegs: bool = False
    ladder_level: int = 0  # 0 is the version's best variant; the others answer when time is short


class EngineStatus(Message, frozen=True):
    """A TensorRT plan of a version on one device, on its way or there.

    `state`: waiting, building, ready, failed (not built or not opened), missing (none will be; `reason` says why).
    """

    device: str
    variant: str  # empty where the reason concerns all of them
    state: str
    stage: str = ""  # of a build, as in supervisor/engines/build_wire.py
    share: float = 0.0  # of that stage that is done
    plan: str = ""  # the place of its key
    reason: str = ""
    images_per_s: float = 0.0  # of the plan that serves, measured on this kind of device, best batch size


class VersionStatus(Message, frozen=True):
    """`state`, `reason` and `variant` sum up the instances; `ready` means that one of them is."""

    model: str
    version: int
    version_dir: str
    manifest_sha256: str
    state: str
    reason: str
    variant: str
    instances: tuple[InstanceStatus, ...] = ()
    engines: tuple[EngineStatus, ...] = ()
    on_demand: bool = False  # requests load it, and it may be unloaded for others
    load_seconds: float = 0.0  # its last load took, warm-up included; 0 before the first


class Catalog(Message, frozen=True):
    """All that is known of models and devices. Replaces the previous one as a whole."""

    generation: int
    devices: tuple[DeviceStatus, ...]
    versions: tuple[VersionStatus, ...]
    draining: bool


class Listen(Message, frozen=True):
    """Take connections from now on."""


class StopAdmitting(Message, frozen=True):
    """Finish requests in flight, refuse new ones, then exit 0."""


# API process -> supervisor


class ApiReady(Message, frozen=True):
    pid: int


class CatalogApplied(Message, frozen=True):
    """No request of this process can reach an instance that this catalog does not list as ready."""

    generation: int


class Want(Message, frozen=True):
    """Requests wait for a version that is not loaded. Sent again and again; loads once."""

    model: str
    version: int


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """How one API process uses a version."""

    model: str
    version: int
    in_flight: int
    last_used_s: float


class Used(Message, frozen=True):
    """What has changed since the last one; sent only where versions are loaded on demand."""

    usages: tuple[Usage, ...]


class Configure(Message, frozen=True):
    """First message to every child: the resolved settings as JSON."""

    settings_json: bytes
    name: str
    socket_path: str  # worker: where to listen; API process: empty


AnyMessage = (
    Hello
    | Submit
    | Cancel
    | Probe
    | Done
    | Alive
    | Load
    | Unload
    | Stop
    | WorkerReady
    | InstanceState
    | Unloaded
    | Catalog
    | Listen
    | StopAdmitting
    | ApiReady
    | CatalogApplied
    | Want
    | Used
    | Configure
)

_LENGTH = struct.Struct("<I")
_MAX_FRAME_BYTES = 16 * 1024 * 1024  # a catalog of thousands of versions is far below; more is a broken peer
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMessage])


def frame_of(messages: Sequence[AnyMessage]) -> bytes:
    """One wire frame."""
    body = _encoder.encode(messages)
    return _LENGTH.pack(len(body)) + body


class FrameProtocol(asyncio.Protocol):
    """Turns a byte stream into messages and batches what is sent within one turn of the loop into one frame."""

    def __init__(self, on_message: Callable[[AnyMessage], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._received = bytearray()
        self._outgoing: list[AnyMessage] = []
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # kept: asking for it is a system call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received, start)
            if length > _MAX_FRAME_BYTES:
                self.close()
                return
            end = start + _LENGTH.size + length
            if len(received) < end:
                break
            messages = _decoder.decode(memoryview(received)[start + _LENGTH.size : end])
            start = end
            for message in messages:
                self._on_message(message)
        if start:
            del received[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def send(self, message: AnyMessage) -> None:
        """Queues a message; all of one loop turn leave as one write. Dropped when the connection is gone."""
        if self._transport is None:
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)

    def _flush(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if self._transport is not None:
            self._transport.write(frame_of(messages))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
