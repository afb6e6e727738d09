"""The repository seen from the exporter. Promises: whole versions only, taken numbers are never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.export.errors import PublishError
from saccade.export.publish.repository import add_version, newest_manifest, next_version, version_numbers


def scratch(model_dir: Path, content: str = "made") -> Path:
    directory = model_dir / ".publishing-x"
    directory.mkdir(parents=True)
    (directory / "file").write_text(content)
    return directory


def test_first_version_is_number_one_and_the_next_follows(tmp_path: Path) -> None:
    numbers: list[int] = []

    assert add_version(tmp_path, scratch(tmp_path), numbers.append) == 1
    assert add_version(tmp_path, scratch(tmp_path), numbers.append) == 2
    assert numbers == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_number_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    seen: list[int] = []

    def finish(number: int) -> None:
        if not seen:
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "file").write_text("other publisher")
        seen.append(number)

    assert add_version(tmp_path, scratch(tmp_path), finish) == 2
    assert (tmp_path / "1" / "file").read_text() == "other publisher"
    assert seen == [1, 2]


def test_failure_before_the_rename_publishes_nothing(tmp_path: Path) -> None:
    def finish(number: int) -> None:
        raise RuntimeError(f"no manifest for {number}")

    unfinished = scratch(tmp_path)
    with pytest.raises(RuntimeError):
        add_version(tmp_path, unfinished, finish)

    assert version_numbers(tmp_path) == []


@pytest.mark.parametrize("name", [".publishing-x", "01", "latest", "٣", "-1"])
def test_only_plain_numbers_are_versions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "7").mkdir()

    assert version_numbers(tmp_path) == [7]


def test_damaged_versions_have_no_manifest_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "manifest.json").write_text("{")

    assert newest_manifest(tmp_path, "model") is None
    assert newest_manifest(tmp_path, "absent") is None


@pytest.mark.parametrize("was_there", [False, True])
def test_folder_of_a_model_goes_with_a_failed_publication_that_made_it(tmp_path: Path, was_there: bool) -> None:
    if was_there:
        (tmp_path / "model").mkdir()

    with pytest.raises(PublishError), next_version(tmp_path / "model"):
        raise PublishError("no manifest")

    assert (tmp_path / "model").exists() == was_there


def test_folder_of_a_model_stays_with_the_version_in_it(tmp_path: Path) -> None:
    with next_version(tmp_path / "model") as made:
        (made / "file").write_text("made")
        add_version(tmp_path / "model", made, lambda number: None)

    assert version_numbers(tmp_path / "model") == [1]
