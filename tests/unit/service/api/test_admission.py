"""Admission on two devices: the one that is done first, another when that is full, or a refusal."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest

from saccade.service.api.admission import Admission, Admitted
from saccade.service.api.admission_rules import Urgency, WaitBounds
from saccade.service.api.devices import Device, Devices
from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.priority import Priority
from saccade.service.api.slots import Permit, Slots
from saccade.service.errors import NotReady, Overloaded
from saccade.service.ipc.messages import DONE_OK, DeviceStatus, Done, InstanceStatus
from saccade.service.ipc.tensor_slots import SlotArena
from tests.unit.service.api.catalogs import catalog, instance, version_of

SLOTS = 3
NO_BOUNDS = WaitBounds()
FIRST, SECOND = instance("cuda:0", 1), instance("cuda:1", 2)


class ScriptedConnection:
    """Connected or not; nothing is sent."""

    def __init__(self) -> None:
        self.is_connected = True
        self.socket_path = ""

    def follow(self, socket_path: str) -> None:
        self.socket_path = socket_path


class Story:
    """Two devices with three slots each."""

    def __init__(self, arenas: list[SlotArena], bounds: WaitBounds = NO_BOUNDS) -> None:
        parts = {}
        for name, arena in zip(("cuda:0", "cuda:1"), arenas, strict=True):
            slots = Slots()
            slots.adopt(arena)
            parts[name] = Device(slots, InstanceEstimates(), ScriptedConnection())  # type: ignore[arg-type]  # same methods
        self.devices = Devices(parts)
        self.admission = Admission(self.devices, bounds)

    @property
    def in_use(self) -> int:
        return sum(device.slots.in_use for device in self.devices.by_name.values())

    def connection(self, name: str) -> ScriptedConnection:
        return cast(ScriptedConnection, self.devices.by_name[name].client)

    def tell(self, item: InstanceStatus, *, wait_s: float = 0.0, infer_s: float = 0.0) -> None:
        """Its worker answers one request and says how long a newcomer would wait."""
        done = Done(1, DONE_OK, 0.0, infer_s, int(infer_s > 0), wait_s=wait_s)
        estimates = self.devices.by_name[item.device].estimates
        estimates.sent(item.instance_id)
        estimates.answered(item.instance_id, done, time.monotonic())

    def admit(self, images: int = 1) -> Admitted:
        return self.admission.admit([FIRST, SECOND], images)

    def measure(self, *, first_s: float, second_s: float) -> None:
        """Both answered once."""
        self.tell(FIRST, infer_s=first_s)
        self.tell(SECOND, infer_s=second_s)

    def take_all(self) -> list[Permit]:
        return [permit for _ in range(2 * SLOTS) for permit in self.admit().permits]


@pytest.fixture
def arenas_of_two() -> Iterator[list[SlotArena]]:
    with ExitStack() as stack:
        arenas = [SlotArena.create(SLOTS, 4096) for _ in range(2)]
        for arena in arenas:
            stack.callback(arena.close)
        yield arenas


@pytest.fixture
def story(arenas_of_two: list[SlotArena]) -> Story:
    return Story(arenas_of_two)


def test_equal_devices_share_the_requests(story: Story) -> None:
    devices = Counter(story.admit().instance.device for _ in range(4))

    assert devices == {"cuda:0": 2, "cuda:1": 2}
    assert story.in_use == 4


def test_slower_device_gets_fewer(story: Story) -> None:
    story.measure(first_s=0.01, second_s=0.1)

    assert [story.admit().instance.device for _ in range(3)] == ["cuda:0"] * 3


def test_full_device_hands_over_to_the_other(story: Story) -> None:
    story.measure(first_s=0.001, second_s=1.0)  # so that it would be done sooner all the same
    story.admission.admit([FIRST], SLOTS)
    for given in (story.admit(2), story.admit(1)):
        assert given.instance.device == "cuda:1"


def test_only_when_no_device_has_a_slot_the_answer_is_overloaded(story: Story) -> None:
    permits = story.take_all()

    with pytest.raises(Overloaded, match=r"1 of 3 slots asked for, 0 free; .*SACCADE_SLOTS") as caught:
        story.admit()
    assert (caught.value.what, caught.value.retry_after_s) == ("slots", 1.0)
    story.tell(FIRST, wait_s=2.5)
    story.tell(SECOND, wait_s=2.5)
    with pytest.raises(Overloaded, match="slots") as caught:
        story.admit()
    assert caught.value.retry_after_s == pytest.approx(2.5, abs=0.1)
    permits[4].release()
    assert len(story.admit().permits) == 1


def test_images_of_one_request_stay_together_and_go_where_there_is_most_room(story: Story) -> None:
    story.admission.admit([FIRST], 2)
    story.admission.admit([SECOND], 1)

    given = story.admit(3)  # three are free, two of them on the second

    assert given.instance.device == "cuda:1"
    assert len(given.permits) == 2
    assert story.in_use == 5


def in_a_hurry(allowed_s: float, priority: Priority = Priority.NORMAL) -> Urgency:
    return Urgency(priority, allowed_s)


def test_request_goes_where_it_can_still_be_in_time(story: Story) -> None:
    story.tell(FIRST, wait_s=5.0)
    story.tell(SECOND, wait_s=0.5)

    for _ in range(SLOTS):
        assert story.admission.admit([FIRST, SECOND], 1, in_a_hurry(2.0)).instance.device == "cuda:1"


def test_request_that_would_be_late_everywhere_is_refused_before_and_after_its_body(story: Story) -> None:
    story.tell(FIRST, wait_s=5.0)
    story.tell(SECOND, wait_s=4.0)

    for refuse in (
        lambda: story.admission.ensure_room([FIRST, SECOND], in_a_hurry(2.0)),
        lambda: story.admission.admit([FIRST, SECOND], 1, in_a_hurry(2.0)),
    ):
        with pytest.raises(Overloaded, match=r"would wait about (4000|39\d\d) ms") as caught:
            refuse()
        assert caught.value.what == "wait"
        assert 2.3 < caught.value.retry_after_s < 2.5  # 4 s, less four fifths of 2 s
    story.admission.ensure_room([FIRST, SECOND], in_a_hurry(6.0))
    assert story.in_use == 0


def test_request_without_a_slot_is_refused_before_its_body(story: Story) -> None:
    story.take_all()

    with pytest.raises(Overloaded, match="slots"):
        story.admission.ensure_room([FIRST, SECOND], Urgency())


def test_low_priority_is_refused_first(story: Story) -> None:
    for item in (FIRST, SECOND):
        story.tell(item, wait_s=1.0)

    story.admission.ensure_room([FIRST, SECOND], in_a_hurry(2.0))
    with pytest.raises(Overloaded):
        story.admission.ensure_room([FIRST, SECOND], in_a_hurry(2.0, Priority.LOW))


def test_low_priority_leaves_slots_to_the_others() -> None:
    arena = SlotArena.create(4, 4096)
    slots = Slots()
    slots.adopt(arena)
    admission = Admission(Devices({"cuda:0": Device(slots, InstanceEstimates(), ScriptedConnection())}))  # type: ignore[arg-type]  # same methods

    assert len(admission.admit([FIRST], 4, Urgency(Priority.LOW)).permits) == 3
    with pytest.raises(Overloaded, match="1 of 4 slots asked for, 1 free"):
        admission.admit([FIRST], 1, Urgency(Priority.LOW))
    assert len(admission.admit([FIRST], 1).permits) == 1
    arena.close()


def test_bound_on_the_wait_holds_for_any_deadline(arenas_of_two: list[SlotArena]) -> None:
    story = Story(arenas_of_two, WaitBounds(0.5))
    for item in (FIRST, SECOND):
        story.tell(item, wait_s=1.0)

    with pytest.raises(Overloaded, match="SACCADE_MAX_ESTIMATED_WAIT_MS"):
        story.admission.ensure_room([FIRST, SECOND], Urgency())


def test_objective_holds_for_who_names_no_deadline_and_for_nobody_else(arenas_of_two: list[SlotArena]) -> None:
    story = Story(arenas_of_two, WaitBounds(has_objective=True, objective_s=0.5))
    for item in (FIRST, SECOND):
        story.tell(item, wait_s=1.0)

    assert story.admission.admit([FIRST, SECOND], 1, Urgency(allowed_s=10.0)).permits
    with pytest.raises(Overloaded, match="deadline_ms"):
        story.admission.admit([FIRST, SECOND], 1, Urgency(allowed_s=10.0, names_deadline=False))


def test_device_without_a_worker_is_left_out(story: Story) -> None:
    story.connection("cuda:0").is_connected = False

    assert [story.admit().instance.device for _ in range(SLOTS)] == ["cuda:1"] * SLOTS
    assert story.devices.is_connected


def test_no_worker_at_all_is_not_ready(story: Story) -> None:
    for name in ("cuda:0", "cuda:1"):
        story.connection(name).is_connected = False

    with pytest.raises(NotReady, match="restarting"):
        story.admit()
    assert not story.devices.is_connected


def test_permits_count_for_their_instance_until_the_last_holder_releases_them(story: Story) -> None:
    given = story.admission.admit([SECOND], 2)
    given.permits[0].hold()
    for permit in given.permits:
        permit.release()

    assert story.devices.by_name["cuda:1"].slots.in_flight == {2: 1}
    given.permits[0].release()
    assert story.devices.by_name["cuda:1"].slots.in_flight == {}
    assert story.in_use == 0


def test_catalog_says_where_workers_listen_and_which_instances_are_gone(story: Story) -> None:
    story.measure(first_s=0.5, second_s=0.5)
    devices = (DeviceStatus("cuda:0", True, 0, "/run/0.sock"), DeviceStatus("cuda:1", True, 2, "/run/1.sock"))

    story.devices.follow(catalog(version_of("digits", 1, SECOND), devices=devices))

    assert [story.connection(name).socket_path for name in ("cuda:0", "cuda:1")] == ["/run/0.sock", "/run/1.sock"]
    assert story.devices.by_name["cuda:0"].estimates.image_s(1) is None
    assert story.devices.by_name["cuda:1"].estimates.image_s(2) == 0.5


def test_expected_wait_is_that_of_the_device_that_is_done_first(story: Story) -> None:
    story.tell(FIRST, wait_s=5.0, infer_s=0.01)
    story.tell(SECOND, wait_s=0.5, infer_s=0.02)

    assert story.admission.expected_wait_s([FIRST, SECOND], 1) == pytest.approx(0.52, abs=0.1)
    assert story.admission.expected_wait_s([FIRST], 1) == pytest.approx(5.01, abs=0.1)


def test_a_device_without_a_slot_is_expected_to_take_for_ever(story: Story) -> None:
    story.take_all()

    assert story.admission.expected_wait_s([FIRST, SECOND], 1) == math.inf


def test_wait_of_a_device_that_is_away_is_for_admit_to_refuse(story: Story) -> None:
    story.connection("cuda:0").is_connected = False

    assert story.admission.expected_wait_s([FIRST], 1) == 0.0


def test_a_wait_that_would_be_refused_is_for_ever(arenas_of_two: list[SlotArena]) -> None:
    """So that a ladder steps down before SACCADE_MAX_ESTIMATED_WAIT_MS refuses."""
    story = Story(arenas_of_two, WaitBounds(0.1))
    story.tell(FIRST, wait_s=0.5)

    assert story.admission.expected_wait_s([FIRST], 1) == math.inf
