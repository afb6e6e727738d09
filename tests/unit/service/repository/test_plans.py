"""The plan store. Promises: whole or not at all, what is read is what was put, and nothing outside is touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from saccade.models.contract.manifest import GateCheck, GateDecision
from saccade.models.contract.plans import PLAN_FILE, PLAN_RECORD, TIMING_CACHE, differences
from saccade.service.errors import PlanRefused, RepositoryError
from saccade.service.repository import confined_files
from saccade.service.repository.open import list_versions
from saccade.service.repository.plans import (
    ENGINES_DIRECTORY,
    PlanStore,
    StoredPlan,
    engines_root,
)
from tests.support.plan_records import PLAN, key, record
from tests.support.versions import publish_fake

SECRET = b"s" * 32
GATE = GateDecision(
    accepted=True, checks=(GateCheck(name="plan_precision", passed=True, value=1.0, limit=0.9, detail=""),)
)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def find(store: PlanStore, **changes: object) -> StoredPlan | None:
    return store.find("digits", 1, "int8-trt", key(**changes))


def test_plan_that_was_put_is_found_by_its_key_and_read_back(store: PlanStore) -> None:
    store.put(record(), PLAN, layers=b'{"Layers": []}', timing_cache=b"timings")

    found = find(store)

    assert found is not None
    assert store.read_plan(found) == PLAN
    assert store.read_layers(found) == b'{"Layers": []}'
    place = f"digits/1/int8-trt/{key().place}"
    assert files_below(store.root) == [f"{place}/{n}" for n in ("layers.json", PLAN_FILE, PLAN_RECORD, TIMING_CACHE)]


def test_store_that_was_never_written_is_empty(store: PlanStore) -> None:
    assert find(store) is None
    assert store.all("digits", 1) == ()
    assert store.newest_timings("digits", "int8-trt", key()) == b""


def test_plan_of_a_changed_onnx_file_is_not_found(store: PlanStore) -> None:
    store.put(record(), PLAN)
    store.put(record(key=key(capabilities=("SM90",), runtime_version="1.8")), PLAN)
    wanted = key(onnx_sha256="b" * 64)

    assert store.find("digits", 1, "int8-trt", wanted) is None
    nearest, other = sorted((differences(wanted, plan.record.key) for plan in store.all("digits", 1)), key=len)
    assert nearest == ("onnx_sha256 is aaaaaaaaaaaa…, needed bbbbbbbbbbbb…",)
    assert len(other) == 3


def test_plan_of_the_same_key_that_is_there_stays(store: PlanStore) -> None:
    store.put(record(), PLAN)
    other = b"another build of the same"

    kept = store.put(record(other), other)

    assert store.read_plan(kept) == PLAN


def test_plan_is_replaced_when_asked(store: PlanStore) -> None:
    store.put(record(), PLAN)
    other = b"another build of the same"

    replaced = store.put(record(other), other, replace=True)

    assert store.read_plan(replaced) == other
    assert len(os.listdir(replaced.directory.parent)) == 1


def test_damaged_plan_makes_room_for_a_new_one(store: PlanStore) -> None:
    damaged = store.put(record(), PLAN)
    (damaged.directory / PLAN_FILE).write_bytes(PLAN[:-1])

    assert store.read_plan(store.put(record(), PLAN)) == PLAN


def test_writers_at_once_leave_one_whole_plan(store: PlanStore) -> None:
    contents = [bytes([index]) * 10_000 for index in range(8)]

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda content: store.put(record(content), content), contents))

    assert len({plan.record.plan_sha256 for plan in stored}) == 1
    assert store.read_plan(stored[0]) in contents
    assert os.listdir(stored[0].directory.parent) == [key().place]


def test_full_disk_leaves_no_half_plan(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    written = {"bytes": 0}

    def until_full(descriptor: int, content: bytes) -> int:
        written["bytes"] += len(content)
        if written["bytes"] > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(confined_files.os, "write", until_full)

    with pytest.raises(RepositoryError, match=r"digits/1 int8-trt \(0\.0 MB\).*No space left on device; make room"):
        store.put(record(), PLAN)

    assert files_below(store.root) == []
    assert os.listdir(store.root / "digits" / "1" / "int8-trt") == []


def test_what_a_dead_writer_left_is_swept(store: PlanStore) -> None:
    variant = store.put(record(), PLAN).directory.parent
    for name, age_s in ((".putting-old", 7 * 3600), (".putting-new", 60)):
        (variant / name).mkdir()
        (variant / name / PLAN_FILE).write_bytes(b"half")
        past = os.stat(variant).st_mtime - age_s
        os.utime(variant / name, (past, past))

    store.put(record(key=key(capabilities=("SM90",))), PLAN)

    assert [name for name in os.listdir(variant) if name.startswith(".")] == [".putting-new"]


def truncate(plan: Path) -> None:
    (plan / PLAN_FILE).write_bytes(PLAN[:-7])


def alter(plan: Path) -> None:
    (plan / PLAN_FILE).write_bytes(PLAN[:-1] + b"X")


def lengthen(plan: Path) -> None:
    (plan / PLAN_FILE).write_bytes(PLAN + b"more")


def lose(plan: Path) -> None:
    (plan / PLAN_FILE).unlink()


def point_outside(plan: Path) -> None:
    outside = plan.parents[4] / "outside"
    outside.write_bytes(PLAN)
    lose(plan)
    (plan / PLAN_FILE).symlink_to(outside)


def put_a_pipe(plan: Path) -> None:
    lose(plan)
    os.mkfifo(plan / PLAN_FILE)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "truncated"),
        (alter, "changed after it was built"),
        (lengthen, f"has {len(PLAN) + 4} bytes, allowed are {len(PLAN)}"),
        (lose, "No such file"),
        (point_outside, "symbolic links"),
        (put_a_pipe, "no plain file"),
    ],
)
def test_plan_whose_bytes_are_not_those_of_its_record_is_refused(
    store: PlanStore, damage: Callable[[Path], None], told: str
) -> None:
    stored = store.put(record(), PLAN)
    damage(stored.directory)

    with pytest.raises(PlanRefused, match=rf"(?s){told}.*saccade-export build digits/1 --variant int8-trt --force"):
        store.read_plan(stored)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is not JSON"),
        (b'{"schema_version": 2}', "schema_version 2, this saccade reads 1"),
        (b'{"schema_version": 1, "model": "x"}', "Field required"),
        (b"x" * (1024 * 1024 + 1), "bytes, allowed are 1048576"),
    ],
)
def test_damaged_or_newer_record_is_refused(store: PlanStore, content: bytes, told: str) -> None:
    stored = store.put(record(), PLAN)
    (stored.directory / PLAN_RECORD).write_bytes(content)

    with pytest.raises(PlanRefused, match=told):
        find(store)
    survey = store.survey("digits", 1)
    assert survey.plans == ()
    assert told in survey.problems[0]


def test_directory_without_a_record_is_refused(store: PlanStore) -> None:
    stored = store.put(record(), PLAN)
    (stored.directory / PLAN_RECORD).unlink()

    with pytest.raises(PlanRefused, match=r"holds no plan\.json; run `saccade-export build digits/1"):
        find(store)


def test_plan_that_was_moved_to_another_place_is_refused(store: PlanStore) -> None:
    stored = store.put(record(), PLAN)
    stored.directory.rename(stored.directory.parent / key(capabilities=("SM90",)).place)

    with pytest.raises(PlanRefused, match="it was moved there"):
        find(store, capabilities=("SM90",))


def test_links_are_not_followed_out_of_the_store(store: PlanStore, tmp_path: Path) -> None:
    outside = PlanStore(tmp_path / "outside")
    other = outside.put(record(), PLAN)
    inside = store.root / "digits" / "1" / "int8-trt"
    inside.mkdir(parents=True)
    (inside / key().place).symlink_to(other.directory)

    with pytest.raises(PlanRefused, match="cannot read"):
        find(store)
    assert store.all("digits", 1) == ()


def test_nothing_is_written_through_a_link(store: PlanStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.root.mkdir()
    (store.root / "digits").symlink_to(elsewhere)

    with pytest.raises(RepositoryError, match="cannot keep"):
        store.put(record(), PLAN)

    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize(
    ("model", "version", "variant"),
    [
        ("../digits", 1, "fp32"),
        ("", 1, "fp32"),
        (".engines", 1, "fp32"),
        ("digits", 0, "fp32"),
        ("digits", -1, "fp32"),
        ("digits", 1, ".."),
        ("digits", 1, "fp32/../../x"),
    ],
)
def test_names_that_no_version_has_never_reach_the_disk(
    store: PlanStore, model: str, version: int, variant: str
) -> None:
    with pytest.raises(PlanRefused, match=r"is no (model|version|variant)"):
        store.find(model, version, variant, key())


def test_record_of_other_bytes_is_refused(store: PlanStore) -> None:
    with pytest.raises(PlanRefused, match="of other bytes"):
        store.put(record(), PLAN + b"more")
    assert not store.root.exists()


def test_gate_of_a_plan_is_updated_and_nothing_else_can_be(store: PlanStore) -> None:
    stored = store.put(record(), PLAN)

    updated = store.update_record(stored, stored.record.model_copy(update={"gate": GATE}))

    assert updated.record.gate == GATE
    assert find(store) == updated
    with pytest.raises(PlanRefused, match="of another plan"):
        store.update_record(stored, record(b"other"))


def test_newest_timings_of_the_same_machine_are_found_in_any_version(store: PlanStore) -> None:
    store.put(record(created="2026-01-01T00:00:00+00:00"), PLAN, timing_cache=b"older")
    store.put(record(version=2, created="2026-02-01T00:00:00+00:00"), PLAN, timing_cache=b"newer")
    store.put(record(version=3, created="2026-03-01T00:00:00+00:00", variant="fp16"), PLAN, timing_cache=b"other")
    store.put(record(version=4, key=key(capabilities=("SM90",))), PLAN, timing_cache=b"of another GPU")
    wanted = key(onnx_sha256="b" * 64)

    assert store.newest_timings("digits", "int8-trt", wanted) == b"newer"
    assert store.newest_timings("digits", "fp32", wanted) == b"other"
    assert store.newest_timings("digits", "int8-trt", key(runtime_version="2.0")) == b""


def test_engines_in_a_repository_are_no_model_of_it(tmp_path: Path) -> None:
    publish_fake(tmp_path, "digits", 1)
    PlanStore(engines_root(tmp_path)).put(record(), PLAN)

    assert (tmp_path / ENGINES_DIRECTORY / "digits" / "1").is_dir()
    assert [str(version.path.relative_to(tmp_path)) for version in list_versions(tmp_path)] == ["digits/1"]
