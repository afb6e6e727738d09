"""Keys that are no paths, and versions that are not whole: what lies beside them is found, and they are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.repository.object_store.address import claim_copy
from saccade.service.repository.object_store.copied import Copy
from saccade.service.repository.object_store.listing import listing
from saccade.service.repository.object_store.mirror import CopyRules, Mirror
from saccade.service.repository.object_store.store import InvalidKey, Store
from tests.support.object_store import BUCKET, ObjectStoreServer, store_at, upload
from tests.support.server import call_saccade
from tests.support.versions import publish_fake

RULES = CopyRules(bound_bytes=2**30, versions_per_model=2)


@pytest.mark.parametrize(
    ("bad", "missing", "named"),
    [
        ("cat//5/manifest.json", set(), ("cat", "")),  # between the model and its versions
        ("cat/./x", set(), ("cat", "")),
        ("cat/1//x", {"cat/1"}, ("cat", "1")),
        ("cat/1/../../x", {"cat/1"}, ("cat", "1")),
        ("/5/manifest.json", set(), None),  # beside the models
        ("cat/seg//5/x", set(), ("cat", "seg")),  # its name is no number
        ("cat/1/\x7fx", {"cat/1"}, ("cat", "1")),
        ("cat/\x01/x", set(), ("cat", "")),
        ("\x1f/1/manifest.json", set(), None),
    ],
)
def test_a_key_that_is_no_path_hides_at_most_its_version_and_is_named(
    server: ObjectStoreServer,
    store: Store,
    url: str,
    bad: str,
    missing: set[str],
    named: tuple[str, str] | None,
    tmp_path: Path,
) -> None:
    where = f"{url}-{bad.encode().hex()}"  # keys that no client takes cannot be removed by one
    store, prefix = store_at(where), where.removeprefix(f"s3://{BUCKET}/")
    for model, number in (("cat", 1), ("cat", 2), ("dog", 1)):
        upload(publish_fake(tmp_path, model, number), store)
    store.write("cat/serving.json", b'{"generation": 7}')
    server.put_raw(f"{prefix}/{bad}", b"")
    with pytest.raises(InvalidKey):
        store.objects()
    mirror = Mirror(store, Copy(claim_copy(where)), RULES)
    mirror.look()
    while mirror.fetch_next():
        pass

    held = {f"{key.model}/{key.version}" for key in Copy(mirror.directory).versions()}
    assert held == {"cat/1", "cat/2", "dog/1"} - missing
    assert (mirror.directory / "cat/serving.json").exists()
    reasons = {(each.model, each.name): each.reason for each in mirror.state.refused}
    assert set(reasons) == ({named} if named else set())
    part = next(part for part in bad.split("/") if part.strip("x") in ("", ".", "..", "\x7f", "\x01", "\x1f"))
    told = f"has the {'part' if part[0] == '.' else 'character'} {part.strip('x')!r}" if part else "has an empty part"
    reason = reasons[named] if named else mirror.state.problem
    assert f"key {f'{prefix}/{bad}'!r} {told}; rename it" in reason


def test_control_character_in_a_models_name_is_told_and_keeps_no_known_model_from_going_on(
    server: ObjectStoreServer, store: Store, url: str, tmp_path: Path
) -> None:
    upload(publish_fake(tmp_path, "cat", 1), store)
    mirror, prefix = Mirror(store, Copy(claim_copy(url)), RULES), url.removeprefix(f"s3://{BUCKET}/")
    mirror.look()
    while mirror.fetch_next():
        pass
    server.put_raw(f"{prefix}/\x7f/1/manifest.json", b"")
    upload(publish_fake(tmp_path, "cat", 2), store)
    mirror.look()
    while mirror.fetch_next():
        pass
    told = f"key '{prefix}/\\x7f/1/manifest.json' has the character '\\x7f'; rename it"

    assert {str(key.version) for key in Copy(mirror.directory).versions()} == {"1", "2"}
    assert told in mirror.state.problem
    with pytest.raises(InvalidKey) as unlisted:  # as a server without a copy meets it
        listing(store)
    assert told in str(unlisted.value)
    assert "until then the store lists no model" in str(unlisted.value)


def test_what_a_key_hides_is_not_taken_for_removed(
    server: ObjectStoreServer, store: Store, url: str, tmp_path: Path
) -> None:
    upload(publish_fake(tmp_path, "cat", 1), store)
    upload(publish_fake(tmp_path, "dog", 1), store)
    mirror = Mirror(store, Copy(claim_copy(url)), RULES)
    mirror.look()
    while mirror.fetch_next():
        pass
    server.put_raw(f"{url.removeprefix(f's3://{BUCKET}/')}/cat/1//x", b"")
    for _ in range(5):
        mirror.look()

    assert {key.model for key in Copy(mirror.directory).versions()} == {"cat", "dog"}


def test_keys_beside_the_models_and_within_one_keep_no_known_model_from_going_on(
    server: ObjectStoreServer, store: Store, url: str, tmp_path: Path
) -> None:
    for model in ("cat", "dog"):
        upload(publish_fake(tmp_path, model, 1), store)
    mirror = Mirror(store, Copy(claim_copy(url)), RULES)
    mirror.look()
    while mirror.fetch_next():
        pass
    for bad in ("/x", "cat//x"):
        server.put_raw(f"{url.removeprefix(f's3://{BUCKET}/')}/{bad}", b"")
    upload(publish_fake(tmp_path, "dog", 2), store)
    for _ in range(5):
        mirror.look()
    while mirror.fetch_next():
        pass

    held = {f"{key.model}/{key.version}" for key in Copy(mirror.directory).versions()}
    assert held == {"cat/1", "dog/1", "dog/2"}
    assert "has an empty part" in mirror.state.problem


def test_a_version_under_another_name_is_refused_as_one_in_a_directory_is(
    server: ObjectStoreServer, store: Store, url: str, tmp_path: Path
) -> None:
    upload(publish_fake(tmp_path, "cat", 1).rename(tmp_path / "cat" / "2"), store)
    mirror = Mirror(store, Copy(claim_copy(url)), RULES)
    mirror.look()
    while mirror.fetch_next():
        pass

    (refused,) = mirror.state.refused
    assert refused.reason == "cat/2 holds the manifest of cat/1; directories keep their names"
    assert mirror.may_start(is_late=False)  # it will not be tried again


def test_verify_has_a_verdict_for_every_version_and_names_the_bad_ones(
    server: ObjectStoreServer, store: Store, url: str, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        upload(publish_fake(tmp_path, "cat", number), store)
    store.write("cat/1/model.onnx", b"weig")
    store.write("cat/2/manifest.json", b"{")
    server.put_raw(f"{url.removeprefix(f's3://{BUCKET}/')}/dog/1//x", b"")
    result = call_saccade("repository", "verify", "--repository", url, environment=server.environment)

    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["cat/1", "cat/2", "cat/3"]
    assert "model.onnx has 4 bytes in the store, 7 in the manifest" in lines[0]
    assert "is not JSON" in lines[1]
    assert "//x' has an empty part" in result.stderr
    assert "dog/1: not verified" in result.stderr
    assert result.returncode == 1

    one = call_saccade("repository", "verify", "cat/3", "--repository", url, environment=server.environment)
    assert "cat/3: " in one.stdout
