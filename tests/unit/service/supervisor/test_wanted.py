"""Which versions to load and unload, as a pure plan."""

from __future__ import annotations

from pathlib import Path

from saccade.service.core import VersionKey, VersionState
from saccade.service.repository.open import FoundVersion
from saccade.service.supervisor.policy import BLOCKED, ServingPolicy, pinned
from saccade.service.supervisor.wanted import KnownVersion, plan_versions

READY, FAILED, LOADING = VersionState.READY, VersionState.FAILED, VersionState.LOADING
WARMING = VersionState.WARMING


def found(version: int, stamp: int = 0, model: str = "digits") -> FoundVersion:
    return FoundVersion(VersionKey(model, version), Path(f"{model}/{version}"), (("model.onnx", 7, stamp),))


def known(**states: VersionState) -> dict[VersionKey, KnownVersion]:
    """`v3=READY` is version 3 in that state, with the files `found(3)` has."""
    return {
        VersionKey("digits", int(name[1:])): KnownVersion(state, (("model.onnx", 7, 0),))
        for name, state in states.items()
    }


def key(version: int) -> VersionKey:
    return VersionKey("digits", version)


def test_newest_versions_of_each_model_are_loaded() -> None:
    plan = plan_versions([found(1), found(2), found(3), found(1, model="other")], {}, 2)

    assert [item.key for item in plan.load] == [key(3), key(2), VersionKey("other", 1)]
    assert (plan.unload, plan.forget) == ((), ())


def test_nothing_changes_when_everything_is_as_wanted() -> None:
    plan = plan_versions([found(1), found(2)], known(v1=READY, v2=READY), 2)

    assert (plan.load, plan.unload, plan.forget) == ((), (), ())


def test_older_version_is_kept_when_the_newest_fails() -> None:
    plan = plan_versions([found(1), found(2)], known(v1=READY, v2=FAILED), 1)

    assert (plan.load, plan.unload, plan.forget) == ((), (), ())


def test_version_before_a_failed_one_is_loaded_when_it_was_not() -> None:
    plan = plan_versions([found(1), found(2)], known(v2=FAILED), 1)

    assert [item.key for item in plan.load] == [key(1)]


def test_failed_version_is_not_tried_again_while_its_files_are_the_same() -> None:
    assert plan_versions([found(1)], known(v1=FAILED), 1).load == ()


def test_failed_version_is_tried_again_when_its_files_change() -> None:
    plan = plan_versions([found(1, stamp=5)], known(v1=FAILED), 1)

    assert [item.key for item in plan.load] == [key(1)]
    assert plan.forget == (key(1),)


def test_older_version_is_not_unloaded_while_the_newer_one_is_on_its_way() -> None:
    for state in (LOADING, WARMING):
        assert plan_versions([found(1), found(2)], known(v1=READY, v2=state), 1).unload == ()
    assert plan_versions([found(1), found(2)], known(v1=READY), 1).unload == ()


def test_older_version_is_unloaded_once_as_many_newer_ones_as_wanted_are_ready() -> None:
    plan = plan_versions([found(1), found(2)], known(v1=READY, v2=READY), 1)

    assert plan.unload == (key(1),)


def test_vanished_directory_is_unloaded() -> None:
    plan = plan_versions([found(2)], known(v1=READY, v2=READY), 2)

    assert plan.unload == (key(1),)


def test_vanished_failed_version_is_forgotten() -> None:
    plan = plan_versions([found(2)], known(v1=FAILED), 1)

    assert plan.forget == (key(1),)
    assert plan.unload == ()


def test_changed_files_of_a_ready_version_do_not_reload_it() -> None:
    plan = plan_versions([found(1, stamp=9)], known(v1=READY), 1)

    assert (plan.load, plan.unload) == ((), ())


def test_repository_that_is_empty_at_once_unloads_nothing() -> None:
    plan = plan_versions([], known(v1=READY, v2=READY, v3=FAILED), 1)

    assert (plan.unload, plan.missing, plan.forget) == ((), (key(1), key(2)), (key(3),))


def test_pinned_version_is_loaded_alone_whatever_is_newer() -> None:
    plan = plan_versions([found(1), found(2), found(3), found(9, model="other")], {}, 2, {"digits": pinned(2)})

    assert [item.key for item in plan.load] == [key(2), VersionKey("other", 9)]


def test_no_other_version_is_loaded_for_a_pinned_one_that_fails() -> None:
    assert plan_versions([found(1), found(2)], known(v2=FAILED), 2, {"digits": pinned(2)}).load == ()


def test_pinned_version_stays_when_its_directory_is_removed() -> None:
    plan = plan_versions([found(1), found(1, model="other")], known(v2=READY), 1, {"digits": pinned(2)})

    assert (plan.unload, plan.missing, plan.load[1:]) == ((), (key(2),), ())


HOLD_2 = {"digits": ServingPolicy(2, frozenset({1, 2}))}


def test_held_and_labelled_versions_are_loaded_and_no_newer_one() -> None:
    plan = plan_versions([found(1), found(2), found(3)], {}, 2, HOLD_2)

    assert [item.key for item in plan.load] == [key(2), key(1)]


def test_others_leave_once_the_held_version_is_ready_and_their_grace_has_ended() -> None:
    versions = [found(1), found(2), found(3)]

    assert plan_versions(versions, known(v1=READY, v2=LOADING, v3=READY), 1, HOLD_2).unload == ()
    assert plan_versions(versions, known(v1=READY, v2=FAILED, v3=READY), 1, HOLD_2).unload == ()
    assert plan_versions(versions, known(v1=READY, v2=READY, v3=READY), 1, HOLD_2, {key(3)}).unload == ()
    assert plan_versions(versions, known(v1=READY, v2=READY, v3=READY), 1, HOLD_2).unload == (key(3),)


def test_label_keeps_an_old_version_beside_the_newest() -> None:
    labelled = {"digits": ServingPolicy(None, frozenset({1}))}

    plan = plan_versions([found(1), found(2), found(3)], known(v2=READY), 1, labelled)

    assert [item.key for item in plan.load] == [key(3), key(1)]
    assert plan.unload == ()


def test_nothing_is_loaded_or_unloaded_for_a_model_whose_document_is_refused() -> None:
    plan = plan_versions([found(1), found(2)], known(v1=READY), 1, {"digits": BLOCKED})

    assert (plan.load, plan.unload) == ((), ())


def test_version_without_room_is_wanted_and_does_not_count() -> None:
    states = known(v1=READY, v2=FAILED)
    states[key(2)] = KnownVersion(FAILED, (("model.onnx", 7, 0),), may_recover=True)

    plan = plan_versions([found(1), found(2)], states, 1)

    assert (plan.wanted, plan.unload) == ({key(1), key(2)}, ())
