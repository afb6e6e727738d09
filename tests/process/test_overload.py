"""More than can be served: what is accepted is in time, what is refused is refused at once, nobody takes it all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from saccade.service.bench.coordinator import ClientLimits
from saccade.service.bench.report import Report
from saccade.service.bench.schedule import Poisson
from saccade.service.bench.session import Open, Session, measure
from saccade.service.bench.workload import ModelShare, RequestShape, endpoint_of, workload_of
from tests.load.overload import (
    SIMULATED,
    Asked,
    Subject,
    failures,
    measured,
    simulated_images,
    simulated_server,
    table,
)
from tests.support.images import image_files, red_of, red_png
from tests.support.problems import is_problem, problem_in
from tests.support.requests import Background, Gate, RawClient, held_device, hold_slots, wait_queued
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import publish_fake

SLOW_COST = b"a batch takes 40 ms, an image takes 20 ms"  # 40 images/s in batches of eight: of no core's making
TILE_MS, TILES, SMALL_MS = 200, 16, 700  # at once four tiles would take longer than small requests may
IMAGE_MS = 150  # of the model "slow"
SHORT_MS = 100  # a deadline that no request behind others can make
SLOTS = 8


@contextmanager
def slow_server(root: Path, **settings: Any) -> Iterator[Server]:
    """One image at a time, each of which takes long; beside it the model "gate", whose runs end when told to."""
    publish_fake(root / "repository", "slow", 1, content=b"an image takes %d ms" % IMAGE_MS)
    publish_fake(root / "repository", "gate", 1, content=gate_of(root).content)
    with running_server(root / "repository", root, max_batch_size=1, **settings) as server:
        yield server


def gate_of(root: Path) -> Gate:
    return Gate(root / "gate")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slow")


@pytest.fixture(scope="module")
def slow(workspace: Path) -> Iterator[Server]:
    with slow_server(workspace, slots=SLOTS) as server:
        yield server


@pytest.fixture
def gate(workspace: Path) -> Gate:
    """Of `slow`."""
    return gate_of(workspace)


@contextmanager
def full_queue(
    server: Server, gate: Gate, count: int, background: Background, **asked: Any
) -> Iterator[list[Future[httpx.Response]]]:
    """`count` requests behind a run that lasts until the end of the block. What each of them takes is known."""
    server.wait_idle()
    assert server.predict("slow", red_png(1)).status_code == 200
    with held_device(server, background, gate, "gate"):
        send = partial(server.predict, "slow", red_png(1), **asked)
        yield hold_slots(server, background, send, count, beside=1)


def test_twice_the_capacity_is_answered_in_time_or_refused_at_once(tmp_path: Path) -> None:
    """Slower than any machine, and by medians; `python -m tests.load.overload --simulated` holds the limits."""
    asked = Asked(objective_ms=1000, seconds=4.0, warm_up_s=1.0, capacity_s=3.0)
    with simulated_server(tmp_path, cost=SLOW_COST) as server:
        outcome = measured(Subject(server.base_url, SIMULATED, simulated_images()), asked, server)

    shown = table(outcome, asked)
    report = outcome.report
    assert report.goodput_rps > 0.6 * outcome.capacity_rps, shown
    assert report.latency is not None, shown
    assert report.refusals is not None, shown
    assert report.latency.p50_ms <= asked.objective_ms, shown
    assert report.refusals.p50_ms <= asked.objective_ms / 10, shown
    assert report.refused_rate > 0.3, shown
    assert not [line for line in failures(outcome, asked) if "not refused" in line or "memory" in line], shown


def test_wait_is_refused_before_the_body_is_read_and_the_connection_goes_on(slow: Server, gate: Gate) -> None:
    image = red_png(7)
    head = (f"/v1/models/slow/predict?deadline_ms={SHORT_MS}", f"Content-Length: {len(image)}")
    shed = slow.metric("saccade_shed_total", reason="wait")
    with Background() as background, RawClient(slow.port) as client:
        with full_queue(slow, gate, 5, background):
            client.send_head(*head)
            status, headers, body = client.receive()  # not a byte of the image was sent

            document = problem_in(status, headers, body, 429)
            assert "would wait about" in document["detail"]
            assert int(headers["retry-after"]) >= 1
            assert "connection" not in headers
            client.send(image)  # dropped
            client.send_head(*head)
            assert client.receive()[0] == 429, "by the parser, a moment after the first refusal"
            client.send(image)
        client.send_head("/v1/models/slow/predict", f"Content-Length: {len(image)}")
        client.send(image)
        assert client.receive()[0] == 200
    assert slow.metric("saccade_shed_total", reason="wait") == shed + 2
    slow.wait_idle()


def test_body_without_a_length_is_not_waited_for_after_a_refusal(slow: Server, gate: Gate) -> None:
    with Background() as background, RawClient(slow.port) as client, full_queue(slow, gate, 5, background):
        client.send_head(f"/v1/models/slow/predict?deadline_ms={SHORT_MS}", "Transfer-Encoding: chunked")
        status, headers, _ = client.receive()

    assert (status, headers["connection"]) == (429, "close")
    slow.wait_idle()


def test_low_priority_is_refused_first_and_high_last(slow: Server, gate: Gate) -> None:
    """Slots: a quarter of them is not for low priority."""
    answered: list[str] = []
    with Background() as background:
        with full_queue(slow, gate, SLOTS - 3, background) as held:
            low = slow.predict("slow", red_png(1), headers={"X-Priority": "low"})
            ask_high = partial(slow.predict, "slow", red_png(1), headers={"X-Priority": "high"})
            (high,) = hold_slots(slow, background, ask_high, 1, beside=SLOTS - 2)
            for future in held:
                future.add_done_callback(lambda _: answered.append("normal"))
            high.add_done_callback(lambda _: answered.append("high"))
            wait_queued(slow, "slow", SLOTS - 2)

        assert "slots" in is_problem(low, 429)["detail"]
        assert high.result().status_code == 200
    assert answered.index("high") < SLOTS - 3, "high priority went before those that came earlier"
    slow.wait_idle()


def test_unknown_priority_is_422(slow: Server) -> None:
    response = slow.predict("slow", red_png(1), headers={"X-Priority": "urgent"})

    assert "high, normal, low" in is_problem(response, 422)["detail"]


def test_request_that_cannot_make_it_is_told_before_its_deadline(slow: Server, gate: Gate) -> None:
    """JSON and multipart bodies name deadlines of their own, so theirs are judged after reading."""
    with Background() as background, full_queue(slow, gate, 6, background):
        response = slow.client.post("/v1/models/slow/predict?deadline_ms=700", files=image_files(red_png(1)))

    told = {429: "would wait about", 504: "cannot be met with the requests ahead"}  # by the worker, when it came
    assert told[response.status_code] in response.json()["detail"]
    slow.wait_idle()


def test_more_images_than_slots_are_answered_in_order(slow: Server) -> None:
    reds = list(range(60, 60 + SLOTS + 4))

    response = slow.client.post("/v1/models/slow/predict", files=image_files(*(red_png(red) for red in reds)))

    assert [red_of(prediction) for prediction in response.json()["predictions"]] == reds
    slow.wait_idle()


def test_headroom_falls_while_requests_wait(slow: Server, gate: Gate) -> None:
    def headroom() -> float:
        return slow.metric("saccade_slo_headroom_ratio", model="slow")

    wait_until(lambda: headroom() == pytest.approx(1.0, abs=0.005), what="nothing waits")
    with Background() as background, full_queue(slow, gate, 5, background):
        wait_until(lambda: headroom() < 0.99, what="the headroom falls")
    slow.wait_idle()


def test_one_key_gets_no_more_than_its_limit(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first\nsecond\n")
    ask = {key: {"Authorization": f"Bearer {key}"} for key in ("first", "second")}
    settings = {"api_keys_file": tmp_path / "keys", "open_without_key": "metrics", "max_concurrent_per_key": 2}
    gate = gate_of(tmp_path)
    with slow_server(tmp_path, **settings) as server, Background() as background:
        with gate.closed():
            send = partial(server.predict, "gate", red_png(1), headers=ask["first"])
            held = hold_slots(server, background, send, 2)
            refused = server.predict("slow", red_png(1), headers=ask["first"])
            (other,) = hold_slots(
                server, background, partial(server.predict, "slow", red_png(1), headers=ask["second"]), 1, beside=2
            )

        assert "SACCADE_MAX_CONCURRENT_PER_KEY" in is_problem(refused, 429)["detail"]
        assert other.result().status_code == 200
        assert [future.result().status_code for future in held] == [200, 200]
        assert server.metric("saccade_shed_total", reason="key") == 1
        assert server.predict("slow", red_png(1), headers=ask["first"]).status_code == 200


def test_bound_on_the_estimated_wait_holds_whatever_the_deadline(tmp_path: Path) -> None:
    with (
        slow_server(tmp_path, max_estimated_wait_ms=IMAGE_MS / 2) as server,
        Background() as background,
        full_queue(server, gate_of(tmp_path), 1, background),
    ):
        refused = server.predict("slow", red_png(1), params={"deadline_ms": "60000"})

        assert "SACCADE_MAX_ESTIMATED_WAIT_MS" in is_problem(refused, 429)["detail"]


def test_request_without_a_deadline_is_refused_early_and_one_with_a_deadline_waits(tmp_path: Path) -> None:
    patient = {"deadline_ms": "60000"}
    with slow_server(tmp_path, objective_ms=0) as server, Background() as background:
        with full_queue(server, gate_of(tmp_path), 14, background, params=patient) as held:
            refused = server.predict("slow", red_png(1))

        assert "would wait about" in is_problem(refused, 429)["detail"]
        assert {future.result().status_code for future in held} == {200}


# Several models


def load_of(server: Server, model: str, rate: float, seconds: float, deadline_ms: int) -> Report:
    endpoint, shape = endpoint_of(server.base_url), RequestShape(query=(("deadline_ms", str(deadline_ms)),))
    workload = workload_of([ModelShare(model, 1.0, tuple(simulated_images()))], endpoint, shape)
    limits = ClientLimits(1, 16, 500, 20.0)
    session = Session(server.base_url, endpoint, workload, shape, limits, 1, 0.5, float(deadline_ms))
    return measure(session, Open(Poisson(rate, 0.5 + seconds)), lambda live, s: None).report


def test_flood_at_one_model_leaves_the_other_its_share(tmp_path: Path) -> None:
    """The simulated figure is in `python -m tests.load.scheduler`; here two real processes share real time."""
    for model in ("quiet", "flooded"):
        publish_fake(tmp_path / "repository", model, 1, content=SLOW_COST)
    with running_server(tmp_path / "repository", tmp_path, slots=256) as server:
        alone = load_of(server, "quiet", 8, 4.0, 10_000)
        with Background() as background:
            flood = background.start(lambda: load_of(server, "flooded", 80, 6.0, 1000))
            beside = load_of(server, "quiet", 8, 4.0, 10_000)
            flooded = flood.result()

    assert alone.latency is not None
    assert beside.latency is not None
    assert beside.failed == 0, beside.outcomes
    # A batch of eight of the other model may be in the way, for 200 ms; the whole flood's queue lasts a second.
    assert beside.latency.p50_ms < alone.latency.p50_ms + 500, (alone.latency, beside.latency)
    assert flooded.ok > 50
    assert flooded.refused_rate > 0.2


def test_small_requests_are_answered_between_the_tiles_of_a_large_picture(tmp_path: Path) -> None:
    """Runs of four tiles would let four or five small requests through, one after another."""
    publish_fake(tmp_path / "repository", "tiles", 1, content=b"an image takes %d ms" % TILE_MS)
    publish_fake(tmp_path / "repository", "small", 1, content=b"an image takes 2 ms")
    allowed = {"deadline_ms": str(SMALL_MS)}
    answered = 0
    with running_server(tmp_path / "repository", tmp_path, max_batch_size=4) as server, Background() as background:
        picture = image_files(*[red_png(1)] * TILES)
        sent = background.start(lambda: server.client.post("/v1/models/tiles/predict?deadline_ms=60000", files=picture))
        while not sent.done():
            answered += server.predict("small", red_png(1), params=allowed).status_code == 200

    assert sent.result().status_code == 200
    assert all("error" not in prediction for prediction in sent.result().json()["predictions"])
    assert answered >= TILES // 2 + 2
