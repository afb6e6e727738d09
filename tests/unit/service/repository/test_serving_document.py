"""Desired state: what is refused and why, who may write, and what the history keeps."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from saccade.service.errors import RepositoryError
from saccade.service.repository.serving_document import (
    ServingDocument,
    ServingRefused,
    document_bytes,
    document_from,
    document_path,
    ensure_present,
    read_document,
)
from saccade.service.repository.serving_history import KEPT, ServingConflict, serving_history, write_document

HOLD_2 = {"generation": 4, "policy": "hold", "labels": {"stable": 2, "old": 1}}


def refused(**document: Any) -> str:
    with pytest.raises(ServingRefused) as found:
        document_from(orjson.dumps(document), "serving.json")
    return str(found.value)


def held(generation: int, stable: int = 1) -> ServingDocument:
    return ServingDocument(generation=generation, policy="hold", labels={"stable": stable})


def test_document_comes_back_as_it_was_written() -> None:
    document = document_from(orjson.dumps({**HOLD_2, "canary": {"version": 3, "share": 0.1}}), "serving.json")

    assert document_from(document_bytes(document), "again") == document
    assert document.named == {1, 2, 3}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 2}, "reads schema_version 1"),
        ({"generation": 0}, "generation"),
        ({"generation": "4"}, "generation"),
        ({"weights": {}}, "weights"),
        ({"policy": "latest"}, "policy"),
        ({"objective_ms": 0}, "objective_ms"),
        ({"objective_ms": 1e-9}, "objective_ms"),
        ({"objective_ms": "200"}, "objective_ms"),
        ({"labels": {}}, "`hold` needs a label `stable`"),
        ({"policy": "follow"}, "contradict each other"),
        ({"labels": {"stable": 2, "Old!": 1}}, "labels"),
        ({"labels": {"stable": 2.5}}, "labels.stable"),
        ({"labels": {"stable": 2**63}}, "labels.stable"),
        ({"labels": {"stable": True}}, "labels.stable"),
        ({"canary": {"version": 3, "share": 1.01}}, "canary.share"),
        ({"canary": {"version": 3, "share": 0}}, "canary.share"),
        ({"canary": {"version": 2, "share": 0.5}}, "cannot be stable"),
        ({"shadow": {"version": 2, "sample": 0.5}}, "cannot be its own shadow"),
        ({"shadow": {"version": 3, "sample": 0}}, "shadow.sample"),
        ({"rollout": {"steps": []}}, "rollout.steps"),
        ({"rollout": {"steps": [{"share": 0.5}, {"share": 0.1}]}}, "must grow"),
        ({"rollout": {"steps": [{"share": 0.5}], "step": 1}}, "be one of them"),
        ({"rollout": {"steps": [{"share": 0.5}]}}, "a canary with a share of 0.5"),
        ({"rollout": {"steps": [{"share": 0.5}], "limits": {"slower": 1.0}}}, "rollout.limits.slower"),
        ({"grace_s": -1}, "grace_s"),
        ({"grace_s": 1e9}, "grace_s"),
    ],
)
def test_document_that_contradicts_the_schema_or_itself_is_refused_by_name(
    changes: dict[str, Any], reason: str
) -> None:
    assert reason in refused(**{**HOLD_2, **changes})


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b" " * 70_000])
def test_what_is_no_document_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "digits").mkdir()
    path = document_path(tmp_path, None, "digits")
    path.write_bytes(raw)

    with pytest.raises(ServingRefused, match=r"serving\.json"):
        read_document(path)


def test_document_that_names_an_absent_version_says_what_there_is() -> None:
    with pytest.raises(ServingRefused, match="generation 4 names version 2; there are: 1, 3"):
        ensure_present(document_from(orjson.dumps(HOLD_2), "x"), [1, 3])


def test_mounted_config_map_is_read_through_its_links_before_and_after_a_swap(tmp_path: Path) -> None:
    # given the layout of a ConfigMap: the name is a link, and so is the folder that it leads through
    for name, generation in (("..first", 1), ("..second", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "digits.json").write_bytes(document_bytes(held(generation)))
    os.symlink("..first", tmp_path / "..data")
    os.symlink("..data/digits.json", tmp_path / "digits.json")
    path = document_path(Path("unused"), tmp_path, "digits")
    assert read_document(path) == held(1)

    os.symlink("..second", tmp_path / "..new")
    os.rename(tmp_path / "..new", tmp_path / "..data")

    assert read_document(path) == held(2)
    assert read_document(document_path(Path("unused"), tmp_path, "letters")) is None


def test_of_writers_that_saw_the_same_generation_one_succeeds(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()

    def write(stable: int) -> bool:
        try:
            write_document(tmp_path, "digits", held(1, stable), 0)
        except ServingConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(1, 9)))

    assert written.count(True) == 1
    assert read_document(document_path(tmp_path, None, "digits")) == held(1, written.index(True) + 1)


def test_history_keeps_the_newest_documents(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    for generation in range(1, KEPT + 4):
        write_document(tmp_path, "digits", held(generation), generation - 1)

    kept = [document.generation for document in serving_history(tmp_path, "digits")]

    assert kept == list(range(KEPT + 3, 3, -1))


def test_damaged_document_can_be_replaced_by_the_generation_after_the_history(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    write_document(tmp_path, "digits", held(1), 0)
    document_path(tmp_path, None, "digits").write_text("{")

    write_document(tmp_path, "digits", held(2), 1)

    assert read_document(document_path(tmp_path, None, "digits")) == held(2)


def test_disk_that_cannot_be_written_leaves_the_old_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    write_document(tmp_path, "digits", held(1), 0)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RepositoryError, match="No space left on device"):
        write_document(tmp_path, "digits", held(2), 1)

    monkeypatch.undo()
    assert read_document(document_path(tmp_path, None, "digits")) == held(1)
