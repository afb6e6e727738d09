"""One visit: start a server, check its answers, measure, end it. Promises: nothing is measured that answers wrongly."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from saccade.models.contract.manifest import Variant
from saccade.service.backends.base import UInt8Array
from saccade.service.backends.registry import backend_name, load_backend
from saccade.service.backends.requests import load_request
from saccade.service.bench.coordinator import ClientLimits, Closed, Ending
from saccade.service.bench.report import Report
from saccade.service.bench.schedule import Poisson
from saccade.service.bench.session import Open, Session, measure
from saccade.service.bench.workload import Endpoint, RequestShape, Workload
from saccade.service.errors import BadParameter, BenchFailed
from tests.load.peers.environments import python_of
from tests.load.peers.plan import STARTING_LIMIT_S, TIMEOUT_S, Load, Place, Visit, longest_s
from tests.load.peers.processes import (
    RunningServer,
    ServerFailed,
    Usage,
    cores,
    get,
    post,
    running,
    scratch_folder,
)
from tests.load.peers.rows import Rows
from tests.load.peers.servers import Run, Server, environment_of
from tests.load.peers.subjects import Published, same_network
from tests.load.peers.wire import (
    Class,
    Request,
    Served,
    Wire,
    WrongAnswer,
    classes_of,
    ensure_same,
    request_of,
    served_by,
    workload_of,
)
from tests.support.ports import free_port

_TOLERANCES = {"saccade": 1e-3, "pillow": 5e-2}  # of scores; Pillow's pixels differ by a level here and there
# Between runtimes: int8 is rounded after every operator in one, after several in the other.
_RUNTIME_TOLERANCE = 5e-2
_PEERS_RUNTIME = "onnxruntime"  # of every application in apps/
_CHECKED = 4  # bodies
_CHECK_LIMIT_S = 20.0  # a tuned server may refuse while it warms up
_MAX_IN_FLIGHT = 1024
_GROWTH_RATIO, _GROWTH_MIB = 1.02, 8.0  # beyond both, memory grew
_STRETCHES = 5  # of the samples; medians of the first, the middle and the last one count


Expected = Mapping[str, Sequence[Sequence[Class]]]
"""The classes of the first bodies by variant, as the runtime of each says without a server."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What stays the same over all visits."""

    load: Load
    work: Path
    rows: Rows
    bodies: Sequence[bytes]
    say: Callable[[str], None]


def visit_server(bench: Bench, visit: Visit, published: Published, expected: Expected) -> None:
    """Adds a row for every place of the visit; a server that fails leaves its reason there."""
    server, load = visit.server, bench.load
    assert server is not None
    try:
        with scratch_folder() as scratch:
            python = python_of(server.environment, bench.work)
            port = free_port()
            run = Run(
                published, python, scratch, port, visit.subject.queue, load.objective_ms, load.decode, load.processes
            )
            launch = server.launch(run)
            environment = environment_of(server, launch, run)
            with running(launch.command, environment, scratch, longest_s(visit, load)) as process:
                _measure_places(bench, visit, process, published, port, expected)
    except (ServerFailed, WrongAnswer, BenchFailed, BadParameter, OSError, http.client.HTTPException) as error:
        bench.say(f"{visit.name} with {visit.subject.name}: {error}")
        for place in visit.places:
            if bench.rows.find(place) is None:
                bench.rows.add(place, {"failed": str(error)})


def _requests(bench: Bench, server: Server, published: Published) -> list[Request]:
    deadline_ms = bench.load.objective_ms if server.asks_deadline else None
    return [request_of(server.wire, published.manifest.model, body, deadline_ms) for body in bench.bodies]


