"""Which version is stable, and which document rules: pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.core import VersionKey
from saccade.service.repository.open import FoundVersion, Listing
from saccade.service.repository.serving_document import ServingDocument, document_bytes, document_path
from saccade.service.repository.serving_history import write_document
from saccade.service.supervisor.policy import BLOCKED, FOLLOW, ServingPolicy, pinned, policy_from, stable_now
from saccade.service.supervisor.serving_documents import Ruling, ServingDocuments

HELD_3 = ServingPolicy(3, frozenset({3}))


@pytest.mark.parametrize(
    ("policy", "before", "ready", "stable"),
    [
        (FOLLOW, None, [1, 2], 2),
        (FOLLOW, 1, [1, 2], 2),
        (FOLLOW, 2, [], None),
        (HELD_3, None, [3, 4], 3),
        (HELD_3, 2, [2, 4], 2),  # 3 is not ready yet: the one before answers, and not a newer one
        (HELD_3, 2, [2, 3], 3),
        (HELD_3, 2, [], 3),
        (HELD_3, None, [4], 3),  # a server that starts never answers with a version that nobody asked for
        (HELD_3, 3, [2], 3),  # lost with its worker: it comes back
    ],
)
def test_held_version_takes_over_once_it_is_ready(
    policy: ServingPolicy, before: int | None, ready: list[int], stable: int | None
) -> None:
    assert stable_now(policy, before, ready) == stable


def test_version_that_comes_back_with_its_worker_stays_stable_until_the_next_is_ready() -> None:
    assert stable_now(HELD_3, 2, [], returning=[2]) == 2
    assert stable_now(HELD_3, 2, [3], returning=[2]) == 3
    assert stable_now(HELD_3, 2, [], returning=[1]) == 3


def listing(*versions: int) -> Listing:
    return Listing(tuple(FoundVersion(VersionKey("digits", version), Path(), ()) for version in versions))


def held(generation: int, version: int) -> ServingDocument:
    return ServingDocument(generation=generation, policy="hold", labels={"stable": version})


def documents(tmp_path: Path, **pins: int) -> ServingDocuments:
    (tmp_path / "digits").mkdir(exist_ok=True)
    return ServingDocuments(tmp_path, None, pins)


def test_last_good_document_rules_while_a_newer_one_is_refused(tmp_path: Path) -> None:
    looking = documents(tmp_path)
    write_document(tmp_path, "digits", held(1, 2), 0)
    first = looking.look(listing(1, 2), {})
    assert first["digits"] == Ruling(held(1, 2))

    document_path(tmp_path, None, "digits").write_text('{"generation": 2, "policy": "hold"}')
    second = looking.look(listing(1, 2), first)

    assert second["digits"].document == held(1, 2)
    assert "`hold` needs a label" in second["digits"].problem

    document_path(tmp_path, None, "digits").write_bytes(document_bytes(held(3, 7)))
    third = looking.look(listing(1, 2), second)
    assert third["digits"].document == held(1, 2)
    assert third["digits"].problem == "generation 3 names version 7; there are: 1, 2"
    assert looking.look(listing(1, 2, 7), third)["digits"] == Ruling(
        held(3, 7), before=(2,)
    )  # it rules once it is there


def test_history_tells_which_versions_were_stable_before(tmp_path: Path) -> None:
    looking = documents(tmp_path)
    labels = [{"stable": 1}, {"stable": 3}, {"next": 2}, {"stable": 3}, {"stable": 2}, {"stable": 1, "next": 4}]
    for generation, named in enumerate(labels, 1):
        policy = {"generation": generation, "policy": "hold" if "stable" in named else "follow", "labels": named}
        write_document(tmp_path, "digits", ServingDocument.model_validate(policy), generation - 1)

    first = looking.look(listing(1, 2, 3, 4), {})

    assert first["digits"].before == (2, 3, 1)
    assert looking.look(listing(1, 2, 3, 4), first) == first
    document_path(tmp_path, None, "digits").write_text("{")
    assert looking.look(listing(1, 2, 3, 4), first)["digits"].before == (2, 3, 1)
    assert looking.look(listing(1, 2, 3), {})["digits"].before == (3, 1)  # by generation 5, the last that can rule


def test_ruling_document_goes_on_when_a_version_that_it_names_is_removed(tmp_path: Path) -> None:
    looking = documents(tmp_path)
    write_document(tmp_path, "digits", held(1, 2), 0)
    before = looking.look(listing(1, 2), {})

    assert looking.look(listing(1), before) == before


def test_server_that_starts_on_a_bad_document_takes_the_newest_of_the_history(tmp_path: Path) -> None:
    looking = documents(tmp_path)
    write_document(tmp_path, "digits", held(1, 1), 0)
    write_document(tmp_path, "digits", held(2, 9), 1)
    document_path(tmp_path, None, "digits").write_text("{")

    ruling = looking.look(listing(1, 2), {})["digits"]

    assert ruling.document == held(1, 1)  # generation 2 names a version that is not there
    assert ruling.problem


def test_server_that_starts_on_a_bad_document_without_history_serves_nothing_of_the_model(tmp_path: Path) -> None:
    looking = documents(tmp_path)
    document_path(tmp_path, None, "digits").write_text("{")

    rulings = looking.look(listing(1), {})

    assert looking.policies(rulings) == {"digits": BLOCKED}
    document_path(tmp_path, None, "digits").unlink()
    assert looking.policies(looking.look(listing(1), rulings)) == {"digits": FOLLOW}


def test_pin_wins_over_a_document_and_says_so(tmp_path: Path) -> None:
    looking = documents(tmp_path, digits=1)
    write_document(tmp_path, "digits", held(1, 2), 0)

    rulings = looking.look(listing(1, 2), {})

    assert looking.policies(rulings) == {"digits": pinned(1)}
    assert "SACCADE_SERVE_VERSIONS" in rulings["digits"].problem


def test_policy_of_a_document_names_what_must_be_loaded() -> None:
    document = ServingDocument(generation=1, labels={"next": 4}, grace_s=5)

    assert policy_from(document) == ServingPolicy(None, frozenset({4}), 5.0)
