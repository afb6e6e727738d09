"""`saccade rollout` on a repository alone: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saccade.service.core import STABLE
from saccade.service.repository.serving_changes import Asked, changed, rolled_back
from tests.support.server import call_saccade
from tests.support.versions import publish_fake


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        publish_fake(tmp_path, "digits", version)
    return tmp_path


def rollout(repository: Path, command: str, *arguments: str, code: int = 0) -> str:
    ended = call_saccade("rollout", command, "digits", *arguments, "--repository", str(repository))
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def stable(repository: Path) -> int | None:
    document = json.loads((repository / "digits" / "serving.json").read_text())
    found: int | None = document["labels"].get("stable")
    return found


def test_rollback_goes_to_what_was_stable_before_and_back(repository: Path) -> None:
    for version in ("1", "3"):
        rollout(repository, "promote", version)
    rollout(repository, "rollback")
    assert stable(repository) == 1
    rollout(repository, "rollback")
    assert stable(repository) == 3


def test_rollback_of_a_model_that_follows_never_goes_to_the_newest(repository: Path) -> None:
    rollout(repository, "promote", "3")
    rollout(repository, "promote", "--follow")
    assert stable(repository) is None

    rollout(repository, "rollback")

    assert stable(repository) == 2


def test_rollback_without_anything_before_says_what_there_is(repository: Path) -> None:
    rollout(repository, "promote", "1")

    assert "no version before 1; there are: 1, 2, 3" in rollout(repository, "rollback", code=1)


def test_rollback_passes_over_what_no_server_would_load(repository: Path) -> None:
    for version in ("2", "3"):
        rollout(repository, "promote", version)
    (repository / "digits" / "2" / "manifest.json").write_text("{}")

    rollout(repository, "rollback")
    assert stable(repository) == 1

    rollout(repository, "promote", "3")
    (repository / "digits" / "1" / "manifest.json").unlink()
    refusal = rollout(repository, "rollback", code=1)
    for version in (1, 2):
        assert f"version {version} is passed over: " in refusal
    assert stable(repository) == 3


def test_rollback_passes_over_what_a_server_has_given_up_unless_it_is_named(repository: Path) -> None:
    asked = Asked(repository, "digits", "someone")

    assert changed(asked, rolled_back(given_up={"2": "it killed its worker"})).labels == {STABLE: 1}
    assert changed(asked, rolled_back(2, {"2": "it killed its worker"})).labels == {STABLE: 2}


def test_rollback_and_promotion_of_the_canary_take_it_away(repository: Path) -> None:
    rollout(repository, "promote", "1")
    rollout(repository, "canary", "2", "--share", "0.2")
    assert "20% to 2" in rollout(repository, "status")
    rollout(repository, "promote")
    assert (stable(repository), "20%" in rollout(repository, "status")) == (2, False)

    rollout(repository, "canary", "3")
    rollout(repository, "rollback")
    assert (stable(repository), "5%" in rollout(repository, "status")) == (1, False)


def test_history_says_who_and_why(repository: Path) -> None:
    rollout(repository, "promote", "1", "--by", "someone", "--reason", "the newest is worse")

    (document,) = json.loads(rollout(repository, "history", "--json"))
    assert (document["changed_by"], document["reason"], document["generation"]) == (
        "someone",
        "the newest is worse",
        1,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("label", "stable", "2"), 2, "saccade rollout promote digits 2"),
        (("promote",), 2, "there is no canary"),
        (("promote", "newest"), 2, "is no version number"),
        (("label", "trial", "4"), 1, "has no version 4"),
        (("promote", "2", "--expected-generation", "7"), 1, "expected generation 7, there is 0"),
        (("promote", "2", "--serving-dir", "/etc/serving"), 1, "change it where it comes from"),
    ],
)
def test_change_that_makes_no_sense_is_refused_in_words(
    repository: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    command, *others = arguments

    assert reason in rollout(repository, command, *others, code=code)
    assert not (repository / "digits" / "serving.json").exists()


def test_objective_is_written_kept_by_other_changes_and_taken_away(repository: Path) -> None:
    def written() -> float | None:
        found: float | None = json.loads((repository / "digits" / "serving.json").read_text()).get("objective_ms")
        return found

    assert "answers within 200 ms" in rollout(repository, "objective", "200")
    rollout(repository, "promote", "2")
    assert written() == 200.0
    rollout(repository, "objective", "none")
    assert (written(), stable(repository)) == (None, 2)
    for wrong in ("soon", "nan", "1e-9", "inf", "3600001"):
        assert f"'{wrong}' is not a number between 1 and 3600000 ms" in rollout(repository, "objective", wrong, code=2)