def _measure_places(
    bench: Bench,
    visit: Visit,
    process: RunningServer,
    published: Published,
    port: int,
    expected: Expected,
) -> None:
    server, load = visit.server, bench.load
    assert server is not None
    tolerance, requests = _TOLERANCES[load.decode], _requests(bench, server, published)

    def is_right(body: bytes) -> bool:
        wanted = expected[_served(server, published, port).variant]
        ensure_same(wanted[0], classes_of(server.wire, body), tolerance)
        return True

    cold_start_s = process.await_right(port, requests[0], is_right, STARTING_LIMIT_S)
    served = _served(server, published, port)
    for request, answer in list(zip(requests, expected[served.variant], strict=False))[1:]:
        ensure_same(answer, classes_of(server.wire, _answered(port, request)), tolerance)
    for mine, theirs in zip(expected[served.variant], expected[published.subject.variant], strict=True):
        ensure_same(theirs, mine, _RUNTIME_TOLERANCE)
    endpoint = Endpoint("127.0.0.1", port, False, "")
    workload = workload_of(requests, visit.subject.name, endpoint)
    if server.is_tuned:  # its batches have been formed once too, as the other's were in the closed loop
        _measured(
            _session(load, endpoint, workload, visit.places[0]), Closed(load.connections, load.closed_warm_up_s, 0.0)
        )
    for place in visit.places:
        rate = None if not place.factor else place.factor * _capacity(bench.rows, visit)
        session = _session(load, endpoint, workload, place)
        with process.watched() as usage:
            report = _measured(session, _shape(load, rate))
        figures = figures_of(report, usage[0], rate) | {"served": str(served)}
        if not place.factor:
            figures["cold_start_s"] = round(cold_start_s, 2)
        bench.rows.add(place, figures)
        bench.say(line_of(place, figures))
        if process.process.poll() is not None:
            raise ServerFailed(f"it ended under load: {process.log_tail()}")


def _measured(session: Session, load: Open | Closed) -> Report:
    """Raises KeyboardInterrupt for a run that was cut short: the load client itself only returns early."""
    run = measure(session, load, lambda live, duration_s: None)
    if run.measured.ending is Ending.INTERRUPTED:
        raise KeyboardInterrupt
    return run.report


def _answered(port: int, request: Request) -> bytes:
    deadline_s = time.monotonic() + _CHECK_LIMIT_S
    while True:
        status, body = post(port, request)
        if status == 200:
            return body
        if time.monotonic() > deadline_s:
            raise WrongAnswer(f"answers {status}: {body[:200]!r}")


def _served(server: Server, published: Published, port: int) -> Served:
    """The variant and the runtime that answer; all peers open the same file in the same runtime."""
    if server.wire is not Wire.SACCADE:
        return Served(published.subject.variant, _PEERS_RUNTIME)
    _, body = get(port, f"/v1/models/{published.manifest.model}")
    return served_by(body, [each.name for each in same_network(published)])


def _capacity(rows: Rows, visit: Visit) -> float:
    """Of the same round. Raises ServerFailed while it is not known."""
    assert visit.server is not None
    row = rows.find(Place(visit.subject.name, visit.server.base, visit.round))
    if row is None or not row["per_second"]:
        raise ServerFailed(f"the capacity of {visit.server.base} is not known in round {visit.round}: measure it too")
    return float(row["per_second"])


