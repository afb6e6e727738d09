"""Which devices get a version: never one without room, each on its own or the one with most room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saccade.service.supervisor.placement.device_memory import DeviceMemory, Holding, Need
from saccade.service.supervisor.placement.place import Policy, place

MIB = 1024 * 1024
A, B, C = "cuda:0", "cuda:1", "cuda:2"


def memory_by_device(**free_mib: int | None) -> dict[str, DeviceMemory]:
    """Empty devices with this much room; `a=100` is the first GPU."""
    names = {"a": A, "b": B, "c": C}
    return {
        names[short]: DeviceMemory(names[short], None if mib is None else mib * MIB, ())
        for short, mib in free_mib.items()
    }


def needs(mib: int, *devices: str) -> dict[str, Need]:
    return dict.fromkeys(devices, Need(mib * MIB, False))


def test_replicas_go_to_every_device_with_room_and_the_others_say_why_not() -> None:
    found = place(needs(50, A, B), memory_by_device(a=100, b=20), (), "replicate")

    assert found.devices == (A,)
    assert list(found.refusals) == [B]
    assert found.spared == ()


def test_replica_does_not_wait_for_a_device_that_has_not_started() -> None:
    found = place(needs(50, A, B), memory_by_device(a=100), (), "replicate")

    assert (found.devices, dict(found.refusals), found.spared) == ((A,), {}, ())


def test_spread_takes_the_device_with_most_room_and_spares_the_rest() -> None:
    found = place(needs(50, A, B, C), memory_by_device(a=60, b=80, c=40), (), "spread")

    assert (found.devices, found.spared) == ((B,), (A, C))


def test_spread_waits_until_every_device_is_known_or_lost() -> None:
    assert place(needs(50, A, B), memory_by_device(a=100), (), "spread").devices == ()
    assert place(needs(50, A, B), memory_by_device(a=100), (B,), "spread").devices == (A,)
    assert place(needs(50, A, B), {}, (A, B), "spread").devices == ()


def test_spread_without_limits_evens_out_what_devices_hold() -> None:
    holding = Holding("other/1 fp32", Need(MIB, False))
    unbounded = {A: DeviceMemory(A, None, (holding,)), B: DeviceMemory(B, None, ())}

    assert place(needs(1, A, B), unbounded, (), "spread").devices == (B,)


def test_spread_with_room_nowhere_names_the_figures_of_every_device() -> None:
    found = place(needs(50, A, B), memory_by_device(a=10, b=20), (), "spread")

    assert (found.devices, sorted(found.refusals), found.spared) == ((), [A, B], ())


sizes = st.integers(0, 200)
rooms = st.dictionaries(st.sampled_from((A, B, C)), st.none() | st.integers(0, 200))


@given(
    st.dictionaries(st.sampled_from((A, B, C)), sizes, min_size=1),
    rooms,
    st.sets(st.sampled_from((A, B, C))),
    st.sampled_from(("replicate", "spread")),
)
def test_nothing_is_placed_without_room_and_no_device_has_two_answers(
    needed: dict[str, int], room: dict[str, int | None], lost: set[str], policy: Policy
) -> None:
    known = {
        device: DeviceMemory(device, None if mib is None else mib * MIB, ())
        for device, mib in room.items()
        if device not in lost
    }
    found = place({device: Need(mib * MIB, True) for device, mib in needed.items()}, known, lost, policy)

    answered = (*found.devices, *found.refusals, *found.spared)
    assert len(set(answered)) == len(answered)
    assert set(answered) <= set(needed)
    for device in found.devices:
        assert device in known
        assert room[device] is None or needed[device] <= room[device]  # type: ignore[operator]  # None is left out
    for device in found.refusals:
        assert room[device] is not None
        assert needed[device] > room[device]  # type: ignore[operator]  # None is left out
    if policy == "spread":
        assert len(found.devices) <= 1
