"""`saccade-export clean`. Promises: what each step used last stays, published versions stay, and bytes are counted."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from saccade.export.artifact import RECORD_NAME, building, finish, finished_artifact
from saccade.export.cli.program import app, main

OLD, NEW = "0" * 12, "1" * 12


def made(work: Path, name: str, used: float, size: int = 1000) -> Path:
    directory = work / "owls" / name
    with building(directory) as scratch:
        (scratch / "file").write_bytes(b"x" * size)
        finish(scratch, directory, "digest", {}, 0.1)
    os.utime(directory / RECORD_NAME, (used, used))
    return directory


def cleaned(work: Path, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["clean", "--work", str(work), "--json", *arguments])
    assert result.exit_code == 0, result.output
    document: dict[str, object] = orjson.loads(result.output)
    return document


def test_the_directory_that_a_step_used_last_stays(tmp_path: Path) -> None:
    old, new = made(tmp_path, f"wrap-{OLD}", 2.0), made(tmp_path, f"wrap-{NEW}", 1.0)
    other = made(tmp_path, f"precision.int8-cpu-{OLD}", 1.0)
    assert finished_artifact(new, "digest") is not None  # a run takes it from the cache: now it was used last

    document = cleaned(tmp_path)

    assert document["removed"] == [str(old)]
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_freed_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    record = (made(tmp_path, f"wrap-{OLD}", 1.0, size=5000) / RECORD_NAME).stat().st_size
    made(tmp_path, f"wrap-{NEW}", 2.0)

    result = CliRunner().invoke(app, ["clean", "--work", str(tmp_path)])

    assert result.output.splitlines()[0].startswith("owls: 2 steps")
    assert result.output.splitlines()[-1].startswith(f"freed {5000 + record:,} bytes of")


def test_all_removes_every_step_and_nothing_else(tmp_path: Path) -> None:
    made(tmp_path, f"wrap-{OLD}", 1.0)
    published = tmp_path / "owls" / "3"  # as when --work names a repository
    published.mkdir()
    (published / "manifest.json").write_text("{}")
    foreign = tmp_path / "owls" / f"notes-{OLD}"  # it has the form of a step's name and no record
    foreign.mkdir()

    cleaned(tmp_path, "--all")

    assert sorted(path.name for path in (tmp_path / "owls").iterdir()) == ["3", foreign.name]


def test_a_dry_run_and_other_models_remove_nothing(tmp_path: Path) -> None:
    directory = made(tmp_path, f"wrap-{OLD}", 1.0)

    assert cleaned(tmp_path, "--all", "--dry-run")["removed"] == [str(directory)]
    assert cleaned(tmp_path, "--all", "bats")["removed"] == []
    assert directory.exists()


def test_what_an_interrupted_step_left_is_removed_and_a_running_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = tmp_path / "owls" / f".wrap-{OLD}.{2**22 + 1}"  # Linux gives no process such a number
    dead.mkdir(parents=True)
    assert cleaned(tmp_path)["removed"] == [str(dead)]

    running = tmp_path / "owls" / f".wrap-{OLD}.{os.getpid()}"
    running.mkdir()
    monkeypatch.setattr("sys.argv", ["saccade-export", "clean", "--all", "--work", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 1
    assert "clean when it is done" in capsys.readouterr().err
    assert running.exists()
