"""Who makes room: least recently used, no more than needed, nobody in use, pinned, or just loaded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saccade.service.core import VersionKey
from saccade.service.supervisor.placement.eviction import CachedVersion, Shortage, can_be_met, to_evict

NOW_S = 1000.0


def version(
    model: str,
    last_used_s: float,
    *,
    size: int = 10,
    version: int = 1,
    in_flight: int = 0,
    is_pinned: bool = False,
    ready_s: float = 0.0,
    load_s: float = 1.0,
) -> CachedVersion:
    key = VersionKey(model, version)
    return CachedVersion(key, {"cpu": size}, ready_s, load_s, last_used_s, in_flight, is_pinned)


def evicted(*cached: CachedVersion, missing: int = 0, models: int = 0) -> list[str] | None:
    """Model names."""
    found = to_evict(cached, Shortage({"cpu": missing} if missing else {}, models), NOW_S)
    return None if found is None else [key.model for key in found]


def test_least_recently_used_leaves() -> None:
    assert evicted(version("a", 5), version("b", 3), version("c", 4), missing=10) == ["b"]


def test_so_many_leave_as_are_needed() -> None:
    assert evicted(version("a", 5), version("b", 3), version("c", 4), missing=11) == ["b", "c"]
    assert evicted(version("a", 5), version("b", 3), version("c", 4), models=2) == ["b", "c"]


def test_small_ones_stay_when_a_large_one_has_to_leave_anyway() -> None:
    assert evicted(version("small", 1, size=5), version("large", 2, size=50), missing=50) == ["large"]


def test_nobody_leaves_for_nothing() -> None:
    assert evicted(version("a", 5)) == []


def test_in_use_pinned_and_just_loaded_ones_stay() -> None:
    stay = (
        version("busy", 1, in_flight=1),
        version("pinned", 1, is_pinned=True),
        version("new", 1, ready_s=NOW_S - 3.9, load_s=1.0),
    )

    assert evicted(*stay, missing=10) is None
    assert evicted(*stay, version("old", 9), missing=10) == ["old"]


def test_stay_is_long_enough_for_what_the_load_took_within_bounds() -> None:
    def may_leave(load_s: float, stayed_s: float) -> bool:
        return version("a", 0, ready_s=NOW_S - stayed_s, load_s=load_s).may_leave(NOW_S)

    assert (may_leave(0.01, 0.9), may_leave(0.01, 1.0)) == (False, True)
    assert (may_leave(5.0, 19.9), may_leave(5.0, 20.0)) == (False, True)
    assert (may_leave(500.0, 59.9), may_leave(500.0, 60.0)) == (False, True)


def test_a_model_is_gone_with_its_last_version() -> None:
    old, new = version("a", 1, version=1), version("a", 9, version=2)

    assert evicted(old, new, version("b", 3), models=1) == ["b"]
    assert evicted(old, new, models=1) == ["a", "a"]


def test_what_cannot_leave_now_may_leave_later() -> None:
    busy = version("busy", 1, in_flight=1)
    pinned = version("pinned", 1, is_pinned=True)

    assert can_be_met([busy], Shortage({"cpu": 10}))
    assert not can_be_met([pinned], Shortage({"cpu": 10}))
    assert not can_be_met([busy], Shortage({"cpu": 11}))
    assert not can_be_met([busy], Shortage({"cuda:0": 1}))


residents_strategy = st.lists(
    st.builds(
        CachedVersion,
        st.builds(VersionKey, st.sampled_from("abcdef"), st.integers(1, 3)),
        st.dictionaries(st.sampled_from(["cpu", "cuda:0"]), st.integers(0, 50), max_size=2),
        st.floats(NOW_S - 100, NOW_S),
        st.floats(0, 30),
        st.floats(0, NOW_S),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda item: item.key,
)
shortages = st.builds(
    Shortage, st.dictionaries(st.sampled_from(["cpu", "cuda:0"]), st.integers(1, 120), max_size=2), st.integers(-1, 4)
)


@given(cached=residents_strategy, shortage=shortages)
def test_room_is_made_by_as_few_as_are_needed_of_those_that_may_leave(
    cached: list[CachedVersion], shortage: Shortage
) -> None:
    found = to_evict(cached, shortage, NOW_S)
    may_leave = [item for item in cached if item.may_leave(NOW_S)]
    if found is None:
        assert not shortage.is_met_by(may_leave, cached)
        return
    chosen = [item for item in cached if item.key in found]
    assert all(item in may_leave for item in chosen)
    assert shortage.is_met_by(chosen, cached)
    for item in chosen:
        assert not shortage.is_met_by([other for other in chosen if other is not item], cached), "none too many"
    assert can_be_met(cached, shortage)
