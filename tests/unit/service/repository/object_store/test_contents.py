"""What a copy of an object store holds is decided by listings, sizes and times alone."""

from __future__ import annotations

from dataclasses import replace

from saccade.models.contract.manifest import MAX_MANIFEST_BYTES
from saccade.service.core import VersionKey
from saccade.service.repository.object_store.contents import (
    LONGEST_RETRY_S,
    LOOKS_UNTIL_GONE,
    Attempt,
    Contents,
    Copied,
    StoredObject,
    StoredVersion,
    absences,
    changed_in_store,
    contents_of,
    failed_again,
    gone,
    has_new_signature,
    is_due,
    leaving,
    may_start,
    refusal,
    wanted,
)


def key(name: str) -> VersionKey:
    model, _, number = name.partition("/")
    return VersionKey(model, int(number))


def objects(*keys: str, size: int = 10) -> list[StoredObject]:
    return [StoredObject(each, size, f'"{each}"') for each in keys]


def version(name: str, size: int = 10) -> StoredVersion:
    files = objects(f"{name}/manifest.json", f"{name}/model.onnx", size=size)
    return contents_of(files).versions[key(name)]


def store(*names: str) -> Contents:
    return contents_of([item for name in names for item in objects(f"{name}/manifest.json", f"{name}/model.onnx")])


def copied(size: int = 20, order: float = 1.0, tag: str = "", signature: str = "") -> Copied:
    return Copied(size, tag, signature, order)


# Listing


def test_objects_are_sorted_into_versions_documents_and_what_is_begun() -> None:
    found = contents_of(
        objects(
            "cat/3/manifest.json",
            "cat/3/deep/model.onnx",
            "cat/serving.json",
            "cat/4/model.onnx",
            "cat/.serving/1.json",
        )
    )

    assert found.numbers("cat") == [3]
    assert found.numbers("cat", begun=True) == [3, 4]
    assert set(found.versions[key("cat/3")].objects) == {"manifest.json", "deep/model.onnx"}
    assert list(found.documents) == ["cat"]
    assert found.refused == ()


def test_names_that_are_no_models_or_numbers_are_left_out_or_refused() -> None:
    found = contents_of(
        objects(
            ".samples/1/a", "cat/03/manifest.json", "cat/x/manifest.json", "Cat/1/manifest.json", f"cat/{2**63}/a", "x"
        )
    )

    assert (found.versions, found.begun) == ({}, frozenset())
    assert [(each.model, each.name) for each in found.refused] == [("Cat", "1"), ("cat", str(2**63))]


# What to fetch


def test_newest_versions_of_every_model_are_wanted_before_second_newest_ones() -> None:
    contents = store("cat/1", "cat/2", "cat/3", "dog/7")

    assert wanted(contents, (), (), 2) == [key("cat/3"), key("dog/7"), key("cat/2")]


def test_named_versions_come_first_and_failed_ones_make_place_for_older_ones() -> None:
    contents = store("cat/1", "cat/2", "cat/3", "cat/4")

    assert wanted(contents, [key("cat/1"), key("cat/9")], [key("cat/4")], 2) == [
        key("cat/1"),
        key("cat/3"),
        key("cat/2"),
    ]


def test_a_huge_manifest_and_a_version_beyond_the_bound_are_refused_unread() -> None:
    huge = replace(
        version("cat/1"), objects={"manifest.json": StoredObject("cat/1/manifest.json", MAX_MANIFEST_BYTES + 1, "t")}
    )

    assert "manifest.json has" in (refusal(huge, 2**40) or "")
    assert "SACCADE_REPOSITORY_CACHE_MB" in (refusal(version("cat/1", size=2**20), 2**20) or "")
    assert refusal(version("cat/1"), 100) is None


def test_a_refused_version_is_tried_again_when_its_objects_change_and_not_before() -> None:
    found = version("cat/1")
    attempt = Attempt(found.tags, "digest")

    assert is_due(found, None, 0.0)
    assert not is_due(found, attempt, 1e9)
    assert is_due(version("cat/1", size=11), attempt, 0.0)


