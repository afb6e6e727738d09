"""Shadows and automatic rollouts in a running server: what is as good becomes stable, what is worse is taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import red_png
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.traffic import flowing
from tests.support.versions import publish_fake

MODEL = "digits"


def rollout(repository: Path, *arguments: str) -> str:
    command, *others = arguments
    ended = call_saccade("rollout", command, MODEL, *others, "--repository", str(repository))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_fake(tmp_path / "repository", MODEL, 1)
    return tmp_path / "repository"


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    with running_server(repository, tmp_path, slots=64) as running:
        yield running


def document(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repository / MODEL / "serving.json").read_text())
    return found


def start(server: Server, repository: Path, *options: str) -> None:
    patient = ("--min-time", "1", "--min-requests", "50", "--more-errors", "0.05", "--slower", "3", "--wait")
    rollout(repository, "start", "2", "--url", server.base_url, *patient, *options)


def ended(repository: Path) -> dict[str, Any]:
    wait_until(lambda: "rollout" not in document(repository), 60.0, "the rollout ends")
    return document(repository)


def test_shadow_is_asked_and_never_answers(server: Server, repository: Path) -> None:
    publish_fake(repository, MODEL, 2, content=b"one answer of 2 is wrong")
    rollout(repository, "promote", "1", "--url", server.base_url, "--wait")
    rollout(repository, "shadow", "2", "--sample", "0.5", "--url", server.base_url, "--wait")

    with flowing(server, MODEL) as statuses:
        wait_until(lambda: server.metric("saccade_shadows_total", outcome="compared") >= 40, what="shadows ran")
        wait_until(lambda: (repository / ".shadow").exists(), what="disagreements are kept")

    assert {*statuses} == {200}
    assert server.metric("saccade_requests_total", version="2") == 0
    pair = {"model": MODEL, "stable": "1", "candidate": "2"}
    count = server.metric("saccade_shadow_agreement_ratio_count", **pair)
    assert 0.3 < server.metric("saccade_shadow_agreement_ratio_sum", **pair) / count < 0.7
    assert "0 became 9" in rollout(repository, "diff")
    found = json.loads(rollout(repository, "diff", "--json"))
    assert (len(found) <= 20, found[0]["agreement"], found[0]["picture"]) == (True, 0.0, "")

    rollout(repository, "shadow", "--off", "--url", server.base_url, "--wait")
    assert "shadow" not in document(repository)


def test_version_as_good_becomes_stable_by_itself(server: Server, repository: Path) -> None:
    publish_fake(repository, MODEL, 2)
    start(server, repository, "--steps", "20%,50%", "--sample", "0.5")

    with flowing(server, MODEL) as statuses:
        found = ended(repository)

    assert {*statuses} == {200}
    assert (found["labels"], found["policy"], found["generation"]) == ({"stable": 2}, "hold", 3)
    assert "canary" not in found
    history = json.loads(rollout(repository, "history", "--json"))
    assert [each["changed_by"].partition(" ")[0] for each in history[:2]] == ["saccade", "saccade"]
    assert "agreement 1.0000" in history[0]["reason"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"one answer of 5 is wrong", "agreement: "), (b"an image takes 300 ms", "median: ")],
    ids=["wrong", "slow"],
)
def test_worse_version_is_taken_back_with_its_reason(
    server: Server, repository: Path, content: bytes, reason: str
) -> None:
    publish_fake(repository, MODEL, 2, content=content)
    start(server, repository, "--steps", "20%,50%", "--sample", "0.5")

    with flowing(server, MODEL, clients=1) as statuses:  # who waits behind a slow canary is slow as well
        found = ended(repository)

    assert {*statuses} == {200}
    assert found["labels"] == {"stable": 1}
    assert found["reason"].startswith(reason)
    assert {"canary", "shadow"} & found.keys() == set()


def test_version_that_cannot_be_loaded_is_taken_back(server: Server, repository: Path) -> None:
    publish_fake(repository, MODEL, 2, content=b"crash on load")
    rollout(repository, "start", "2", "--steps", "50%")

    found = ended(repository)

    assert found["labels"] == {"stable": 1}
    # Where it is loaded before the document is read, it is on no trial yet and its second kill counts.
    assert found["reason"].startswith("version 2 was quarantined: it killed its worker")
    assert found["reason"].endswith("while it was loaded")


def test_quarantined_version_is_taken_back(server: Server, repository: Path) -> None:
    publish_fake(repository, MODEL, 2, content=b"one image of 60 crashes")
    start(server, repository, "--steps", "50%", "--sample", "0", "--min-time", "60")

    with flowing(server, MODEL, clients=1):
        found = ended(repository)

    assert found["labels"] == {"stable": 1}
    assert found["reason"].startswith("version 2 was quarantined: ")


def test_person_wins_over_the_rollout(server: Server, repository: Path) -> None:
    publish_fake(repository, MODEL, 2)
    start(server, repository, "--min-time", "3600")

    rollout(repository, "rollback", "1", "--url", server.base_url, "--wait")

    assert {"canary", "shadow", "rollout"} & document(repository).keys() == set()


def test_servers_of_one_repository_judge_by_what_all_of_them_counted(
    server: Server, repository: Path, tmp_path: Path
) -> None:
    publish_fake(repository, MODEL, 2)
    (tmp_path / "second").mkdir()
    with running_server(repository, tmp_path / "second") as second:
        servers = (server, second)
        rollout(
            repository, "start", "2", "--steps", "50%,60%", "--sample", "0", "--min-requests", "80", "--min-time", "0"
        )
        for each in servers:
            each.wait_state(MODEL, 2, "ready")
            wait_until(lambda each=each: each.events("rollout_judged"), what="its requests count")  # type: ignore[misc]
        for number in range(100):  # of 100, about half go to the canary: too few for one server alone
            for each in servers:
                assert each.predict(MODEL, red_png(number)).status_code == 200
        wait_until(lambda: document(repository)["rollout"]["step"] == 1, 20.0, "the step goes on")
        counts = repository / MODEL / ".serving" / "counts"  # left again by each server, for the step that follows
        wait_until(lambda: len({path.name.partition("-")[2] for path in counts.iterdir()}) == 2, 20.0, "both count")

    seen = int(document(repository)["reason"].partition(" ")[0])
    assert 80 <= seen <= 200
