"""Defines every message between processes. All are frozen; `frames.py` puts them on the wire.

Rules
1. Only ids and numbers travel; pixels and answers stay in the slot arena.
2. A `Submit` is answered by exactly one `Done`, unless the connection ends: every open request is then lost.
3. Times are seconds on CLOCK_MONOTONIC, which all processes of the machine share.
4. An instance is one variant of one version on one worker; the supervisor gives each a number that is never reused.
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages; the tag is the class name."""


# Messages between the supervisor and every child process


class Configure(Message, frozen=True):
    """The first message to every child process, with the resolved settings as JSON."""

    settings_json: bytes
    name: str
    socket_path: str  # where a worker listens; empty for an API process


class Probe(Message, frozen=True):
    """Asks for an `Alive`, which a worker's device loop or an API process's event loop must answer itself."""

    sequence: int


class Alive(Message, frozen=True):
    sequence: int


# Messages from an API process to a worker


class Hello(Message, frozen=True):
    """The first message on a connection, with the arena's descriptor as ancillary data; the worker sends it back."""

    slot_count: int
    slot_bytes: int


class Submit(Message, frozen=True):
    request_id: int
    slot: int
    instance_id: int
    deadline_s: float
    submitted_s: float
    encoded_bytes: int = 0  # length of the JPEG at the start of the slot; 0 means that the slot holds pixels
    rank_offset_s: float = 0.0  # added to the deadline when requests are ordered: the priority
    asked: int = 0  # mask of the extra outputs that the answer shall have, see `models/contract/extras.py`


class Cancel(Message, frozen=True):
    """Nobody waits for this request any more; it still gets its `Done`, so that its slot becomes free."""

    request_id: int


# Messages from a worker to an API process


class Done(Message, frozen=True):
    """The end of a request. `status` is one of DONE_*; the slot holds the answer only for DONE_OK."""

    request_id: int
    status: int
    queue_s: float
    infer_s: float
    batch_size: int
    decode_s: float = 0.0  # seconds in which the worker decoded the JPEGs of the batch
    wait_s: float = 0.0  # seconds that a new request for this instance would wait before its run
    image_s: float = 0.0  # seconds that each further request adds to that; 0 means not known
    batch: int = 0  # the number of its batch in this worker; 0: it was in none


DONE_OK = 0
DONE_EXPIRED = 1
DONE_CANCELLED = 2
DONE_FAILED = 3
DONE_UNKNOWN_INSTANCE = 4
DONE_UNDECODED = 5  # the worker cannot decode these bytes; the API process tries its own decoder
DONE_DEVICE_LOST = 6  # the device failed while it had this request; the worker ends


# Messages from the supervisor to a worker


class Load(Message, frozen=True):
    """The order to load one variant, warm it at every allowed batch size, and report `ready`."""

    instance_id: int
    model: str
    version: int
    variant: str
    version_dir: str
    manifest_sha256: str
    allowed_batch_sizes: tuple[int, ...]
    backend: str  # a name in `backends/registry.py`
    plan_dir: str = ""  # folder of the plan; empty for a variant that nobody made one of
    plan_sha256: str = ""  # digest of the plan that passed its gate; the worker opens no other


class Unload(Message, frozen=True):
    instance_id: int


class Stop(Message, frozen=True):
    """The order to finish the queued requests and exit with code 0."""


# Messages from a worker to the supervisor


class DeviceFacts(msgspec.Struct, frozen=True, array_like=True):
    """What a worker found on its device; a field is empty or 0 where the device has no such property."""

    name: str = ""
    compute_capability: str = ""  # such as "SM90"
    tensorrt: str = ""  # name of the installed module
    tensorrt_version: str = ""
    driver_version: str = ""  # CUDA version that the driver supports
    memory_total_bytes: int = 0
    memory_free_bytes: int = 0  # free before any model was loaded
    problem: str = ""  # reason why the device cannot be used, in one line
    onnxruntime_version: str = ""  # of one that can use this device
    tensorrt_problem: str = ""  # reason why the installed TensorRT cannot use the device


class WorkerReady(Message, frozen=True):
    """The worker's socket for API processes is open."""

    socket_path: str
    pid: int
    facts: DeviceFacts = DeviceFacts()


class InstanceState(Message, frozen=True):
    """Progress of a load: `state` is a VersionState, `reason` says why it failed, `seconds` count from its start."""

    instance_id: int
    state: str
    reason: str
    provider: str
    seconds: float
    memory_bytes: int = 0  # device memory that the load took, measured; 0 until the instance is ready
    decodes_jpegs: bool = False  # the worker decodes JPEGs on the device, which was measured as faster and faithful
    gives: int = 0  # mask of the extra outputs that it computes when asked


class Unloaded(Message, frozen=True):
    instance_id: int


# Messages from the supervisor to an API process


class DeviceStatus(Message, frozen=True):
    device: str
    up: bool
    restarts: int
    socket_path: str
    memory_bytes: int = 0  # device memory that its instances hold, as far as measured


class InstanceStatus(Message, frozen=True):
    """One instance of a version; a device has two of the same version while one of them replaces the other."""

    device: str
    instance_id: int  # 0 while the instance is not on the worker
    state: str
    reason: str
    variant: str
    backend: str
    provider: str
    decodes_jpegs: bool = False
    ladder_level: int = 0  # 0 is the version's best variant; higher levels are cheaper and answer under load
    gives: int = 0  # mask of the extra outputs that it computes when asked


