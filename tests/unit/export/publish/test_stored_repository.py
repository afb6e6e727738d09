"""Publishing into an object store: a number for each publisher, files before manifests, nothing overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from saccade.export.errors import PublishError
from saccade.export.publish.stored_repository import TAKEN, StoredRepository
from saccade.models.contract.manifest import manifest_bytes
from saccade.service.repository.object_store.contents import StoredObject, contents_of
from saccade.service.repository.object_store.store import ObjectExists, Store, StoreUnreadable
from tests.support.versions import manifest_for

URL = "s3://models/vision"


class RecordingStore(Store):
    """Says in which order objects were written, and has others publish meanwhile."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, URL)
        self.written: list[str] = []
        self.before_create: list[Callable[[], None]] = []
        self.fails_at = ""

    def create(self, key: str, content: bytes) -> None:
        if self.before_create:
            self.before_create.pop()()
        super().create(key, content)
        self.written.append(key)

    def write(self, key: str, content: bytes | Path) -> None:
        if key == self.fails_at:
            raise StoreUnreadable(f"{key}: no answer in time")
        super().write(key, content)
        self.written.append(key)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shared() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(shared: MemoryStore) -> RecordingStore:
    return RecordingStore(shared)


def publish(store: Store, content: bytes = b"weights") -> int:
    repository = StoredRepository(URL, store)
    with repository.scratch() as scratch:
        (scratch / "model.onnx").write_bytes(content)
        (scratch / "manifest.sig").write_bytes(b"{}")

        def finish(number: int) -> None:
            (scratch / "manifest.json").write_bytes(manifest_bytes(manifest_for("cat", number, content=content)))

        return repository.add_version("cat", scratch, finish)


def test_the_manifest_comes_last_and_the_signature_before_it(store: RecordingStore) -> None:
    assert publish(store) == 1
    assert store.written == ["cat/1/.taken", "cat/1/model.onnx", "cat/1/manifest.sig", "cat/1/manifest.json"]


def test_numbers_go_up_and_the_manifests_are_found_again(store: RecordingStore) -> None:
    assert [publish(store), publish(store), publish(store)] == [1, 2, 3]
    assert [each.version for each in StoredRepository(URL, store).manifests("cat")] == [1, 2, 3]
    assert StoredRepository(URL, store).manifests("dog") == []


def test_publishers_at_the_same_time_get_different_numbers(shared: MemoryStore, store: RecordingStore) -> None:
    other: list[int] = []
    store.before_create.append(lambda: other.append(publish(RecordingStore(shared), b"theirs!")))

    assert (publish(store), other) == (2, [1])
    read = store.read("cat/1/model.onnx", 100)
    assert read is not None
    assert read.content == b"theirs!"


def test_a_publication_that_breaks_off_is_no_version_and_its_number_is_not_used_again(store: RecordingStore) -> None:
    store.fails_at = "cat/1/model.onnx"
    with pytest.raises(PublishError, match=r"no answer in time; no version was added"):
        publish(store)
    assert contents_of(store.objects()).numbers("cat") == []
    store.fails_at = ""

    assert publish(store) == 2


def test_a_version_that_exists_is_never_overwritten(store: RecordingStore) -> None:
    publish(store)
    before = store.read("cat/1/manifest.json", 10**6)
    store.remove(f"cat/1/{TAKEN}")  # as if it had been copied here by other means
    publish(store)

    assert store.read("cat/1/manifest.json", 10**6) == before
    assert contents_of(store.objects()).numbers("cat") == [1, 2]


def test_a_manifest_whose_answer_was_lost_is_published(store: RecordingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(key: str, content: bytes) -> None:
        RecordingStore.create(store, key, content)
        if key.endswith("manifest.json"):
            raise ObjectExists(key)

    monkeypatch.setattr(store, "create", lost)

    assert publish(store) == 1


def test_a_store_that_denies_is_told_before_an_export_begins(
    store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Store) -> tuple[list[StoredObject], list[str]]:
        raise StoreUnreadable(f"{URL}: 403 Forbidden")

    monkeypatch.setattr(Store, "level", denied)
    with pytest.raises(PublishError, match="403 Forbidden"):
        StoredRepository(URL, store).ensure_readable()


def test_a_copy_of_a_version_without_its_marker_blocks_its_number(store: RecordingStore) -> None:
    store.write("cat/7/model.onnx", b"half")
    found = contents_of([StoredObject("cat/7/model.onnx", 4, "t")])

    assert found.numbers("cat", begun=True) == [7]
    assert publish(store) == 8
