"""What every answer carries: request ids, problem documents, live connections; and who may ask."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.service.ipc.api_keys import key_named
from tests.support.images import red_of, red_png
from tests.support.problems import is_problem
from tests.support.requests import RawClient
from tests.support.server import Server, run_saccade, running_server, wait_until

PREDICT = "/v1/models/classifier/predict"
GENERATED_ID_CHARACTERS = set("0123456789abcdef")


# Request ids


@pytest.mark.parametrize("given", ["a", "my-request_7/β".encode().decode("ascii", "ignore"), "x" * 128, "{}<>'"])
def test_a_request_id_is_echoed_in_header_and_body(server: Server, given: str) -> None:
    good = server.predict("classifier", red_png(1), headers={"X-Request-Id": given})
    bad = server.predict("classifier", b"", headers={"X-Request-Id": given})
    assert good.headers["x-request-id"] == good.json()["request_id"] == given
    assert bad.headers["x-request-id"] == bad.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "tab\tinside", "caf\xe9"])
def test_a_hostile_request_id_is_replaced(server: Server, given: str) -> None:
    response = server.predict("classifier", red_png(1), headers={"X-Request-Id": given.encode("latin-1")})
    made = response.headers["x-request-id"]
    assert made == response.json()["request_id"]
    assert made != given
    assert set(made) <= GENERATED_ID_CHARACTERS


def test_made_request_ids_differ(server: Server) -> None:
    made = {server.predict("classifier", red_png(1)).headers["x-request-id"] for _ in range(20)}
    assert len(made) == 20


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/nobody", PREDICT])
def test_problems_of_other_routes_carry_the_request_id_too(server: Server, path: str) -> None:
    response = server.client.get(path, headers={"X-Request-Id": "mine"})
    assert response.json()["request_id"] == "mine"
    assert response.headers["x-request-id"] == "mine"


# Connections


def test_a_connection_is_reused_after_errors(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.connect()
        before = connection.sock
        steps = [
            (PREDICT, red_png(1), {}, 200),
            (PREDICT, b"no image", {}, 422),
            (PREDICT, red_png(2), {"Content-Type": "text/plain"}, 415),
            ("/nothing", b"body", {}, 404),
            ("/v1/models/nobody/predict", red_png(3) * 50, {}, 404),
            (PREDICT, b"{", {"Content-Type": "application/json"}, 400),
            (PREDICT + "?top_k=-1", red_png(4), {}, 422),
            (PREDICT, red_png(5), {}, 200),
        ]
        for path, body, headers, status in steps:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            response.read()
            assert response.status == status
            assert connection.sock is before
    finally:
        connection.close()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    image = red_png(4)
    with RawClient(server.port) as client:
        for request_id in ("first", "second"):
            client.send_head(PREDICT, f"Content-Length: {len(image)}", f"X-Request-Id: {request_id}")
            client.send(image)
        received = b""
        while received.count(b"timings_ms") < 2:
            chunk = client.socket.recv(65536)
            assert chunk
            received += chunk
    assert received.index(b"first") < received.index(b"second")


def test_what_is_not_http_gets_no_further(server: Server) -> None:
    with RawClient(server.port) as client:
        client.send(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n")
        assert client.receive_head()[0] == 400
    assert server.is_ready()


# Keys


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("first-key\n\n  second-key  \n", "utf-8")
    return path


@pytest.fixture(scope="module")
def locked_server(repository: Path, keys_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(repository, tmp_path_factory.mktemp("locked"), api_keys_file=keys_file) as running:
        yield running


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic Zmlyc3Qta2V5", "first-key"])
def test_without_a_key_the_answer_is_401(locked_server: Server, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = locked_server.predict("classifier", red_png(1), headers=headers)
    is_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["wrong", "first-key2", "first-ke", "first-key second-key", "caf\xe9"])
def test_with_a_wrong_key_the_answer_is_403(locked_server: Server, key: str) -> None:
    authorization = f"Bearer {key}".encode("latin-1")
    response = locked_server.predict("classifier", red_png(1), headers={"Authorization": authorization})
    is_problem(response, 403)
    assert key not in response.text


@pytest.mark.parametrize("authorization", ["Bearer first-key", "bearer second-key"])
def test_with_any_of_the_keys_the_request_is_answered(locked_server: Server, authorization: str) -> None:
    response = locked_server.predict("classifier", red_png(9), headers={"Authorization": authorization})
    assert red_of(response.json()["predictions"][0]) == 9


def test_health_needs_no_key_and_all_else_needs_one(locked_server: Server) -> None:
    def statuses(*paths: str, **headers: str) -> list[int]:
        return [locked_server.client.get(path, headers=headers).status_code for path in paths]

    closed = ("/", "/docs", "/openapi.json", "/metrics", "/v1/models", "/v2", "/v2/models/classifier")
    assert statuses("/health/live", "/health/ready", "/v2/health/ready") == [200] * 3
    assert statuses(*closed) == [401] * len(closed)
    assert statuses(*closed, Authorization="Bearer first-key") == [200] * len(closed)
    is_problem(locked_server.client.get("/metrics"), 401)
    assert set(locked_server.client.get("/v2").json()) == {"error"}


def test_only_an_admins_key_has_models_loaded(locked_server: Server) -> None:
    path = "/v2/repository/models/classifier/load"
    headers = {"Authorization": "Bearer first-key"}

    assert "may not admin" in locked_server.client.post(path, headers=headers).json()["error"]


def test_revoked_key_is_refused_and_an_added_one_accepted_without_a_restart(repository: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-key\n", "utf-8")
    with running_server(repository, tmp_path, api_keys_file=keys, open_without_key="metrics") as server:
        old, new = ({"Authorization": f"Bearer {key}"} for key in ("first-key", "new-key"))
        assert server.predict("classifier", red_png(1), headers=old).status_code == 200
        assert server.client.get("/metrics").status_code == 200
        keys.write_text(key_named("new-key").line, "utf-8")

        # Several HTTP processes share the port: each has to have seen it.
        wait_until(
            lambda: all(server.predict("classifier", red_png(1), headers=old).status_code == 403 for _ in range(8))
        )
        wait_until(
            lambda: all(server.predict("classifier", red_png(1), headers=new).status_code == 200 for _ in range(8))
        )
        assert "api_keys_not_hashed" in server.logs()


def test_refusal_and_answer_are_found_in_the_log_by_their_request_id(repository: Path, tmp_path: Path) -> None:
    def lines_of(request_id: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in server.logs().splitlines() if request_id in line]
        return [line for line in lines if line["request_id"] == request_id]

    with running_server(repository, tmp_path, log_format="json") as server:
        server.predict("classifier", b"no picture", headers={"X-Request-Id": "find-me"})
        server.client.get("/v1/models/nobody", headers={"X-Request-Id": "me-too"})
        server.predict("classifier", red_png(1), headers={"X-Request-Id": "not-yet"})
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: '"log_level"' in server.logs())

        def is_logged() -> bool:
            server.predict("classifier", red_png(1), headers={"X-Request-Id": "now"})
            return bool(lines_of("now"))

        wait_until(is_logged)
        refused, absent, answered = lines_of("find-me")[0], lines_of("me-too")[0], lines_of("now")[0]

    assert (refused["event"], refused["model"], refused["version"]) == ("request_refused", "classifier", "2")
    assert (absent["status"], absent["kind"]) == (404, "NotFound")
    assert (answered["event"], answered["level"]) == ("request_answered", "debug")
    assert "infer;dur=" in answered["timing"]
    assert lines_of("not-yet") == []


def test_keys_do_not_reach_the_log(locked_server: Server) -> None:
    locked_server.predict("classifier", b"bad", headers={"Authorization": "Bearer first-key"})
    assert "first-key" not in locked_server.logs()


@pytest.mark.parametrize("content", [None, "\n\n"])
def test_a_keys_file_without_keys_refuses_to_start(repository: Path, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content, "utf-8")
    result = run_saccade(
        "serve", "--repository", str(repository), "--port", "0", "--backend", "fake", "--api-keys-file", str(path)
    )
    assert result.returncode == 2
    assert "SACCADE_API_KEYS_FILE" in result.stderr
