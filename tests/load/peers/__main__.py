"""saccade beside what a user would pick: FastAPI by hand, LitServe, BentoML, Ray Serve, Triton.

    python -m tests.load.peers --setup                        # environments and networks: some ten minutes
    python -m tests.load.peers                                # report-peers.json, .md and .png; says how long it takes
    python -m tests.load.peers --only saccade,triton --subject resnet50 --seconds 5 --rounds 1
    python -m tests.load.peers --processes 1 --factors --report one.json    # peers with one process; closed loop alone
    python -m tests.load.peers --report old.json --render     # table and plots again, nothing is measured

Loopback only. Every server runs in its own environment, is checked against the ONNX file's own answers before it is
measured, has a bounded life and is ended afterwards. Run the command again to go on where a run was stopped. The
machine should do nothing else meanwhile: all figures are of servers and client on the same cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.load.peers.environments import REQUIREMENTS, set_up
from tests.load.peers.plan import FACTORS, Load, Visit, expected_s, longest_s, open_visits, visits
from tests.load.peers.processes import cores
from tests.load.peers.rows import ReportRefused, Rows, settings_of
from tests.load.peers.servers import ENVIRONMENTS, SERVERS, Server
from tests.load.peers.subjects import ROOT, SUBJECTS, Published, bodies, publish, published

_WORK = Path(".saccade/peers")
_PACKAGES = {
    "fastapi": "fastapi",
    "litserve": "litserve",
    "bentoml": "bentoml",
    "ray": "ray",
    "triton": "nvidia-pytriton",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; 2 for wrong usage, 1 if something could not be measured."""
    given = _parser().parse_args(arguments)
    servers = _chosen_servers(given.only)
    subjects = [subject for subject in SUBJECTS if not given.subject or subject.name in given.subject]
    if given.setup:
        set_up([name for name in ENVIRONMENTS if name in {server.environment for server in servers}], given.work)
        for subject in subjects:
            if published(subject, given.work) is None:
                publish(subject, given.work)
        return 0
    if given.render:
        write_report(_document(given.report), given.report)
        return 0
    files = {subject.name: published(subject, given.work) for subject in subjects}
    missing = [name for name, found in files.items() if found is None]
    if missing:
        print(f"not published yet: {', '.join(missing)}; run with --setup first", file=sys.stderr)
        return 2
    load = Load(
        given.seconds, given.connections, given.objective_ms, tuple(given.factors), given.decode, given.processes
    )
    return _measure(given, load, servers, {name: found for name, found in files.items() if found is not None})


def _measure(given: argparse.Namespace, load: Load, servers: Sequence[Server], files: dict[str, Published]) -> int:
    from tests.load.peers.measuring import Bench, expected_answers, limit_rates, limit_row, visit_server

    digests = {name: found.onnx_sha256 for name, found in files.items()}
    try:
        rows = Rows(given.report, settings_of(load, cores(), digests), _call())
    except ReportRefused as refused:
        print(refused, file=sys.stderr)
        return 2
    subjects = [found.subject for found in files.values()]
    left = open_visits(visits(subjects, servers, given.rounds, load), rows.done())
    print(announcement(left, load), flush=True)
    bench = Bench(load, given.work, rows, bodies(given.work), lambda line: print(line, flush=True))
    expected = {name: expected_answers(found, bench.bodies) for name, found in files.items()} if left else {}
    for visit in left:
        found = files[visit.subject.name]
        if visit.server is not None:
            visit_server(bench, visit, found, expected[visit.subject.name])
            continue
        (place,) = visit.places
        try:
            measure = partial(limit_rates, found, bodies=bench.bodies, seconds=load.seconds)
            rows.add(place, limit_row(found, measure))
        except multiprocessing.TimeoutError:
            rows.add(place, {"failed": "it took too long"})
        print(f"round {place.round}, {place.subject}: limit", flush=True)
    write_report(rows.document, given.report)
    return 1 if any("failed" in row for row in rows.document["rows"].values()) else 0


def announcement(left: Sequence[Visit], load: Load) -> str:
    """How long it takes, said before it begins."""
    expected = sum(expected_s(visit, load) for visit in left) / 60
    longest = sum(longest_s(visit, load) for visit in left) / 60
    return f"{len(left)} visits, about {expected:.0f} minutes; at most {longest:.0f}, then every server has been ended"


def write_report(document: dict[str, Any], report: Path) -> None:
    """Writes all tables and the plot beside the JSON; prints the one table that sums them up."""
    from tests.load.peers.plots import draw  # here: a run that is refused needs no matplotlib
    from tests.load.peers.summary import summary
    from tests.load.peers.table import Name, markdown

    names = [Name(server.name, server.title, server.base) for server in SERVERS]
    subjects = list(document["settings"]["files"])
    plot, text = report.with_suffix(".png"), report.with_suffix(".md")
    table = summary(document, names, subjects)
    draw(document, names, subjects, plot)
    text.write_text(markdown(document, names, subjects, (table, f"![{plot.name}]({plot.name})")), "utf-8")
    print(f"{table}\n\n{plot}; every figure: {text}")


def _document(report: Path) -> dict[str, Any]:
    import orjson

    document: dict[str, Any] = orjson.loads(report.read_bytes())
    return document


def _call() -> dict[str, Any]:
    """Where the figures of this process come from."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=10
    )
    own = {name: version(name) for name in ("onnxruntime", "uvicorn", "numpy")}
    return {
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{_cpu_name()}, Linux {platform.release()}",
        "command": " ".join(["python", "-m", "tests.load.peers", *sys.argv[1:]]),
        "versions": own | {name: _pinned(name, package) for name, package in _PACKAGES.items()},
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _pinned(environment: str, package: str) -> str:
    lines = (REQUIREMENTS / f"{environment}.txt").read_text("utf-8").splitlines()
    return next((line.partition("==")[2] for line in lines if line.partition("==")[0] == package), "unknown")


def _chosen_servers(only: str) -> list[Server]:
    names = [server.name for server in SERVERS]
    wanted = [name for name in only.split(",") if name] or names
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise SystemExit(f"no server {', '.join(unknown)}; there are: {', '.join(names)}")
    return [server for server in SERVERS if server.name in wanted]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="make environments and networks, measure nothing")
    parser.add_argument("--render", action="store_true", help="table and plots of --report again")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of {', '.join(each.name for each in SERVERS)}")
    parser.add_argument("--subject", action="append", choices=[subject.name for subject in SUBJECTS])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--factors", type=float, nargs="*", default=list(FACTORS), help="of capacity, open loop")
    parser.add_argument("--connections", type=int, default=32, help="closed loop")
    parser.add_argument("--objective-ms", type=float, default=200.0)
    parser.add_argument(
        "--decode",
        choices=["saccade", "pillow"],
        default="pillow",
        help="peers decode with Pillow, as users write it, or with this project's functions: compares servers alone",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=cores(),
        help="of each peer that run the network, with the cores divided; default: one per core",
    )
    parser.add_argument("--report", type=Path, default=Path("report-peers.json"))
    parser.add_argument("--work", type=Path, default=_WORK, help="environments, networks, pictures")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # servers are ended on the way out
    sys.exit(main())
