"""`/admin/v1` of a real server: on its own port, for keys of scope admin alone, the changes of `saccade rollout`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from saccade.service.backends.fake_backend import CRASH_ON_LOAD
from saccade.service.cli.served_state import ServerOptions, given_up
from tests.support.ports import free_port
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.versions import publish_fake

ADMIN = {"Authorization": "Bearer admin-key-of-alice"}
READER = {"Authorization": "Bearer reader-key"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for version in (1, 2, 3):
        publish_fake(folder, "digits", version)
    return folder


@contextlib.contextmanager
def with_admin(root: Path, folder: Path, **settings: Any) -> Iterator[tuple[Server, httpx.Client]]:
    """A server with keys, and a client of its admin port."""
    keys, port = folder / "keys", free_port()
    keys.write_text(
        "admin-key-of-alice scopes=predict,read,admin name=alice\nreader-key\nadmin-key-alone scopes=admin\n"
    )
    (folder / "reader").write_text("reader-key")
    with (
        running_server(
            root, folder, **{"api_keys_file": keys, "admin_port": port, "versions_per_model": 3, **settings}
        ) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/admin/v1/models", headers=ADMIN, timeout=30.0) as client,
    ):
        yield running, client


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, httpx.Client]]:
    with with_admin(root, tmp_path_factory.mktemp("admin")) as running:
        yield running


def ask(client: httpx.Client, change: str, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/digits/{change}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_changes_are_written_in_force_and_told_by_whom(server: tuple[Server, httpx.Client], root: Path) -> None:
    running, client = server

    promoted = ask(client, "promote", version=1, wait_s=20, reason="3 is slower")
    canary = ask(client, "canary", version=2, share=0.2, wait_s=20)

    assert (promoted["in_force"], canary["in_force"]) == (True, True)
    assert canary["document"]["canary"] == {"version": 2, "share": 0.2, "salt": ""}
    shown = running.client.get("/v1/models/digits", headers=READER).json()
    assert (shown["labels"]["stable"], shown["serving"]["canary"]) == ("1", {"version": "2", "share": 0.2})
    state = client.get("/digits").json()
    assert (state["versions"], state["document"]["generation"]) == ([1, 2, 3], canary["document"]["generation"])
    written = {each["generation"]: each for each in client.get("/digits/history").json()}
    first = written[promoted["document"]["generation"]]
    assert (first["changed_by"], first["reason"]) == ("alice", "3 is slower")
    program = call_saccade("rollout", "history", "digits", "--repository", str(root), "--json")
    assert json.loads(program.stdout)[0]["generation"] == state["document"]["generation"]


def test_every_change_has_a_route(server: tuple[Server, httpx.Client]) -> None:
    _, client = server

    assert ask(client, "promote", version=1)["document"]["labels"] == {"stable": 1}
    assert ask(client, "label", label="trial", version=3)["document"]["labels"] == {"stable": 1, "trial": 3}
    assert ask(client, "promote", label="trial")["document"]["labels"]["stable"] == 3
    assert ask(client, "label", label="trial", version=None)["document"]["labels"] == {"stable": 3}
    assert ask(client, "rollback")["document"]["labels"]["stable"] == 1
    assert ask(client, "objective", objective_ms=200)["document"]["objective_ms"] == 200
    assert ask(client, "shadow", version=2, sample=0.5)["document"]["shadow"] == {"version": 2, "sample": 0.5}
    started = ask(client, "start", version=3, steps=[{"share": 0.1}, {"share": 0.5}])["document"]
    assert (started["canary"]["version"], len(started["rollout"]["steps"])) == (3, 2)
    assert ask(client, "canary", version=None)["document"]["rollout"] is None
    assert ask(client, "promote", follow=True)["document"]["policy"] == "follow"


def test_rollback_passes_over_a_quarantined_version(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, "digits", 1)
    publish_fake(root, "digits", 2, content=CRASH_ON_LOAD)
    with with_admin(root, tmp_path) as (running, client):
        asked = ServerOptions(running.base_url, tmp_path / "reader", 30.0)
        wait_until(lambda: "killed its worker" in given_up(asked, "digits").get("2", ""), 60.0, "2 is quarantined")
        publish_fake(root, "digits", 3)

        assert ask(client, "rollback")["document"]["labels"] == {"stable": 1}


def test_in_force_is_told_of_what_answers_alone(tmp_path: Path) -> None:
    root, gate = tmp_path / "repository", tmp_path / "gate"
    gate.touch()
    publish_fake(root, "digits", 1, content=b"a run waits while %b is there" % str(gate).encode())
    publish_fake(root, "digits", 2, judged=False)
    publish_fake(root, "digits", 3)
    with with_admin(root, tmp_path, versions_per_model=1) as (running, client):
        refused = ask(client, "promote", version=2, wait_s=20)
        assert (refused["in_force"], refused["document"]["labels"]) == (False, {"stable": 2})
        shown = client.get("/digits").json()["served"]
        assert "generation 1 holds version 2 as stable, which is failed (unjudged" in shown["problem"]

        ask(client, "rollback", version=1)
        wait_until(lambda: gate.read_text(), what="version 1 warms up")
        assert ask(client, "objective", objective_ms=500, wait_s=1)["in_force"] is False
        gate.unlink()
        assert ask(client, "objective", objective_ms=None, wait_s=20)["in_force"] is True
        assert running.client.get("/v1/models/digits", headers=READER).json()["default_version"] == "1"


@pytest.mark.parametrize(
    ("change", "body", "status", "reason"),
    [
        ("promote", {"version": 9}, 422, "has no version 9"),
        ("promote", {"version": 1, "expected_generation": 0}, 409, "look again"),
        ("promote", {"version": 1, "follow": True}, 422, "one of them"),
        ("promote", {"version": "one"}, 422, "version: "),
        ("promote", {"label": "nobody"}, 422, "has no label 'nobody'"),
        ("objective", {"objective_ms": 1e-9}, 422, "objective_ms: "),
        ("canary", {"version": 2, "share": 1.5}, 422, "share: "),
        ("canary", {"version": 2, "shares": 0.5}, 422, "shares: "),
        ("label", {"label": "stable", "version": 1}, 422, "by a promotion or a rollback"),
        ("start", {"version": 2, "steps": [{"share": 0.5}, {"share": 0.1}]}, 400, "must grow"),
        ("unknown", {}, 404, "POST /admin/v1/models/digits/unknown"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words_and_changes_nothing(
    server: tuple[Server, httpx.Client], change: str, body: dict[str, Any], status: int, reason: str
) -> None:
    _, client = server
    ask(client, "promote", version=3)
    before = client.get("/digits").json()["document"]

    assert reason in ask(client, change, status, **body)["detail"]
    assert client.get("/digits").json()["document"] == before


def test_other_models_and_bodies_are_refused(server: tuple[Server, httpx.Client]) -> None:
    _, client = server

    unknown = client.post("/nobody/promote", json={"version": 1})
    large = client.post("/digits/promote", content=b"{" + b" " * 70_000 + b"}")
    endless = client.post("/digits/promote", content=iter([b"{}"]))
    broken = client.post("/digits/promote", content=b"{", headers={"Content-Type": "application/json"})
    deep = client.post("/digits/promote", content=b"[" * 60_000, headers={"Content-Type": "application/json"})
    before = client.get("/digits").json()["document"]
    twice = client.post(
        "/digits/promote", content=b'{"version": 1, "version": 3}', headers={"Content-Type": "application/json"}
    )

    assert (unknown.status_code, large.status_code, endless.status_code, broken.status_code) == (404, 413, 400, 422)
    assert (deep.status_code, twice.status_code, twice.json()["detail"]) == (
        400,
        422,
        "version: the body gives it twice",
    )
    assert client.get("/digits").json()["document"] == before


def test_a_program_without_scope_read_is_told_so_in_the_words_of_the_server(
    server: tuple[Server, httpx.Client], root: Path, tmp_path: Path
) -> None:
    running, _ = server
    (tmp_path / "admin").write_text("admin-key-alone")
    options = ["--repository", str(root), "--url", running.base_url, "--key-file", str(tmp_path / "admin"), "--wait"]
    ended = call_saccade("rollout", "promote", "digits", "3", *options)

    assert ended.returncode == 1
    assert "about 'digits': 403 Key refused: this key may not read" in ended.stderr


def test_only_keys_of_scope_admin_on_the_port_of_its_own(server: tuple[Server, httpx.Client]) -> None:
    running, client = server
    url = f"{client.base_url}digits"

    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=READER).status_code == 403
    assert httpx.post(f"{url}/promote", headers=READER, json={"version": 1}).status_code == 403
    assert running.client.get("/admin/v1/models/digits", headers=ADMIN).status_code == 404
    assert httpx.get(f"{str(client.base_url).partition('/admin')[0]}/v1/models", headers=ADMIN).status_code == 404


def test_its_document_names_every_change(server: tuple[Server, httpx.Client]) -> None:
    _, client = server

    paths = client.get(f"{str(client.base_url).partition('models')[0]}openapi.json").json()["paths"]

    assert {path.rpartition("/")[2] for path, methods in paths.items() if "post" in methods} == {
        *("label", "canary", "objective", "promote", "rollback", "shadow", "start")
    }


def test_a_port_without_keys_refuses_to_start(root: Path) -> None:
    done = call_saccade("serve", "--repository", str(root), "--backend", "fake", "--admin-port", "18999")

    assert done.returncode != 0
    assert "SACCADE_ADMIN_PORT needs SACCADE_API_KEYS_FILE" in done.stderr
