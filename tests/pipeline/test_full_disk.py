"""A full disk or memory while a step works or publishes. Promises: no version is added, and a sentence says why."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from saccade.export import pipeline
from saccade.export.artifact import Detail
from saccade.export.cli.program import app
from saccade.export.errors import PublishError
from saccade.export.gate import settled_version
from saccade.export.gate.settled_version import publish_settled
from saccade.export.publish.publish import run_publish
from saccade.export.publish.signing import Signer
from saccade.export.step_table import STEPS
from saccade.export.steps import StepContext
from saccade.service.repository.open import list_versions
from saccade.service.repository.verify import verify_version
from tests.pipeline.published_tiny import FAST_SPARSE, Published
from tests.support.signing import KEY

WriteRecipe = Callable[..., Path]
_SIGNER = Signer(Path("signing-key.pem"), KEY)


class Disk:
    """Counts what is written, and is full from the write `room` on; a file that does not fit is left half written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.room: int | None = None
        self._patch = monkeypatch
        for owner, name in (
            (Path, "mkdir"),
            (Path, "chmod"),
            (Path, "write_bytes"),
            (Path, "rename"),
            (shutil, "copyfile"),
            (np, "savez_compressed"),
            (os, "fsync"),
        ):
            self._limit(owner, name)

    def _limit(self, owner: Any, name: str) -> None:
        write = getattr(owner, name)

        def limited(*arguments: Any, **options: Any) -> Any:
            self.writes += 1
            if self.room is not None and self.writes > self.room:
                if name == "write_bytes":
                    write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(*arguments, **options)

        self._patch.setattr(owner, name, limited)

    def fill_after(self, room: int | None) -> None:
        self.writes, self.room = 0, room


@pytest.fixture
def publishing(write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    """What step `publish` is called with, for a version with evidence; nothing is published yet."""
    contexts: list[StepContext] = []

    def watched(*arguments: Any, **options: Any) -> StepContext:
        contexts.append(StepContext(*arguments, **options))
        return contexts[-1]

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "StepContext", watched)
        places = ["--repository", str(tmp_path / "elsewhere"), "--work", str(tmp_path / "work")]
        recipe = str(write_recipe(variants=["fp32", "fp16"]))
        result = CliRunner().invoke(app, ["run", recipe, *places])
    assert result.exit_code == 0, result.output
    return replace(contexts[-1], repository=tmp_path / "repository", signer=_SIGNER)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_step_that_cannot_write_names_the_folder(
    write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def run(context: StepContext) -> Detail:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pipeline, "STEPS", (replace(STEPS[0], run=run), *STEPS[1:]))
    monkeypatch.setattr(pipeline, "closure_digest", lambda module, packages: "0" * 64)
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work"), "--json"]

    result = CliRunner().invoke(app, ["run", str(write_recipe()), *places])

    assert f"cannot write to {tmp_path}/work/tiny-classifier: {os.strerror(code)}" in result.output
    assert "OSError" not in result.output


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes\nmore")]
)
def test_step_without_enough_memory_names_the_size_of_the_input(
    write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run(context: StepContext) -> Detail:
        raise error

    monkeypatch.setattr(pipeline, "STEPS", (replace(STEPS[0], run=run), *STEPS[1:]))
    monkeypatch.setattr(pipeline, "closure_digest", lambda module, packages: "0" * 64)
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work"), "--json"]

    result = CliRunner().invoke(app, ["run", str(write_recipe()), *places])

    assert "too little memory for an input of 32x32 pixels" in result.output
    assert "Traceback" not in result.output


def test_full_disk_at_any_write_adds_no_version(publishing: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    root = publishing.repository
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        run_publish(publishing)
        count = disk.writes
        shutil.rmtree(root)

        for room in range(count - 1):  # the last one makes the new name last, and comes after the version is there
            disk.fill_after(room)
            with pytest.raises(PublishError, match="No space left on device"):
                run_publish(publishing)

            assert not root.exists() or list_versions(root) == []
            assert not (root / "tiny-classifier").exists()
            assert [path.name for path in root.rglob("*") if path.name.startswith((".publishing", ".truth"))] == []
            disk.fill_after(None)
            shutil.rmtree(root, ignore_errors=True)
    assert count > 40  # as many files are written, and then flushed

    run_publish(publishing)
    verify_version(root / "tiny-classifier" / "1")


def test_full_disk_at_any_write_adds_no_settled_version(
    published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version_dir = Path(shutil.copytree(published.version_dir, tmp_path / "tiny-classifier" / "1"))
    settled = replace(published.settle(FAST_SPARSE, is_recorded=False), version_dir=version_dir)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        made = publish_settled(settled, _SIGNER)
        reports = {path.name: path.read_bytes() for path in made.glob("report*")}
        shutil.rmtree(made)

        def write_drawn_reports(report: object, directory: Path, pictures: object) -> None:
            for name, content in reports.items():
                (directory / name).write_bytes(content)

        patch.setattr(settled_version, "write_report", write_drawn_reports)  # drawing them takes a second
        disk.fill_after(None)
        shutil.rmtree(publish_settled(settled, _SIGNER))
        count = disk.writes
        for room in range(count - 1):
            disk.fill_after(room)
            with pytest.raises(PublishError, match="No space left on device"):
                publish_settled(settled, _SIGNER)

            assert [path.name for path in version_dir.parent.iterdir()] == ["1"]
    assert count > 20
