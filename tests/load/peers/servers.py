"""The servers that are compared, as data. Promises: each in the idiom that its own documentation recommends.

A tuned server is the same one with what it has against overload: a queue limit, a timeout, a latency goal. Queues are
as long as `queue` says, which is about 120 ms of work for the best peer, so that an answer within 200 ms is possible.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.load.peers.subjects import ROOT, Published
from tests.load.peers.wire import Wire

APPS = Path(__file__).with_name("apps")
_TUNED_WAIT_MS = 120  # of 200: the rest is for the batch at work and one's own


@dataclass(frozen=True, slots=True)
class Run:
    """What a start needs to know."""

    published: Published
    python: Path  # of the server's environment
    scratch: Path  # empty folder, gone afterwards
    port: int
    queue: int  # requests that may wait in a tuned server
    objective_ms: float
    decode: str  # `saccade` or `pillow`
    processes: int  # of a peer that run the network


@dataclass(frozen=True, slots=True)
class Launch:
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """`base` is the server whose capacity sets the rates: itself, or of a tuned one the untuned."""

    name: str
    title: str
    environment: str  # folder below .saccade/peers; empty: this project's own
    wire: Wire
    launch: Callable[[Run], Launch]
    base: str
    starts_s: float  # about; for the time that is announced
    asks_deadline: bool = False

    @property
    def is_tuned(self) -> bool:
        return self.base != self.name


def _saccade(run: Run) -> Launch:
    """It chooses the variant, and so the runtime, by its own measurement; a visit refuses another network's."""
    options = ("--port", str(run.port), "--repository", str(run.published.repository.absolute()))
    unjudged = ("--allow-unjudged", "true")  # weights are random
    return Launch((sys.executable, "-m", "saccade.service", "serve", *options, *unjudged))


def _app(name: str, run: Run, *more: str) -> Launch:
    return Launch((str(run.python), str(APPS / f"{name}_app.py"), "--port", str(run.port), *more))


def _fastapi_tuned(run: Run) -> Launch:
    """With several processes each has its share."""
    most = max(1, run.queue // run.processes)
    return Launch(_app("fastapi", run).command, {"PEER_MOST_IN_FLIGHT": str(most)})


def _bentoml(run: Run, max_latency_ms: float | None = None) -> Launch:
    command = (str(run.python), "-m", "bentoml", "serve", "bentoml_app:Classifier")
    places = ("--working-dir", str(APPS), "--host", "127.0.0.1", "--port", str(run.port))
    tuned = {} if max_latency_ms is None else {"PEER_MAX_LATENCY_MS": f"{max_latency_ms:.0f}"}
    home = {"BENTOML_HOME": str(run.scratch / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return Launch((*command, *places), home | tuned)


def _ray(run: Run, *more: str) -> Launch:
    launch = _app("ray", run, *more)
    return Launch(launch.command, {"RAY_TMPDIR": str(run.scratch), "RAY_USAGE_STATS_ENABLED": "0"})


def _triton(run: Run, batching: str) -> Launch:
    """Side effect: lays out a model repository in the scratch folder."""
    packages = packages_of(run.python)
    triton = packages / "pytriton" / "tritonserver"
    model = run.scratch / "models" / "classify"
    (model / "1").mkdir(parents=True)
    for file in (APPS / "triton" / "model.py", APPS / "network.py"):  # its Python does not look at PYTHONPATH
        shutil.copyfile(file, model / "1" / file.name)
    config = (APPS / "triton" / "config.pbtxt").read_text("utf-8").replace("PROCESSES", str(run.processes))
    (model / "config.pbtxt").write_text(f"{config}{batching}\n", "utf-8")
    network = ("--http-address=127.0.0.1", f"--http-port={run.port}", "--allow-grpc=false", "--allow-metrics=false")
    folders = (f"--model-repository={model.parent}", f"--backend-directory={triton / 'backends'}")
    return Launch((str(triton / "bin" / "tritonserver"), *network, *folders))


def _triton_tuned(run: Run) -> Launch:
    policy = (
        f"timeout_action: REJECT, default_timeout_microseconds: {_TUNED_WAIT_MS * 1000}, max_queue_size: {run.queue}"
    )
    return _triton(run, f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}")


def packages_of(python: Path) -> Path:
    """Where an environment keeps its packages."""
    return python.parents[1] / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


SERVERS = (
    Server("saccade", "saccade", "", Wire.SACCADE, _saccade, "saccade", 4.0),
    Server(
        "saccade-tuned",
        "saccade, requests say their deadline",
        "",
        Wire.SACCADE,
        _saccade,
        "saccade",
        4.0,
        asks_deadline=True,
    ),
    Server("fastapi", "FastAPI by hand", "fastapi", Wire.RAW, lambda run: _app("fastapi", run), "fastapi", 3.0),
    Server(
        "fastapi-tuned",
        "FastAPI, 503 beyond a number in flight",
        "fastapi",
        Wire.RAW,
        _fastapi_tuned,
        "fastapi",
        3.0,
    ),
    Server("litserve", "LitServe", "litserve", Wire.RAW, lambda run: _app("litserve", run), "litserve", 6.0),
    Server(
        "litserve-tuned",
        "LitServe, timeout",
        "litserve",
        Wire.RAW,
        lambda run: _app("litserve", run, "--timeout-s", f"{_TUNED_WAIT_MS / 1000:g}"),
        "litserve",
        6.0,
    ),
    Server("bentoml", "BentoML", "bentoml", Wire.BENTOML, _bentoml, "bentoml", 8.0),
    Server(
        "bentoml-tuned",
        "BentoML, latency limit",
        "bentoml",
        Wire.BENTOML,
        lambda run: _bentoml(run, run.objective_ms),
        "bentoml",
        8.0,
    ),
    Server("ray", "Ray Serve", "ray", Wire.RAW, _ray, "ray", 20.0),
    Server(
        "ray-tuned",
        "Ray Serve, bounded queue",
        "ray",
        Wire.RAW,
        lambda run: _ray(run, "--max-queued", str(run.queue)),
        "ray",
        20.0,
    ),
    Server(
        "triton",
        "Triton",
        "triton",
        Wire.TRITON,
        lambda run: _triton(run, "dynamic_batching { }"),
        "triton",
        6.0,
    ),
    Server("triton-tuned", "Triton, queue policy", "triton", Wire.TRITON, _triton_tuned, "triton", 6.0),
)
ENVIRONMENTS = tuple(dict.fromkeys(server.environment for server in SERVERS if server.environment))


def environment_of(server: Server, launch: Launch, run: Run) -> dict[str, str]:
    """Everything that a server's process finds in its environment: nothing of this shell's but what is named here."""
    return {
        "PATH": f"{run.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(run.scratch),
        "TMPDIR": str(run.scratch),
        "LANG": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
        "SACCADE_ALLOW_UNJUDGED": "true",  # their networks have random weights
        "PEER_SUBJECT": str(run.published.facts_file),
        "PEER_DECODE": run.decode,
        "PEER_PROCESSES": str(run.processes),
        "PEER_PROJECT": str(ROOT),
        "PYTHONPATH": str(APPS if server.environment else ROOT),
        **launch.environment,
    }