def _session(load: Load, endpoint: Endpoint, workload: Workload, place: Place) -> Session:
    return Session(
        url=f"http://{endpoint.authority}",
        endpoint=endpoint,
        workload=workload,
        shape=RequestShape(path="/"),
        # One process: the client shares its cores with the server.
        limits=ClientLimits(max(1, cores() // 4), load.connections, _MAX_IN_FLIGHT, TIMEOUT_S),
        seed=place.round,
        warm_up_s=load.open_warm_up_s,
        objective_ms=load.objective_ms,
    )


def _shape(load: Load, rate: float | None) -> Open | Closed:
    if rate is None:
        return Closed(load.connections, load.seconds, load.closed_warm_up_s)
    return Open(Poisson(rate, load.seconds))


def figures_of(report: Report, usage: Usage, rate: float | None) -> dict[str, Any]:
    """A row. Latencies in ms, from the moment a request was meant to be sent; refusals from when it was."""
    refused = sum(each.count for each in report.outcomes if each.status in (429, 503, 504))
    wrong = {each.label: each.count for each in report.outcomes if not _is_good_or_refused(each.status)}
    latency, refusals = report.latency, report.refusals
    found: dict[str, Any] = {
        "per_second": round(report.throughput_rps, 2),
        "goodput_per_second": round(report.goodput_rps, 2),
        "requests": report.requests,
        "p50_ms": round(latency.p50_ms, 2) if latency else None,
        "p99_ms": round(latency.p99_ms, 2) if latency else None,
        "refused": refused,
        "refused_p99_ms": round(refusals.p99_ms, 2) if refusals else None,
        "refused_max_ms": round(refusals.max_ms, 2) if refusals else None,
        "errors": wrong,
        "cpu_cores": round(usage.cpu_cores, 2),
        **memory_of(usage.rss_mib),
        "client_cpu_cores": round(report.client.cpu_cores, 2),
        "client_lag_p99_ms": round(report.client.lag_p99_ms, 2),
        "client_is_saturated": report.client.is_saturated,
    }
    if rate is not None:
        found["rate"] = round(rate, 2)
        found["goodput_share"] = None if not rate else round(report.goodput_rps / rate, 4)
    return found


def _is_good_or_refused(status: int) -> bool:
    return 200 <= status < 300 or status in (429, 503, 504)


def memory_of(rss_mib: Sequence[float]) -> dict[str, Any]:
    """Both ends and the peak. `memory_grew`: still in the second half, so that a first rise to a level is none."""
    size = max(1, len(rss_mib) // _STRETCHES)
    middle_at = (len(rss_mib) - size) // 2
    start, middle, end = (median(rss_mib[at : at + size]) for at in (0, middle_at, len(rss_mib) - size))
    grew = end > middle * _GROWTH_RATIO and end - middle > _GROWTH_MIB
    return {
        "rss_start_mib": round(start, 1),
        "rss_end_mib": round(end, 1),
        "rss_peak_mib": round(max(rss_mib), 1),
        "memory_grew": grew,
    }


def line_of(place: Place, figures: dict[str, Any]) -> str:
    what = f"at {place.factor:g} x capacity" if place.factor else "closed loop"
    good = f"{figures['goodput_per_second']:.0f}/s good" if place.factor else f"{figures['per_second']:.0f}/s"
    return f"round {place.round}, {place.subject}, {place.server}, {what}: {good}, p99 {figures['p99_ms']} ms"


# Without a server


Rates = Mapping[str, float]


def limit_row(published: Published, measure: Callable[[Variant], Rates]) -> dict[str, Any]:
    """Decode, resize and run in the fastest of the runtimes that saccade may choose. Raises what `measure` raises."""
    rates_by_runtime = {
        Served(variant.name, backend_name(variant, "auto")): measure(variant) for variant in same_network(published)
    }
    served, rates = max(rates_by_runtime.items(), key=lambda item: _best(item[1]))
    return {"per_second": round(_best(rates), 2), "bare_per_second": round(rates["bare"], 2), "served": str(served)}


def _best(rates: Rates) -> float:
    return max(rates["turns"], rates["overlapped"])


def limit_rates(published: Published, variant: Variant, bodies: Sequence[bytes], seconds: float) -> Rates:
    """Of `Limit` in one process of its own; bounded. Raises multiprocessing.TimeoutError."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(_limit, (published, variant, list(bodies), seconds)).get(4 * seconds + 60)


def _limit(published: Published, variant: Variant, bodies: list[bytes], seconds: float) -> Rates:
    from tests.load.limit import Limit

    limit = Limit(published.version_dir, published.manifest, variant, cores())
    try:
        return limit.images_per_s(bodies, seconds / 2)
    finally:
        limit.close()


def expected_answers(published: Published, bodies: Sequence[bytes]) -> Expected:
    """What the ONNX file says of the first bodies, by the project's own decoder, without any server; in a process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(_expected, (published, list(bodies[:_CHECKED]))).get(120)


def _expected(published: Published, bodies: list[bytes]) -> Expected:
    from saccade.models.contract.preprocessing import preprocess
    from saccade.service.vision.image_decoder import ImageLimits, decode_image

    pictures = [preprocess(decode_image(body, ImageLimits()), published.manifest.preprocess) for body in bodies]
    return {variant.name: _answers(published, variant, pictures) for variant in same_network(published)}


def _answers(published: Published, variant: Variant, pictures: Sequence[UInt8Array]) -> list[tuple[Class, ...]]:
    manifest = published.manifest
    request = load_request(
        published.version_dir, manifest, variant.name, device="cpu", threads=cores(), batch_sizes=(1,)
    )
    backend = load_backend(backend_name(variant, "auto"), request)
    answers = []
    for picture in pictures:
        found = dict(zip([each.name for each in manifest.answer], backend.infer(picture[None]), strict=True))
        pairs = zip(found["class_ids"][0].tolist(), found["scores"][0].tolist(), strict=True)
        answers.append(tuple(Class(int(class_id), float(score)) for class_id, score in pairs)[: manifest.task.top_k])
    backend.close()
    return answers
