"""Uploads that are too large, too slow or broken off: refused early, bounded in memory, harmless to neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import image_files, red_of, red_png
from tests.support.problems import is_problem, problem_in
from tests.support.requests import Background, RawClient
from tests.support.server import Server, running_server, wait_until

PREDICT = "/v1/models/classifier/predict"
MIB = 1024 * 1024
BODY_TIMEOUT_MS = 700
MAX_BODY_BYTES = 256 * 1024


@pytest.fixture(scope="module")
def strict_server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Little patience and little memory."""
    with running_server(
        repository,
        tmp_path_factory.mktemp("strict"),
        body_timeout_ms=BODY_TIMEOUT_MS,
        max_body_bytes=MAX_BODY_BYTES,
        max_buffered_bytes=MAX_BODY_BYTES + 1000,
    ) as running:
        yield running


def rss_mib(server: Server) -> float:
    return max(process.memory_info().rss for process in server.api_processes()) / MIB


def test_a_declared_200_mb_body_is_refused_without_reading_it(server: Server) -> None:
    with RawClient(server.port) as client:
        client.send_head(PREDICT, f"Content-Length: {200 * 10**6}", "Content-Type: image/jpeg")
        status, headers, body = client.receive()
    problem = problem_in(status, headers, body, 413)
    assert "SACCADE_MAX_BODY_BYTES" in problem["detail"]
    assert "200,000,000" in problem["detail"]


def test_a_client_that_asks_first_is_refused_before_it_sends(server: Server) -> None:
    with RawClient(server.port) as client:
        client.send_head(PREDICT, f"Content-Length: {200 * 10**6}", "Expect: 100-continue")
        status, headers, _ = client.receive_head()
    assert status == 413
    assert headers["connection"] == "close", "nobody knows whether the body still comes"


def test_a_client_that_asks_first_may_send_what_is_allowed(server: Server) -> None:
    image = red_png(15)
    with RawClient(server.port) as client:
        client.send_head(PREDICT, f"Content-Length: {len(image)}", "Expect: 100-continue")
        assert client.receive_head()[0] == 100
        client.send(image)
        assert client.receive()[0] == 200


def test_a_chunked_200_mb_body_is_refused_at_the_limit_and_memory_stays_bounded(server: Server) -> None:
    chunk = b"%x\r\n" % MIB + b"x" * MIB + b"\r\n"
    before_mib = rss_mib(server)
    highest_mib = before_mib
    with RawClient(server.port) as client:
        client.send_head(PREDICT, "Transfer-Encoding: chunked", "Content-Type: application/octet-stream")
        sent = 0
        while sent < 200 and not client.has_answer():
            client.send(chunk)
            sent += 1
            highest_mib = max(highest_mib, rss_mib(server))
            assert red_of(server.predict("classifier", red_png(18)).json()["predictions"][0]) == 18
        status, headers, body = client.receive()
    problem_in(status, headers, body, 413)
    assert 32 <= sent <= 48, "refused at 32 MiB, give or take what the sockets hold"
    assert highest_mib - before_mib < 100


def test_many_large_bodies_at_once_stay_within_the_budget(strict_server: Server) -> None:
    refused = strict_server.metric("saccade_shed_total", reason="uploads")
    half = MAX_BODY_BYTES // 2
    with RawClient(strict_server.port) as first, RawClient(strict_server.port) as second:
        for client in (first, second):
            client.send_head(PREDICT, f"Content-Length: {MAX_BODY_BYTES}")
            client.send(b"x" * half)
        with RawClient(strict_server.port) as third:
            third.send_head(PREDICT, f"Content-Length: {MAX_BODY_BYTES}")
            third.send(b"x" * half)
            status, headers, body = third.receive()
        assert "SACCADE_MAX_BUFFERED_BYTES" in problem_in(status, headers, body, 429)["detail"]
        assert int(headers["retry-after"]) >= 1
    assert strict_server.metric("saccade_shed_total", reason="uploads") > refused
    wait_until(lambda: strict_server.predict("classifier", red_png(1)).status_code == 200, what="the budget is back")


@pytest.mark.parametrize("form", ["raw", "multipart", "json"])
def test_bytes_over_the_limit_are_refused_in_every_form(strict_server: Server, form: str) -> None:
    content = b"x" * (MAX_BODY_BYTES + 1)
    if form == "raw":
        response = strict_server.predict("classifier", content)
    elif form == "multipart":
        response = strict_server.client.post(PREDICT, files=image_files(content))
    else:
        response = strict_server.client.post(PREDICT, json={"images": [{"b64": content.decode()}]})
    is_problem(response, 413)


def test_a_body_that_trickles_is_refused_after_the_timeout(strict_server: Server) -> None:
    stop = threading.Event()
    with RawClient(strict_server.port) as client, Background() as background:
        client.send_head(PREDICT, "Content-Length: 100000")

        def trickle() -> None:
            while not stop.wait(0.05):
                client.send(b"x")

        sending = background.start(trickle)
        try:
            status, headers, body = client.receive()
        finally:
            stop.set()
        sending.result()
        assert "0.7 s" in problem_in(status, headers, body, 400)["detail"]
        assert headers["connection"] == "close"


def test_the_rest_of_a_body_that_was_answered_already_does_not_trickle_for_ever(strict_server: Server) -> None:
    with RawClient(strict_server.port) as client:
        client.send_head("/v1/models/nobody/predict", "Content-Length: 100000")
        assert client.receive()[0] == 404

        def is_closed() -> bool:
            try:
                client.socket.send(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_until(is_closed, 10.0, what="the server closes")


def test_a_body_that_never_begins_is_refused_after_the_timeout(strict_server: Server) -> None:
    with RawClient(strict_server.port) as client:
        client.send_head(PREDICT, "Content-Length: 100000")
        status, headers, body = client.receive()
        assert "did not arrive" in problem_in(status, headers, body, 400)["detail"]


def test_a_slow_body_within_the_timeout_is_answered(strict_server: Server) -> None:
    image = red_png(42)
    with RawClient(strict_server.port) as client:
        client.send_head(PREDICT, f"Content-Length: {len(image)}")
        for index in range(len(image)):
            client.send(image[index : index + 1])
        assert client.receive()[0] == 200


@pytest.mark.parametrize("sent", [0, 10, 60_000, 500_000])
def test_a_client_that_leaves_during_its_upload_is_counted_and_harms_nobody(server: Server, sent: int) -> None:
    before = server.outcomes("client_left", model="classifier")
    client = RawClient(server.port)
    client.send_head(PREDICT, "Content-Length: 1000000")
    client.send(b"\xff\xd8\xff" + b"x" * sent if sent else b"")
    assert red_of(server.predict("classifier", red_png(19)).json()["predictions"][0]) == 19
    client.close()
    wait_until(lambda: server.outcomes("client_left", model="classifier") == before + 1, what="the leaver is counted")
    server.wait_idle()
    assert red_of(server.predict("classifier", red_png(20)).json()["predictions"][0]) == 20


def test_uploads_hold_no_slot_before_they_are_complete(server: Server) -> None:
    server.wait_idle()
    with RawClient(server.port) as client:
        client.send_head(PREDICT, "Content-Length: 100000")
        client.send(b"x" * 50_000)
        assert server.predict("classifier", red_png(1)).status_code == 200
        wait_until(lambda: server.metric("saccade_slots_in_use") == 0, what="no slot is held")
