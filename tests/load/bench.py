"""`make bench`: start-up, memory, and served throughput against the limit, for every model of a repository.

Everything is measured in this run on this machine: the limit and the server take turns on the same cores, several
rounds, and the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.service.backends.registry import absent_kinds
from saccade.service.repository.open import newest_versions
from saccade.service.repository.variants import choose_variant
from saccade.service.repository.verify import verify_version
from tests.load import closed_loop
from tests.load.arguments import count_from_1, repository_with_versions, seconds_above_0
from tests.load.limit import Limit

_CONNECTIONS = 32
_BODY_BYTES = 36_000
_SIZE = (500, 375)
_IMAGES = 32
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Served:
    """The newest version of one model."""

    path: Path
    manifest: Manifest
    variant: Variant


def photographs() -> list[bytes]:
    """JPEGs of 500x375 with close to 36 KB, cut from the photographs that scikit-learn ships."""
    from sklearn.datasets import load_sample_images  # here: the load client's processes do not need it

    bodies = []
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for index in range(_IMAGES):
        source = sources[index % len(sources)]
        left, top = (index * 37) % (source.width - _SIZE[0]), (index * 13) % (source.height - _SIZE[1])
        crop = source.crop((left, top, left + _SIZE[0], top + _SIZE[1]))
        bodies.append(min((_jpeg(crop, quality) for quality in range(30, 96, 5)), key=_distance))
    return bodies


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _distance(body: bytes) -> int:
    return abs(len(body) - _BODY_BYTES)


class Server:
    """A real `saccade serve` on a free port."""

    def __init__(self, repository: Path, device: str | None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        started_s = time.perf_counter()
        devices = () if device is None else ("--device", device)
        places = ("--port", str(self.port), "--repository", str(repository), *devices)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "saccade.service", "serve", *places], stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{self.port}/health/ready"
        while not _is_ready(url):
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}")
            time.sleep(0.01)
        self.ready_s = time.perf_counter() - started_s

    def resident_mib(self) -> dict[str, float]:
        """Largest resident memory per kind of child."""
        found: dict[str, float] = {}
        for child in psutil.Process(self._process.pid).children():
            kind = "api" if "saccade.service.api.process" in child.cmdline() else "worker"
            found[kind] = max(found.get(kind, 0.0), child.memory_info().rss / _MIB)
        return found

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0).status_code == 200
    except httpx.HTTPError:
        return False


def newest(repository: Path) -> list[Served]:
    """The newest version of every model, with the variant a CPU serves."""
    result = []
    for found in newest_versions(repository):
        manifest = verify_version(found.path).manifest
        result.append(Served(found.path, manifest, choose_variant(manifest, "cpu", "auto", absent_kinds("auto"))))
    return result


def _verdict(gate: dict[str, Any]) -> str:
    if gate["accepted"]:
        return "passed"
    return "pending" if all(check["passed"] or check["pending"] for check in gate["checks"]) else "denied"


def exported(served: Served) -> list[dict[str, Any]]:
    """What the export measured on each variant's published file: metric, drop, deploy graph against bare graph."""
    report = orjson.loads((served.path / "report.json").read_bytes())
    rows = []
    for item in report["variants"]:
        qualify = item["qualify"]
        metric, drop = qualify["metric"], qualify["drop"]
        rows.append(
            {
                "model": f"{served.manifest.model}/{served.manifest.version}",
                "variant": qualify["variant"],
                "gate": _verdict(item["gate"]),
                "metric": f"{metric['name']} {metric['value']:.4f} [{metric['ci_low']:.4f}, {metric['ci_high']:.4f}]",
                "below eager": f"{drop['value']:+.4f} (upper end {drop['ci_high']:+.4f})",
                # Variants for GPUs are not timed where there is none.
                "best images/s": round(max((each["images_per_s"] for each in qualify["latency"]), default=0.0)) or "-",
                "in turns": "".join(
                    PairedSpeed.model_validate(each).text for each in qualify.get("paired_speeds", [])[:1]
                ),
                "deploy/bare": ", ".join(f"{pair['ratio']:.2f} at {pair['batch_size']}" for pair in qualify["speed"]),
            }
        )
    return rows


def measure(served: Served, server: Server, bodies: list[bytes], rounds: int, seconds: float) -> dict[str, Any]:
    """Rounds of limit and server in turn; medians, and the median of the ratios."""
    path = f"/v1/models/{served.manifest.model}/predict"
    context = multiprocessing.get_context("spawn")
    limits: list[dict[str, float]] = []
    loads: list[closed_loop.LoadResult] = []
    threads = len(os.sched_getaffinity(0))
    for _ in range(rounds):
        limit = Limit(served.path, served.manifest, served.variant, threads)
        limits.append(limit.images_per_s(bodies, seconds / 2))
        limit.close()
        with context.Pool(1) as pool:
            arguments = ("127.0.0.1", server.port, path, bodies, _CONNECTIONS, 1.0, seconds)
            loads.append(pool.apply(closed_loop.run, arguments))
    ratios = [
        load.per_second / max(item["turns"], item["overlapped"]) for item, load in zip(limits, loads, strict=True)
    ]
    return {
        "model": served.manifest.model,
        "variant": served.variant.name,
        "bare_images_per_s": round(median(item["bare"] for item in limits), 1),
        "limit_images_per_s": round(median(max(item["turns"], item["overlapped"]) for item in limits), 1),
        "served_per_s": round(median(load.per_second for load in loads), 1),
        "served_over_limit": round(median(ratios), 3),
        "p50_ms": round(median(load.percentile_ms(50) for load in loads), 1),
        "p99_ms": round(median(load.percentile_ms(99) for load in loads), 1),
        "not_200": sum(sum(load.statuses.values()) - load.statuses[200] for load in loads),
    }


def main() -> None:
    """Prints the tables; `--json` one document instead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=repository_with_versions, required=True)
    parser.add_argument("--device", help="of the server, as cpu:0,cpu:1 for two workers; left out, it chooses")
    parser.add_argument("--rounds", type=count_from_1, default=3)
    parser.add_argument("--seconds", type=seconds_above_0, default=6.0, help="of load per round")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bodies = photographs()
    server = Server(arguments.repository, arguments.device)
    try:
        idle = server.resident_mib()
        rows = [
            measure(item, server, bodies, arguments.rounds, arguments.seconds) for item in newest(arguments.repository)
        ]
        loaded = server.resident_mib()
    finally:
        server.stop()
    report = {
        "device": arguments.device or "cpu, as it chose",
        "cores": len(os.sched_getaffinity(0)),
        "body_bytes": int(median(len(body) for body in bodies)),
        "connections": _CONNECTIONS,
        "ready_s": round(server.ready_s, 2),
        "resident_mib": {kind: round(value, 1) for kind, value in idle.items()},
        "resident_mib_after_load": {kind: round(value, 1) for kind, value in loaded.items()},
        "served": rows,
        "exported": [row for item in newest(arguments.repository) for row in exported(item)],
    }
    if arguments.json:
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(f"ready with all models after {report['ready_s']} s on {report['device']}, {report['cores']} cores")
    for kind, value in report["resident_mib"].items():
        console.print(f"{kind} process: {value} MiB resident, {report['resident_mib_after_load'][kind]} MiB after load")
    console.print(
        f"JPEG of {report['body_bytes']} bytes, {report['connections']} connections, client on the same cores"
    )
    for title in ("served", "exported"):
        table = Table(*[name.replace("_", " ") for name in report[title][0]], title=title)
        for row in report[title]:
            table.add_row(*[str(value) for value in row.values()])
        console.print(table)


if __name__ == "__main__":
    main()