def test_a_failed_fetch_waits_twice_as_long_each_time_up_to_a_minute() -> None:
    found, attempt, waits = version("cat/1"), None, []
    for _ in range(9):
        attempt = failed_again(found, attempt, "no answer", 100.0)
        assert attempt.retry_s is not None
        waits.append(attempt.retry_s - 100.0)

    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_RETRY_S
    assert not is_due(found, attempt, 100.0)
    assert is_due(found, attempt, 100.0 + LONGEST_RETRY_S)
    assert failed_again(version("cat/1", size=11), attempt, "no answer", 0.0).count == 1


# What leaves


def test_a_version_goes_after_several_listings_without_it_and_comes_back_as_new() -> None:
    here, others = [key("cat/1"), key("cat/2")], store("cat/2")
    counts = absences({}, here, others)
    for _ in range(LOOKS_UNTIL_GONE - 1):
        assert gone(counts) == []
        counts = absences(counts, here, others)

    assert gone(counts) == [key("cat/1")]
    assert absences(counts, here, store("cat/1", "cat/2")) == {}


def test_an_empty_store_takes_nothing_away() -> None:
    counts = {key("cat/1"): LOOKS_UNTIL_GONE - 1}

    assert absences(counts, [key("cat/1")], Contents()) == counts


def test_oldest_versions_that_nobody_keeps_make_room() -> None:
    copies = {key("cat/1"): copied(order=3.0), key("cat/2"): copied(order=1.0), key("cat/3"): copied(order=2.0)}

    assert leaving(copies, [], 10, 100) == []
    assert leaving(copies, [], 30, 60) == [key("cat/2"), key("cat/3")]
    assert leaving(copies, [key("cat/2")], 30, 60) == [key("cat/3"), key("cat/1")]
    assert leaving(copies, list(copies), 10, 60) is None


def test_a_manifest_that_was_replaced_is_told_and_a_late_signature_is_seen() -> None:
    found = version("cat/1")
    signed = replace(found, objects={**found.objects, "manifest.sig": StoredObject("cat/1/manifest.sig", 300, "s")})
    same = copied(tag=found.objects["manifest.json"].tag)

    assert changed_in_store(found, same) == ""
    assert "publish under a new number" in changed_in_store(found, copied(tag="other"))
    assert not has_new_signature(found, same)
    assert has_new_signature(signed, same)
    assert not has_new_signature(signed, replace(same, signature_tag="s"))


# The start


def start(
    contents: Contents | None,
    there: list[str],
    settled: tuple[str, ...] = (),
    pinned: tuple[str, ...] = (),
    **how: bool,
) -> bool:
    names = [[key(name) for name in each] for each in (there, settled, pinned)]
    return may_start(contents, *names, is_unreadable=how.get("unreadable", False), is_late=how.get("late", False))


def test_a_server_starts_with_a_version_of_every_model() -> None:
    contents = store("cat/1", "dog/1")

    assert not start(contents, ["cat/1"])
    assert start(contents, ["cat/1", "dog/1"])
    assert start(contents, ["cat/1"], ("dog/1",))


def test_a_slow_model_does_not_keep_others_from_serving_for_long() -> None:
    assert start(store("cat/1", "dog/1"), ["cat/1"], late=True)
    assert not start(store("cat/1", "dog/1"), [], late=True)


def test_a_pinned_version_is_waited_for() -> None:
    assert not start(store("cat/1", "cat/2"), ["cat/2"], pinned=("cat/1",), late=True)
    assert start(store("cat/2"), ["cat/2"], pinned=("cat/1",))  # it is not in the store: the start says so


def test_a_copy_of_before_serves_while_the_store_cannot_be_read() -> None:
    assert start(None, ["cat/1"], unreadable=True)
    assert not start(None, ["cat/1"])
    assert start(None, ["cat/1"], late=True)  # it does not answer
    assert not start(None, [], unreadable=True, late=True)


def test_an_empty_store_starts_an_empty_server() -> None:
    assert start(Contents(), [])
