"""The copy of a store holds verified versions whole, within its bound, whatever the store does meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from saccade.models.contract.manifest import MAX_MANIFEST_BYTES
from saccade.service.core import VersionKey
from saccade.service.repository.object_store.contents import LOOKS_UNTIL_GONE
from saccade.service.repository.object_store.copied import Copy
from saccade.service.repository.object_store.mirror import CopyRules, Mirror
from saccade.service.repository.object_store.store import Store
from saccade.service.repository.verify import verify_version
from tests.support.object_store import FaultyStore, upload
from tests.support.versions import manifest_for, publish, publish_fake, with_files

RULES = CopyRules(bound_bytes=2**20, versions_per_model=2)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(Store(MemoryStore(), "s3://models/vision"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirror_of(store: FaultyStore, tmp_path: Path, clock: Clock) -> Callable[[CopyRules], Mirror]:
    directory = tmp_path / "copy" / "versions"
    directory.mkdir(parents=True)
    return lambda rules: Mirror(store, Copy(directory), rules, clock)


@pytest.fixture
def mirror(mirror_of: Callable[[CopyRules], Mirror]) -> Mirror:
    return mirror_of(RULES)


@pytest.fixture
def published(store: FaultyStore, tmp_path: Path) -> Callable[..., Path]:
    """Publishes a version of `cat` into the store."""

    def publish_one(number: int, **options: object) -> Path:
        directory = publish_fake(tmp_path / "source", "cat", number, **options)  # type: ignore[arg-type]
        upload(directory, store)
        return directory

    return publish_one


def follow(mirror: Mirror, looks: int = 1) -> None:
    for _ in range(looks):
        mirror.look()
        while mirror.fetch_next():
            pass


def held(mirror: Mirror) -> list[str]:
    return sorted(f"{key.model}/{key.version}" for key in Copy(mirror.directory).versions())


def reasons(mirror: Mirror) -> dict[str, str]:
    return {f"{each.model}/{each.name}": each.reason for each in mirror.state.refused}


def test_newest_versions_are_copied_whole_and_verify(mirror: Mirror, published: Callable[..., Path]) -> None:
    for number in (1, 2, 3):
        published(number)
    follow(mirror)

    assert held(mirror) == ["cat/2", "cat/3"]
    assert verify_version(mirror.directory / "cat" / "3").manifest.version == 3
    assert mirror.may_start(is_late=False)
    assert mirror.state.refused == ()


def test_a_version_without_its_manifest_is_not_there_yet(mirror: Mirror, store: FaultyStore, tmp_path: Path) -> None:
    upload(publish_fake(tmp_path / "source", "cat", 1), store, without=("manifest.json",))
    follow(mirror)

    assert (held(mirror), mirror.state.refused) == ([], ())


def test_a_truncated_object_is_refused_with_its_reason_until_the_objects_change(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    directory = published(1)
    store.write("cat/1/model.onnx", b"weig")
    follow(mirror)
    assert "model.onnx has 4 bytes in the store, 7 in the manifest" in reasons(mirror)["cat/1"]

    count = len(store.read_keys)
    follow(mirror, looks=3)
    assert len(store.read_keys) == count

    upload(directory, store)
    follow(mirror)
    assert (held(mirror), reasons(mirror)) == (["cat/1"], {})


def test_other_bytes_than_the_manifest_says_are_refused(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    store.write("cat/1/model.onnx", b"WEIGHTS")
    follow(mirror)

    assert "the file changed after its gate" in reasons(mirror)["cat/1"]
    assert held(mirror) == []


def test_a_download_that_ends_early_is_refused(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    store.cut["cat/1/model.onnx"] = 3
    follow(mirror)

    assert "came 3 bytes" in reasons(mirror)["cat/1"]


def test_an_object_that_cannot_be_read_delays_no_other_version_and_is_tried_again(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path], clock: Clock
) -> None:
    published(1)
    published(2)
    store.denied["cat/2/model.onnx"] = "no answer in time"
    follow(mirror)
    assert held(mirror) == ["cat/1"]
    assert "no answer in time" in reasons(mirror)["cat/2"]
    assert mirror.may_start(is_late=False)

    store.denied.clear()
    follow(mirror)
    assert held(mirror) == ["cat/1"]
    clock.now_s += 1.0
    follow(mirror)
    assert held(mirror) == ["cat/1", "cat/2"]


def test_objects_that_change_after_the_listing_are_not_mixed_with_those_before(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path], tmp_path: Path, clock: Clock
) -> None:
    published(1)
    mirror.look()
    upload(publish_fake(tmp_path / "other", "cat", 1, content=b"others!"), store)
    mirror.fetch_next()
    assert "it changed meanwhile" in reasons(mirror)["cat/1"]
    assert held(mirror) == []

    clock.now_s += 1.0
    follow(mirror)
    assert (mirror.directory / "cat/1/model.onnx").read_bytes() == b"others!"


def test_a_start_waits_for_what_may_still_come_and_not_for_what_was_refused(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    store.denied["cat/1/model.onnx"] = "no answer in time"
    follow(mirror)
    assert not mirror.may_start(is_late=False)

    store.denied.clear()
    store.write("cat/1/model.onnx", b"WEIGHTS")
    follow(mirror)
    assert mirror.may_start(is_late=False)


def test_what_an_attempt_fetched_is_not_fetched_again(
    mirror: Mirror, store: FaultyStore, tmp_path: Path, clock: Clock
) -> None:
    files = {"a.onnx": b"aaaa", "b.onnx": b"bbbb"}
    manifest = manifest_for("cat", 1)
    variant = manifest.variants[0].model_copy(update={"file": "a.onnx"})
    manifest = with_files(manifest.model_copy(update={"variants": (variant,)}), files)
    upload(publish(tmp_path / "source", manifest, files=files), store)
    store.denied["cat/1/b.onnx"] = "no answer in time"
    follow(mirror)
    store.denied.clear()
    clock.now_s += 1.0
    follow(mirror)

    assert held(mirror) == ["cat/1"]
    assert store.read_keys.count("cat/1/a.onnx") == 1


def test_a_huge_manifest_is_refused_unread(mirror: Mirror, store: FaultyStore) -> None:
    store.write("cat/1/manifest.json", b"x" * (MAX_MANIFEST_BYTES + 1))
    follow(mirror)

    assert "allowed are" in reasons(mirror)["cat/1"]
    assert store.read_keys == []


def test_a_manifest_that_points_outside_of_its_version_is_refused(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    directory = published(1)
    raw = (directory / "manifest.json").read_bytes().replace(b'"model.onnx"', b'"../../model.onnx"')
    store.write("cat/1/manifest.json", raw)
    follow(mirror)

    assert "must stay inside the version directory" in reasons(mirror)["cat/1"]


def test_objects_that_no_manifest_names_are_not_fetched(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    store.write("cat/1/extra.bin", b"?" * 1000)
    follow(mirror)

    assert held(mirror) == ["cat/1"]
    assert not (mirror.directory / "cat/1/extra.bin").exists()


def test_a_failing_or_empty_store_takes_nothing_away_and_is_told(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    follow(mirror)
    store.denied[""] = "s3://models/vision: 403 Forbidden"
    follow(mirror, looks=5)
    assert (held(mirror), mirror.state.problem) == (["cat/1"], "s3://models/vision: 403 Forbidden")

    store.denied.clear()
    for each in store.objects():
        store.remove(each.key)
    follow(mirror, looks=5)
    assert held(mirror) == ["cat/1"]
    assert "shows no version" in mirror.state.problem


def test_a_removed_version_leaves_after_several_looks(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    published(2)
    follow(mirror)
    for each in store.objects("cat/1/"):
        store.remove(each.key)
    follow(mirror, looks=LOOKS_UNTIL_GONE - 1)
    assert held(mirror) == ["cat/1", "cat/2"]
    follow(mirror)

    assert held(mirror) == ["cat/2"]
    assert list(mirror.directory.parent.glob("scratch/*leaving*")) == []


def test_a_version_that_was_replaced_in_the_store_stays_as_it_was_fetched(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path], tmp_path: Path
) -> None:
    published(1)
    follow(mirror)
    upload(publish_fake(tmp_path / "other", "cat", 1, content=b"others!"), store)
    follow(mirror, looks=2)

    assert (mirror.directory / "cat/1/model.onnx").read_bytes() == b"weights"
    ((key, notice),) = mirror.state.notices
    assert key == VersionKey("cat", 1)
    assert "publish under a new number" in notice


def test_a_file_that_was_replaced_or_removed_in_the_store_is_told(
    mirror: Mirror, mirror_of: Callable[[CopyRules], Mirror], store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    follow(mirror)
    store.write("cat/1/extra.bin", b"!")  # no manifest names it
    store.write("cat/1/model.onnx", b"weig")
    for each in (mirror, mirror_of(RULES)):  # what was fetched is kept beside the copy
        follow(each)
        assert "model.onnx was replaced in the store" in dict(each.state.notices)[VersionKey("cat", 1)]
    store.remove("cat/1/model.onnx")
    mirror.look()
    assert "was removed" in str(mirror.state.notices)


def test_the_copy_stays_within_its_bound_and_what_is_served_stays(
    mirror_of: Callable[[CopyRules], Mirror], published: Callable[..., Path]
) -> None:
    content = b"w" * 100_000
    mirror = mirror_of(replace(RULES, bound_bytes=250_000, versions_per_model=1))
    for number in (1, 2):
        published(number, content=content)
        follow(mirror)
    assert held(mirror) == ["cat/1", "cat/2"]
    published(3, content=content)
    follow(mirror)
    assert held(mirror) == ["cat/2", "cat/3"]

    mirror.told([VersionKey("cat", 2), VersionKey("cat", 3)], ())
    published(4, content=content)
    follow(mirror)
    assert held(mirror) == ["cat/2", "cat/3"]
    assert "find no room beside what is served" in reasons(mirror)["cat/4"]


def test_documents_come_with_their_versions_and_are_kept_in_the_history(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    for number in (1, 2, 3, 4):
        published(number)
    store.write("cat/serving.json", b'{"generation": 7, "policy": "hold", "labels": {"stable": 1}}')
    follow(mirror)

    assert held(mirror) == ["cat/1", "cat/3", "cat/4"]
    assert b'"generation": 7' in (mirror.directory / "cat/serving.json").read_bytes()
    assert (mirror.directory / "cat/.serving/7.json").exists()

    store.remove("cat/serving.json")
    follow(mirror, looks=LOOKS_UNTIL_GONE - 1)
    assert (mirror.directory / "cat/serving.json").exists()
    follow(mirror)
    assert not (mirror.directory / "cat/serving.json").exists()


def test_a_document_that_cannot_be_read_holds_up_no_version_and_the_one_of_before_rules_on(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    store.write("cat/serving.json", b'{"generation": 7}')
    follow(mirror)
    store.write("cat/serving.json", b'{"generation": 8}')
    store.denied["cat/serving.json"] = "403 Forbidden"
    published(2)
    follow(mirror)

    assert held(mirror) == ["cat/1", "cat/2"]
    assert reasons(mirror) == {"cat/serving.json": "403 Forbidden"}
    assert (mirror.directory / "cat/serving.json").read_bytes() == b'{"generation": 7}'
    store.denied.clear()
    follow(mirror)
    assert (mirror.directory / "cat/serving.json").read_bytes() == b'{"generation": 8}'


def test_a_failed_version_has_the_one_before_it_fetched(mirror: Mirror, published: Callable[..., Path]) -> None:
    for number in (1, 2, 3):
        published(number)
    follow(mirror)
    mirror.told([VersionKey("cat", 3)], [VersionKey("cat", 3)])
    follow(mirror)

    assert held(mirror) == ["cat/1", "cat/2", "cat/3"]


def test_a_copy_that_the_disk_lost_is_fetched_again_once_a_server_refused_it(
    mirror: Mirror, published: Callable[..., Path]
) -> None:
    published(1)
    follow(mirror)
    (mirror.directory / "cat/1/model.onnx").write_bytes(b"")
    mirror.told([VersionKey("cat", 1)], [VersionKey("cat", 1)])
    follow(mirror)
    mirror.told([], [])
    follow(mirror)

    assert verify_version(mirror.directory / "cat" / "1").manifest.version == 1


def test_a_signature_that_comes_later_is_added(
    mirror: Mirror, store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    follow(mirror)
    store.write("cat/1/manifest.sig", b"{}")
    follow(mirror)
    follow(mirror)

    assert (mirror.directory / "cat/1/manifest.sig").read_bytes() == b"{}"


def test_another_server_of_the_same_copy_shares_it(
    mirror: Mirror, mirror_of: Callable[[CopyRules], Mirror], store: FaultyStore, published: Callable[..., Path]
) -> None:
    published(1)
    follow(mirror)
    count = len(store.read_keys)
    other = mirror_of(RULES)
    follow(other)

    assert len(store.read_keys) == count
    assert held(other) == ["cat/1"]
