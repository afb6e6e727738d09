"""Many requests at once: overload, deadlines, clients that leave, failing neighbours, several API processes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.images import POISON_PNG, SLOW_PNG, image_files, json_body, red_of, red_png
from tests.support.problems import is_problem
from tests.support.requests import Background, Gate, RawClient, at_once, held_device, hold_slots, wait_queued
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import publish_fake

PREDICT = "/v1/models/classifier/predict"
SLOTS = 2
API_MEMORY_MIB = 150  # the figure for an API process


@pytest.fixture(scope="module")
def narrow(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two slots and batches of one, so that two slow images fill it."""
    with running_server(three_models, tmp_path_factory.mktemp("narrow"), slots=SLOTS, max_batch_size=1) as server:
        yield server


@pytest.fixture(scope="module")
def wide(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two API processes that share a worker, and batches that wait for each other where that pays."""
    publish_fake(three_models, "coupled", 1, batchable=False)
    publish_fake(three_models, "costly", 1, content=b"a batch takes 10 ms, an image takes 0.1 ms")
    with running_server(
        three_models, tmp_path_factory.mktemp("wide"), api_processes=2, max_queue_delay_ms=15, slots=256
    ) as server:
        yield server


def test_overload_is_answered_429_and_all_slots_come_back(narrow: Server, gate: Gate) -> None:
    shed = narrow.metric("saccade_shed_total", reason="slots")
    with Background() as background:
        with gate.closed():
            admitted = hold_slots(narrow, background, lambda: narrow.predict("classifier", red_png(1)), SLOTS)
            refused = narrow.predict("classifier", red_png(1))
        assert [future.result().status_code for future in admitted] == [200] * SLOTS
    assert "SACCADE_SLOTS" in is_problem(refused, 429)["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert narrow.metric("saccade_shed_total", reason="slots") == shed + 1
    narrow.wait_idle()
    assert red_of(narrow.predict("classifier", red_png(30)).json()["predictions"][0]) == 30


def test_a_storm_of_requests_ends_with_one_outcome_each(narrow: Server) -> None:
    count = 60
    before = {outcome: narrow.outcomes(outcome) for outcome in ("ok", "overloaded")}
    statuses = at_once(lambda red: narrow.predict("classifier", red_png(red)).status_code, range(count), 12)
    assert set(statuses) <= {200, 429}
    assert narrow.outcomes("ok") - before["ok"] == statuses.count(200) > 0
    assert narrow.outcomes("overloaded") - before["overloaded"] == statuses.count(429)
    narrow.wait_idle()


def test_a_deadline_behind_slow_work_is_refused_in_time(narrow: Server, gate: Gate) -> None:
    """By its estimated wait before any work, or by the worker."""
    with Background() as background, held_device(narrow, background, gate, "detector"):
        hurried = narrow.predict("classifier", red_png(1), params={"deadline_ms": "50"})
    assert "deadline" in is_problem(hurried, 429 if hurried.status_code == 429 else 504)["detail"]
    narrow.wait_idle()


def test_a_deadline_missed_by_its_own_batch_is_answered_504(narrow: Server) -> None:
    is_problem(narrow.predict("classifier", SLOW_PNG, params={"deadline_ms": "300"}), 504)
    narrow.wait_idle()


def test_a_client_that_leaves_while_its_images_wait_frees_their_slots(narrow: Server, gate: Gate) -> None:
    body = json.dumps(json_body(*[red_png(1)] * SLOTS)).encode()
    narrow.wait_idle()
    left = narrow.outcomes("client_left")
    with gate.closed():
        with RawClient(narrow.port) as client:
            client.send_head(PREDICT, f"Content-Length: {len(body)}", "Content-Type: application/json")
            client.send(body)
            wait_until(lambda: narrow.metric("saccade_slots_in_use") == SLOTS, what="its images wait")
        wait_until(lambda: narrow.outcomes("client_left") == left + 1, what="the leaver is counted")
    narrow.wait_idle()


def test_an_answer_that_is_written_after_the_client_half_closed_says_so(narrow: Server, gate: Gate) -> None:
    """One whose answer was on its way already cannot: the end of its sending side is read after the request."""
    picture = red_png(30)
    narrow.wait_idle()
    with RawClient(narrow.port) as client, gate.closed():
        client.send_head(PREDICT, f"Content-Length: {len(picture)}")
        client.send(picture)
        client.socket.shutdown(socket.SHUT_WR)
        gate.wait_for_runs(1)
        assert narrow.is_live()  # the only HTTP process has looked at its sockets since
        gate.open()
        status, headers, body = client.receive()
    assert (status, headers["connection"]) == (200, "close")
    assert red_of(json.loads(body)["predictions"][0]) == 30


def test_work_of_a_client_that_left_is_not_run(narrow: Server, gate: Gate) -> None:
    def run() -> float:
        return narrow.metric("saccade_batch_size_sum", model="detector")

    narrow.wait_idle()
    before, left = run(), narrow.outcomes("client_left")
    with Background() as background, held_device(narrow, background, gate, "classifier"):
        with RawClient(narrow.port) as client:
            client.send_head("/v1/models/detector/predict", f"Content-Length: {len(red_png(1))}")
            client.send(red_png(1))
            wait_until(lambda: narrow.metric("saccade_slots_in_use") == SLOTS, what="its image waits")
        wait_until(lambda: narrow.outcomes("client_left") == left + 1, what="the leaver is counted")
    narrow.wait_idle()
    assert run() == before


def test_estimates_recover_from_a_slow_spell(narrow: Server) -> None:
    for _ in range(5):  # more than warm-up ran, so the median is now beyond the deadline below
        assert narrow.predict("segmenter", SLOW_PNG).status_code == 200

    def is_answered() -> bool:
        return narrow.predict("segmenter", red_png(1), params={"deadline_ms": "300"}).status_code == 200

    assert not is_answered()
    wait_until(is_answered, what="requests shorter than the slow spell are tried again")


def test_neighbours_of_a_failing_image_succeed(wide: Server) -> None:
    reds = list(range(40, 54))
    images = [red_png(red) for red in reds]
    images.insert(5, POISON_PNG)
    document = wide.client.post(PREDICT, files=image_files(*images)).json()
    failed = document["predictions"].pop(5)
    assert failed["error"]["status"] == 500
    assert [red_of(prediction) for prediction in document["predictions"]] == reds


def test_rows_of_shared_batches_are_never_mixed_up(wide: Server, gate: Gate) -> None:
    """Of those that come while the device is held, many must share a batch."""
    before = tuple(wide.metric(f"saccade_batch_size_{part}", model="costly") for part in ("sum", "count"))
    reds = list(range(200))
    first = 32

    def seen(red: int) -> int:
        image = red_png(red)
        with RawClient(wide.port) as client:  # a connection each, so both processes take some
            client.send_head("/v1/models/costly/predict", f"Content-Length: {len(image)}")
            client.send(image)
            return red_of(json.loads(client.receive()[2])["predictions"][0])

    with Background(first) as background:
        with held_device(wide, background, gate, "detector"):
            waiting = [background.start(partial(seen, red)) for red in reds[: first - 1]]
            wait_queued(wide, "costly", first - 1)
        assert [future.result() for future in waiting] == reds[: first - 1]
    images = wide.metric("saccade_batch_size_sum", model="costly") - before[0]
    batches = wide.metric("saccade_batch_size_count", model="costly") - before[1]
    assert images == first - 1
    assert batches <= images / 4, "batches were shared"
    assert at_once(seen, reds[first - 1 :], 32) == reds[first - 1 :]


def test_model_that_must_not_batch_never_does(wide: Server) -> None:
    reds = list(range(40))

    def seen(red: int) -> int:
        return red_of(wide.predict("coupled", red_png(red)).json()["predictions"][0])

    assert at_once(seen, reds, 16) == reds
    assert wide.metric("saccade_batch_size_sum", model="coupled") == len(reds)
    assert wide.metric("saccade_batch_size_count", model="coupled") == len(reds)


def test_api_processes_share_the_port_and_metrics_add_up(wide: Server) -> None:
    processes = wide.api_processes()
    assert len(processes) == 2
    before = wide.outcomes("ok", model="detector")
    clients: list[httpx.Client] = []
    sent = 0
    try:

        def both_are_connected() -> bool:
            nonlocal sent
            client = httpx.Client(base_url=wide.base_url, timeout=30)
            clients.append(client)
            assert client.post("/v1/models/detector/predict", content=red_png(200)).status_code == 200
            sent += 1
            return all(connections_of(process, wide.port) > 0 for process in processes)

        wait_until(both_are_connected, what="both processes took connections")
        for client in clients:
            assert client.post("/v1/models/detector/predict", content=red_png(200)).status_code == 200
            sent += 1
            totals = client.get("/metrics").text
            assert f'saccade_requests_total{{model="detector",outcome="ok",version="1"}} {before + sent}' in totals
    finally:
        for client in clients:
            client.close()


def connections_of(process: psutil.Process, port: int) -> int:
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
        for connection in process.net_connections("tcp")
    )


def test_api_processes_stay_small_and_load_no_runtime(wide: Server) -> None:
    for process in wide.api_processes():
        mapped = {Path(item.path).name for item in process.memory_maps()}
        assert not [name for name in mapped if "onnxruntime" in name or "torch" in name]
        assert process.memory_info().rss < API_MEMORY_MIB * 1024 * 1024
