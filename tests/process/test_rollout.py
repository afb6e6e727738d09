"""Labels, rollbacks and canaries by the program that changes them, while requests flow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import red_png
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.traffic import traffic
from tests.support.versions import publish_fake

MODEL = "digits"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for version in (1, 2, 3):
        publish_fake(root, MODEL, version)
    return root


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    with running_server(repository, tmp_path, versions_per_model=2, repository_poll_ms=1000) as running:
        yield running


def rollout(server: Server, repository: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command, *others = arguments
    options = ["--repository", str(repository)]
    if command not in ("history",):
        options += ["--url", server.base_url]
    ended = call_saccade("rollout", command, MODEL, *others, *options)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def answering(server: Server, path: str = "predict", **arguments: Any) -> str:
    response = server.predict(MODEL, red_png(7), path=path, **arguments)
    assert response.status_code == 200, response.text
    return str(response.json()["version"])


def test_labels_are_switched_and_taken_away_without_a_failed_request(server: Server, repository: Path) -> None:
    assert server.model(MODEL)["serving"] is None
    with traffic(server, MODEL) as seen:
        rollout(server, repository, "label", "trial", "1", "--wait")  # older than what is kept, so it is loaded
        assert answering(server, "labels/trial/predict") == "1"
        rollout(server, repository, "label", "trial", "2", "--wait", "--reason", "1 was a mistake")
        assert answering(server, "labels/trial/predict") == "2"
        rollout(server, repository, "label", "trial", "none", "--wait")
    assert seen.versions == ["3"]
    refused = server.predict(MODEL, red_png(1), path="labels/trial/predict")
    assert (refused.status_code, "there are: stable" in refused.json()["detail"]) == (404, True)
    assert server.model(MODEL)["serving"]["generation"] == 3


def test_objective_is_followed_and_shown(server: Server, repository: Path) -> None:
    rollout(server, repository, "objective", "250", "--wait")
    assert server.model(MODEL)["serving"]["objective_ms"] == 250.0
    assert answering(server) == "3"
    rollout(server, repository, "objective", "none", "--wait")
    assert server.model(MODEL)["serving"]["objective_ms"] is None


def test_promotion_and_rollback_switch_all_requests_and_need_no_load(server: Server, repository: Path) -> None:
    with traffic(server, MODEL) as seen:
        rollout(server, repository, "promote", "2", "--wait")
        rollout(server, repository, "promote", "3", "--wait")
        instances = [item["version"] for item in server.model(MODEL)["versions"]]
        assert instances == ["3", "2"]  # the old stable stays loaded
        loads = len(server.events("version_ready"))

        rollout(server, repository, "rollback", "--wait", "--reason", "wrong answers")
        wait_until(lambda: seen.versions[-1] == "2", what="version 2 answers again")

    assert seen.versions == ["3", "2", "3", "2"]
    assert len(server.events("version_ready")) == loads
    shown = server.model(MODEL)
    assert (shown["default_version"], shown["labels"]) == ("2", {"stable": "2"})
    assert (shown["serving"]["policy"], shown["serving"]["reason"]) == ("hold", "wrong answers")
    history = json.loads(rollout(server, repository, "history", "--json").stdout)
    assert [each["labels"]["stable"] for each in history] == [2, 3, 2]

    # and a version that appears changes nothing until the policy is to follow again
    publish_fake(repository, MODEL, 4)
    wait_until(lambda: (repository / MODEL / "4").exists())
    assert answering(server) == "2"
    rollout(server, repository, "promote", "--follow", "--wait")
    server.wait_state(MODEL, 4, "ready")
    assert answering(server) == "4"


def test_version_just_published_can_be_promoted_at_once(server: Server, repository: Path) -> None:
    publish_fake(repository, MODEL, 4)
    rollout(server, repository, "promote", "4", "--wait")

    assert answering(server) == "4"
    assert server.events("serving_refused") == []


def test_rollback_without_any_document_goes_to_the_version_before(server: Server, repository: Path) -> None:
    rollout(server, repository, "rollback", "--wait")

    assert answering(server) == "2"
    assert "stable is 2" in rollout(server, repository, "status", "--served").stdout


def test_canary_gets_its_share_by_key_and_promotion_ends_it(server: Server, repository: Path) -> None:
    rollout(server, repository, "promote", "2", "--wait")
    rollout(server, repository, "canary", "3", "--share", "0.5", "--wait")

    first = [answering(server, headers={"X-Routing-Key": f"user-{number}"}) for number in range(60)]
    again = [answering(server, headers={"X-Routing-Key": f"user-{number}"}) for number in range(60)]

    assert first == again
    assert 15 <= first.count("3") <= 45
    assert answering(server, "labels/canary/predict") == "3"
    rollout(server, repository, "promote", "--wait")
    assert {answering(server) for _ in range(10)} == {"3"}
    assert server.model(MODEL)["serving"]["canary"] is None


def test_bad_documents_are_refused_with_their_reason_while_the_last_good_one_rules(
    server: Server, repository: Path
) -> None:
    rollout(server, repository, "promote", "2", "--wait")

    for text, reason in (("{", "JSON"), (json.dumps({"generation": 9, "labels": {"next": 7}}), "names version 7")):
        (repository / MODEL / "serving.json").write_text(text)
        wait_until(lambda reason=reason: reason in server.model(MODEL)["serving"]["problem"], what=reason)
        assert answering(server) == "2"
        assert server.model(MODEL)["serving"]["generation"] == 1


def test_config_map_rules_and_its_swap_is_followed(repository: Path, tmp_path: Path) -> None:
    # given a mounted ConfigMap: what is read is a link that leads through another one, which is swapped
    mounted = tmp_path / "serving"
    for name, version in (("..first", 1), ("..second", 2)):
        document = {"generation": version, "policy": "hold", "labels": {"stable": version}}
        (mounted / name).mkdir(parents=True)
        (mounted / name / f"{MODEL}.json").write_text(json.dumps(document))
    (mounted / "..data").symlink_to("..first")
    (mounted / f"{MODEL}.json").symlink_to(f"..data/{MODEL}.json")
    with running_server(repository, tmp_path, serving_dir=mounted) as server, traffic(server, MODEL) as seen:
        assert answering(server) == "1"

        (mounted / "..new").symlink_to("..second")
        (mounted / "..new").rename(mounted / "..data")

        wait_until(lambda: seen.versions[-1] == "2", what="version 2 answers")
        assert server.model(MODEL)["serving"]["generation"] == 2


def test_changes_that_no_server_could_follow_are_refused_before_they_are_written(
    server: Server, repository: Path
) -> None:
    (repository / MODEL / "3" / "model.onnx").write_bytes(b"tampered")

    for arguments, reason in (
        (("promote", "9"), "has no version 9"),
        (("promote", "3"), "changed after its gate"),
        (("label", "Bad", "1"), "labels"),
        (("label", "trial", "none"), "no label 'trial'"),
        (("label", "trial", "1", "--expected-generation", "4"), "expected generation 4, there is 0"),
        (("canary", "1", "--share", "1.5"), "canary.share"),
    ):
        assert reason in rollout(server, repository, *arguments, code=1).stderr
    assert not (repository / MODEL / "serving.json").exists()
