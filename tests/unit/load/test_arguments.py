"""Wrong arguments of the measurements are told in one line, before anything is measured."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.load.arguments import repository_with_versions
from tests.support.versions import publish_fake


@pytest.mark.parametrize("wrong", ["-1", "0", "nan", "inf", "soon"])
@pytest.mark.parametrize("tool", ["delays", "noop", "replicas"])
def test_seconds_must_be_above_0(
    tool: str, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"argument --seconds: '{wrong}' is not a number of seconds above 0" in refused(
        tool, monkeypatch, capsys, f"--seconds={wrong}"
    )


@pytest.mark.parametrize("tool", ["bench", "forms", "runtimes", "swaps"])
def test_a_repository_must_be_there_and_hold_a_version(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    assert f"argument --repository: cannot read the model repository {missing}" in refused(
        tool, monkeypatch, capsys, "--repository", str(missing)
    )
    assert "holds no version of a model" in refused(tool, monkeypatch, capsys, "--repository", str(tmp_path))


def test_swaps_need_a_version_of_their_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_fake(tmp_path, "digits", 1)

    assert repository_with_versions(str(tmp_path)) == tmp_path
    assert "holds no version of 'other'" in refused(
        "swaps", monkeypatch, capsys, "--repository", str(tmp_path), "--model", "other"
    )


def test_the_scheduler_takes_no_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --fast" in refused("scheduler", monkeypatch, capsys, "--fast")


def refused(tool: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line that the tool says when it ends with 2."""
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    with pytest.raises(SystemExit) as ended:
        import_module(f"tests.load.{tool}").main()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]
