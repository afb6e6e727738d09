"""Versions named by setting, and directories that come, go and change under a server's feet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from saccade.service.backends.fake_backend import CRASH_ON_LOAD
from tests.support.images import red_png
from tests.support.server import Server, run_saccade, running_server, wait_until
from tests.support.versions import publish_fake, remove

STAMP = "20261129013200123456"  # of 20 digits: more than 64 bits


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for version in (1, 2, 3):
        publish_fake(root, "digits", version)
    publish_fake(root, "letters", 1, Task.DETECT)
    return root


@pytest.fixture
def pinned(repository: Path, tmp_path: Path) -> Iterator[Server]:
    with running_server(repository, tmp_path, serve_versions="digits=2", repository_poll_ms=50) as running:
        yield running


def test_pinned_version_answers_alone_and_stays_whatever_happens_to_its_directory(
    pinned: Server, repository: Path
) -> None:
    # given version 2 of three, and models that no setting names
    assert pinned.predict("digits", red_png(1)).json()["version"] == "2"
    assert pinned.predict("letters", red_png(1)).json()["version"] == "1"
    assert [version["version"] for version in pinned.model("digits")["versions"]] == ["2"]

    # when a newer one appears and its own directory is removed
    publish_fake(repository, "digits", 4)
    publish_fake(repository, "letters", 2, Task.DETECT)
    remove(repository / "digits" / "2")
    pinned.wait_state("letters", 2, "ready")

    # then it goes on answering, and says so
    version = wait_until(lambda: noted(pinned, "digits", 2), what="the removal is shown")
    assert "its directory was removed" in version["notice"]
    assert pinned.predict("digits", red_png(1)).json()["version"] == "2"
    assert pinned.events("named_version_removed")[0]["versions"] == ["digits/2"]

    # and a directory that comes back with other bytes is said to be another
    publish_fake(repository, "digits", 2, content=b"other weights")
    wait_until(lambda: "replaced" in (noted(pinned, "digits", 2) or {"notice": ""})["notice"], what="other bytes shown")
    assert pinned.predict("digits", red_png(1)).json()["version"] == "2"


def test_repository_that_turns_empty_takes_nothing_away(pinned: Server, repository: Path) -> None:
    for model in ("digits", "letters"):
        shutil.rmtree(repository / model)

    wait_until(lambda: noted(pinned, "letters", 1), what="the empty repository is shown")
    assert pinned.predict("letters", red_png(1)).status_code == 200
    assert pinned.is_ready()
    assert [event["kept"] for event in pinned.events("repository_empty")] == [2]

    # when it is filled again, it is followed again
    publish_fake(repository, "letters", 2, Task.DETECT)
    pinned.wait_state("letters", 2, "ready")
    wait_until(lambda: pinned.version("letters", 1) is None, what="version 1 is unloaded")


def test_same_number_with_other_bytes_is_told_and_what_was_verified_serves_on(pinned: Server, repository: Path) -> None:
    before = pinned.version("letters", 1)
    assert before is not None
    assert before["notice"] == ""

    shutil.copytree(repository / "letters" / "1", repository / "letters" / ".new")
    (repository / "letters" / ".new" / "manifest.json").write_bytes(b"{}")
    (repository / "letters" / "1").rename(repository / "letters" / ".old")
    (repository / "letters" / ".new").rename(repository / "letters" / "1")

    after = wait_until(lambda: noted(pinned, "letters", 1), what="the other bytes are shown")
    assert "its files were replaced" in after["notice"]
    assert after["digest"] == before["digest"]
    assert pinned.predict("letters", red_png(1)).status_code == 200


def test_directory_named_by_a_time_stamp_is_refused_and_freezes_nothing(pinned: Server, repository: Path) -> None:
    (repository / "letters" / STAMP).mkdir()
    publish_fake(repository, "letters", 2, Task.DETECT)

    pinned.wait_state("letters", 2, "ready")
    (*_, stamped) = pinned.model("letters")["versions"]
    assert (stamped["version"], stamped["state"]) == (STAMP, "failed")
    assert "a version is a number up to" in stamped["reason"]
    assert pinned.predict("letters", red_png(1)).json()["version"] == "2"


@pytest.mark.parametrize(
    ("pins", "reason"),
    [
        ("digits=9", "no version 9 of 'digits'; its versions: 1, 2, 3"),
        ("figures=1", "no version 1 of 'figures'; models: digits, letters"),
        ("letters=1,digits=3", "digits/3 is refused: model.onnx has SHA-256"),
    ],
)
def test_server_does_not_start_without_the_version_that_it_is_to_serve(
    repository: Path, pins: str, reason: str
) -> None:
    (repository / "digits" / "3" / "model.onnx").write_bytes(b"tampered")

    ended = run_saccade("serve", "--repository", str(repository), "--port", "0", "--serve-versions", pins)

    assert ended.returncode == 2
    assert f"SACCADE_SERVE_VERSIONS: {'' if 'refused' in reason else f'{repository} has '}{reason}" in ended.stderr


def test_pod_whose_pinned_version_fails_to_load_is_not_ready(repository: Path, tmp_path: Path) -> None:
    publish_fake(repository, "digits", 4, content=CRASH_ON_LOAD)
    with running_server(repository, tmp_path, wait=False, serve_versions="digits=4") as server:
        server.wait_state("digits", 4, "quarantined")
        server.wait_state("letters", 1, "ready")
        wait_until(lambda: "pinned version 4" in server.readiness().json()["reason"], what="not ready, with the reason")


def noted(server: Server, model: str, version: int) -> dict[str, str] | None:
    """The version as `/v1/models` shows it, once its notice is set."""
    found = server.version(model, version)
    return found if found is not None and found["notice"] else None
