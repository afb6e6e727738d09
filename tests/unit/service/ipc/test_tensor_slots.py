"""Shared slots: aligned, apart from each other, seen by every mapping of the descriptor."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.models.contract.specs import Task, TensorSpec
from saccade.service.ipc.handshake import receive_arena, send_arena
from saccade.service.ipc.messages import Hello
from saccade.service.ipc.tensor_slots import SlotArena, TensorPlace, layout_of
from tests.support.versions import manifest_for

PLACE = TensorPlace(64, (2, 3), np.dtype("float32"))


@pytest.fixture
def arena() -> Iterator[SlotArena]:
    made = SlotArena.create(3, 4096)
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours, theirs


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(["uint8", "float32", "int32"]), st.lists(st.integers(1, 40), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_tensors_are_aligned_and_do_not_overlap(shapes: list[tuple[str, list[int]]]) -> None:
    specs = [TensorSpec.model_validate({"name": "t", "dtype": dtype, "shape": shape}) for dtype, shape in shapes]

    layout = layout_of(specs[0], tuple(specs[1:]))

    end = 0
    for place in (layout.input, *layout.outputs):
        assert place.offset % 64 == 0
        assert place.offset >= end
        end = place.offset + int(np.prod(place.shape, dtype=np.int64)) * place.dtype.itemsize
    assert layout.size_bytes >= end


def test_layout_holds_input_first_and_outputs_in_their_order() -> None:
    manifest = manifest_for("digits", 1, Task.DETECT)

    layout = layout_of(manifest.input, manifest.outputs)

    assert layout.input == TensorPlace(0, (32, 32, 3), np.dtype("uint8"))
    assert [place.shape for place in layout.outputs] == [(8, 4), (8,), (8,), ()]
    assert layout.size_bytes == 32 * 32 * 3 + 128 + 64 + 64 + 64


def test_two_mappings_of_one_descriptor_see_each_others_bytes(arena: SlotArena) -> None:
    other = SlotArena(os.dup(arena.descriptor), arena.slot_count, arena.slot_bytes)

    arena.tensor(1, PLACE)[...] = 7.5
    assert (other.tensor(1, PLACE) == 7.5).all()

    other.tensor(1, PLACE)[0, 0] = -1.0
    assert arena.tensor(1, PLACE)[0, 0] == -1.0
    other.close()


def test_slots_do_not_touch_each_other(arena: SlotArena) -> None:
    whole = TensorPlace(0, (4096,), np.dtype("uint8"))

    arena.tensor(1, whole)[...] = 255

    assert not arena.tensor(0, whole).any()
    assert not arena.tensor(2, whole).any()


def test_views_of_a_layout_are_kept_per_slot_and_layout(arena: SlotArena) -> None:
    specs = [TensorSpec.model_validate({"name": "t", "dtype": "uint8", "shape": [side]}) for side in (4, 5)]
    first, second = layout_of(specs[0], (specs[0],)), layout_of(specs[0], (specs[1],))

    views = arena.views(1, first)
    views.input[:] = 7
    views.outputs[0][:] = 8

    assert arena.views(1, first) is views
    assert arena.views(1, second) is not views
    assert arena.tensor(1, first.input).tolist() == [7] * 4
    assert arena.tensor(1, first.outputs[0]).tolist() == [8] * 4
    assert arena.tensor(0, first.input).tolist() == [0] * 4


def test_kept_views_are_bounded(arena: SlotArena) -> None:
    sides = range(1, 101)
    specs = [TensorSpec.model_validate({"name": "t", "dtype": "uint8", "shape": [side]}) for side in sides]
    layouts = [layout_of(spec, ()) for spec in specs]

    for layout in layouts:
        arena.views(0, layout)

    assert len(arena._views) <= 12


def test_versions_of_one_layout_share_the_views_of_a_slot(arena: SlotArena) -> None:
    for version in range(1, 8):
        manifest = manifest_for("digits", version, Task.DETECT)
        arena.views(0, layout_of(manifest.input, manifest.answer, manifest.extras))

    assert len(arena._views) == 1


def test_views_stay_valid_after_the_arena_is_closed() -> None:
    arena = SlotArena.create(1, 4096)
    view = arena.tensor(0, PLACE)
    arena.close()
    del arena

    view[...] = 3.0

    assert view.sum() == 18.0


def test_descriptor_is_not_inherited_by_children(arena: SlotArena) -> None:
    assert not os.get_inheritable(arena.descriptor)


def test_arena_travels_over_a_socket(arena: SlotArena, pair: tuple[socket.socket, socket.socket]) -> None:
    send_arena(pair[0], arena)
    received = receive_arena(pair[1])

    arena.tensor(2, PLACE)[...] = 4.0

    assert (received.slot_count, received.slot_bytes) == (3, 4096)
    assert (received.tensor(2, PLACE) == 4.0).all()
    received.close()


def test_hello_without_a_descriptor_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(msgspec.msgpack.encode(Hello(1, 4096)))

    with pytest.raises(ValueError, match="no arena came"):
        receive_arena(pair[1])


def test_peer_that_leaves_at_once_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()

    with pytest.raises(ValueError, match="no arena came"):
        receive_arena(pair[1])


@pytest.mark.parametrize("hello", [Hello(4, 4096), Hello(3, 8192), Hello(-3, -4096 * 2)])
def test_arena_of_another_size_than_announced_is_refused_and_closed(
    arena: SlotArena, pair: tuple[socket.socket, socket.socket], hello: Hello
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(pair[0], [msgspec.msgpack.encode(hello)], [arena.descriptor])

    with pytest.raises(ValueError, match="not of the announced size"):
        receive_arena(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_garbage_with_a_descriptor_is_refused(arena: SlotArena, pair: tuple[socket.socket, socket.socket]) -> None:
    socket.send_fds(pair[0], [b"garbage"], [arena.descriptor])

    with pytest.raises(ValueError, match=r"."):
        receive_arena(pair[1])
