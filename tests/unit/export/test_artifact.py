"""Content addressing. Promises: equal identities meet, anything else parts them, and damage is never reused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saccade.export.artifact import (
    RECORD_NAME,
    Artifact,
    StepIdentity,
    building,
    digest_of,
    finish,
    finished_artifact,
)

IDENTITY = StepIdentity("wrap", {"a": 1, "b": [2]}, {"x": "1", "y": "2"}, {"torch": "2"}, "source")


def make(directory: Path, content: str = "made", digest: str = "d1") -> Artifact:
    with building(directory) as scratch:
        (scratch / "file").write_text(content)
        return finish(scratch, directory, digest, {"fact": 1}, 0.5)


def test_digest_ignores_the_order_of_keys() -> None:
    turned = replace(IDENTITY, config={"b": [2], "a": 1}, inputs={"y": "2", "x": "1"})

    assert digest_of(turned) == digest_of(IDENTITY)


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "reference"},
        {"config": {"a": 2, "b": [2]}},
        {"inputs": {"x": "1", "y": "3"}},
        {"tools": {"torch": "3"}},
        {"sources": "other"},
    ],
)
def test_every_part_of_the_identity_changes_the_digest(changed: dict[str, object]) -> None:
    assert digest_of(replace(IDENTITY, **changed)) != digest_of(IDENTITY)  # type: ignore[arg-type]  # parametrized


def test_finished_artifact_is_found_again(tmp_path: Path) -> None:
    made = make(tmp_path / "step-1")

    assert finished_artifact(tmp_path / "step-1", "d1") == made
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_artifact_of_another_identity_is_not_reused(tmp_path: Path) -> None:
    make(tmp_path / "step-1")

    assert finished_artifact(tmp_path / "step-1", "d2") is None


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "record"])
def test_damaged_artifact_is_not_reused(tmp_path: Path, damage: str) -> None:
    directory = make(tmp_path / "step-1").directory
    match damage:
        case "changed":
            (directory / "file").write_text("other")
        case "missing":
            (directory / "file").unlink()
        case "added":
            (directory / "more").write_text("")
        case _:
            (directory / RECORD_NAME).write_text("{")

    assert finished_artifact(directory, "d1") is None


def test_failed_step_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with building(tmp_path / "step-1") as scratch:
            (scratch / "half").write_text("")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_equal_content_has_equal_content_digest_whatever_made_it(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", digest="d1"), make(tmp_path / "b", digest="d2")

    assert first.content == second.content
    assert make(tmp_path / "c", content="other").content != first.content