class EngineStatus(Message, frozen=True):
    """A TensorRT plan of a version on one device: waiting, building, ready, failed (to be built or opened), or missing.

    None will be built for a missing one, for `reason`."""

    device: str
    variant: str  # empty where the reason concerns all variants
    state: str
    stage: str = ""  # stage of a build, as in supervisor/engines/build_wire.py
    share: float = 0.0  # part of that stage that is done, 0 to 1
    plan: str = ""  # folder name of the plan in the store
    reason: str = ""
    images_per_s: float = 0.0  # measured speed of a plan that serves, at its best batch size


class SpeedStatus(Message, frozen=True):
    """How many times as fast a variant is as another, measured in turns, with the interval of that ratio."""

    variant: str
    against: str
    ratio: float
    ci_low: float
    ci_high: float
    confidence: float
    rounds: int
    text: str  # the same in words
    is_from_here: bool  # measured on this machine, not by the exporter


class VersionStatus(Message, frozen=True):
    """A version and its instances, which `state`, `reason` and `variant` sum up; it is ready when one instance is."""

    model: str
    version: int
    version_dir: str
    manifest_sha256: str
    state: str
    reason: str
    variant: str
    instances: tuple[InstanceStatus, ...] = ()
    engines: tuple[EngineStatus, ...] = ()
    on_demand: bool = False  # the version is loaded by its first request, and may be unloaded for others
    load_seconds: float = 0.0  # duration of its last load with warm-up; 0 before the first
    choice: str = ""  # why `variant` serves, where others could
    speeds: tuple[SpeedStatus, ...] = ()
    signed_by: str = ""  # id of the trusted key, or "unsigned"; empty before the version was verified
    notice: str = ""  # what happened to its files while it is loaded; empty while they are what was verified


class RefusedStatus(Message, frozen=True):
    """A directory named like a version that cannot be one; its name is no number that other messages could hold."""

    model: str
    name: str
    reason: str


class ModelStatus(Message, frozen=True):
    """The desired state of a model that has a document, or whose document was refused."""

    model: str
    generation: int = 0  # of the document that rules; 0: none does
    stable: int = 0  # the version that answers by default; 0: the newest ready one
    labels: tuple[tuple[str, int], ...] = ()  # without stable
    canary: int = 0  # the version that answers a share of the requests; 0: none
    share: float = 0.0
    salt: str = ""
    reason: str = ""  # of the change
    problem: str = ""  # why a newer document, or the version that it holds as stable, does not rule
    shadow: int = 0  # the version that is asked about answered images, too; 0: none
    sample: float = 0.0  # share of the images that stable answered
    rollout: str = ""  # where an automatic rollout stands, in words; empty: there is none
    objective_s: float = 0.0  # within which a request without a deadline must be answered; 0: the server's objective


class Catalog(Message, frozen=True):
    """All that the supervisor knows of models and devices. It replaces the previous catalog as a whole."""

    generation: int
    devices: tuple[DeviceStatus, ...]
    versions: tuple[VersionStatus, ...]
    draining: bool
    refused: tuple[RefusedStatus, ...] = ()
    models: tuple[ModelStatus, ...] = ()
    newcomers: tuple[str, ...] = ()  # models that appeared after the server was ready, and were never ready yet
    api_restarts: int = 0  # API processes that were replaced


class LogLevel(Message, frozen=True):
    """The process logs events of this level and above from now on."""

    level: str


class ProcessUse(msgspec.Struct, frozen=True, array_like=True):
    """What all processes of one kind take: supervisor, api or worker."""

    kind: str
    cpu_s: float  # also of those that ended
    memory_bytes: int  # resident; pages that several share count in each
    open_fds: int


class ProcessesUse(Message, frozen=True):
    """What the server's processes take, of every kind; sent every few seconds."""

    kinds: tuple[ProcessUse, ...]


class Listen(Message, frozen=True):
    """The order to accept connections from now on."""


class StopAdmitting(Message, frozen=True):
    """The order to finish the requests in flight, refuse new ones, and exit with code 0."""


# Messages from an API process to the supervisor


class ApiReady(Message, frozen=True):
    pid: int


class CatalogApplied(Message, frozen=True):
    """This process applied a catalog: none of its requests can reach an instance that it does not list as ready."""

    generation: int


class DesireVersion(Message, frozen=True):
    """Requests wait for a version that is not loaded. It may be sent repeatedly, and causes one load."""

    model: str
    version: int


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """How many requests of one API process use a version, and when the last one ended."""

    model: str
    version: int
    in_flight: int
    last_used_s: float


class Used(Message, frozen=True):
    """The usages that changed since the last such message; sent only where versions are loaded on demand."""

    usages: tuple[Usage, ...]


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """Requests that a version answered or failed in one API process, since its last message about that version."""

    model: str
    version: int
    requests: int
    failed: int  # answered 500
    not_finite: int  # of these, because an answer was no finite number


class Answers(Message, frozen=True):
    """How requests ended; sent soon after one failed, and else about every second."""

    counts: tuple[Answered, ...]


class VersionTally(msgspec.Struct, frozen=True, array_like=True):
    """What happened to one version's requests in one API process since it last said so."""

    model: str
    version: int
    generation: int  # of the desired state in force meanwhile
    answered: int
    errors: int  # requests that the server, not its client, is to blame for
    latencies: tuple[tuple[int, int], ...] = ()  # how many answers took how long: (bin, count), see running_figures.py
    compared: int = 0  # images that it was asked about as a shadow
    agreement: float = 0.0  # the sum of their agreements with stable


class Tallied(Message, frozen=True):
    """The tallies of models with an automatic rollout."""

    tallies: tuple[VersionTally, ...]


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
    | LogLevel
    | ProcessesUse
    | Listen
    | StopAdmitting
    | ApiReady
    | CatalogApplied
    | DesireVersion
    | Used
    | Answers
    | Tallied
    | Configure
)
