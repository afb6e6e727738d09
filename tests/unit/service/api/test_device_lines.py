"""Slots and an instance for a request: on the device that is done first, on another when that is full, or 429."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from saccade.service.api.admission import Admission, Permit
from saccade.service.api.device_lines import Assignment, DeviceLine, DeviceLines, SharedGauge
from saccade.service.api.priority import Priority
from saccade.service.api.waits import Urgency, WaitBounds
from saccade.service.errors import NotReady, Overloaded
from saccade.service.ipc.messages import DONE_OK, DeviceStatus, Done, InstanceStatus
from saccade.service.ipc.tensor_slots import SlotArena
from tests.unit.service.api.catalogs import catalog, instance, version_of

SLOTS = 3
NO_BOUNDS = WaitBounds()
FIRST, SECOND = instance("cuda:0", 1), instance("cuda:1", 2)


class Gauge:
    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        self.value = value


class ScriptedClient:
    """Connected or not; nothing is sent."""

    def __init__(self) -> None:
        self.is_connected = True
        self.socket_path = ""

    def follow(self, socket_path: str) -> None:
        self.socket_path = socket_path


class Story:
    """Two devices with three slots each."""

    def __init__(self, arenas: list[SlotArena], bounds: WaitBounds = NO_BOUNDS) -> None:
        self.gauge = Gauge()
        shared = SharedGauge(self.gauge)
        self.admissions = {}
        self.clients = {}
        for device, arena in zip(("cuda:0", "cuda:1"), arenas, strict=True):
            self.admissions[device] = Admission(shared.part(device))
            self.admissions[device].adopt(arena)
            self.clients[device] = ScriptedClient()
        self.lines = DeviceLines(
            {device: DeviceLine(self.admissions[device], client) for device, client in self.clients.items()},  # type: ignore[arg-type]  # same methods
            bounds,
        )

    def tell(self, item: InstanceStatus, wait_s: float) -> None:
        """Its worker says how long a newcomer would wait."""
        waits = self.admissions[item.device].waits
        waits.answered(item.instance_id, wait_s, image_s=0.0, run_s=0.0, now_s=time.monotonic())

    def assign(self, images: int = 1) -> Assignment:
        return self.lines.assign([FIRST, SECOND], images)

    def measure(self, *, first_s: float, second_s: float) -> None:
        """Both answered once."""
        for item, seconds in ((FIRST, first_s), (SECOND, second_s)):
            given = self.lines.assign([item], 1)
            given.observe(Done(1, DONE_OK, 0.0, seconds, 1))
            given.permits[0].let_go()

    def take_all(self) -> list[Permit]:
        return [permit for _ in range(2 * SLOTS) for permit in self.assign().permits]


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
    devices = Counter(story.assign().instance.device for _ in range(4))

    assert devices == {"cuda:0": 2, "cuda:1": 2}
    assert story.gauge.value == 4


def test_slower_device_gets_fewer(story: Story) -> None:
    story.measure(first_s=0.01, second_s=0.1)

    assert [story.assign().instance.device for _ in range(3)] == ["cuda:0"] * 3


def test_full_device_hands_over_to_the_other(story: Story) -> None:
    story.measure(first_s=0.001, second_s=1.0)  # so that it would be done sooner all the same
    story.lines.assign([FIRST], SLOTS)
    for given in (story.assign(2), story.assign(1)):
        assert given.instance.device == "cuda:1"


def test_only_when_no_device_has_a_slot_the_answer_is_overloaded(story: Story) -> None:
    permits = story.take_all()

    with pytest.raises(Overloaded, match=r"1 of 3 slots asked for, 0 free"):
        story.assign()
    permits[4].let_go()
    assert len(story.assign().permits) == 1


def test_images_of_one_request_stay_together_and_go_where_there_is_most_room(story: Story) -> None:
    story.lines.assign([FIRST], 2)
    story.lines.assign([SECOND], 1)

    given = story.assign(3)  # three are free, two of them on the second

    assert given.instance.device == "cuda:1"
    assert len(given.permits) == 2
    assert story.gauge.value == 5


def in_a_hurry(allowed_s: float, priority: Priority = Priority.NORMAL) -> Urgency:
    return Urgency(priority, allowed_s)


def test_request_goes_where_it_can_still_be_in_time(story: Story) -> None:
    story.tell(FIRST, wait_s=5.0)
    story.tell(SECOND, wait_s=0.5)

    for _ in range(SLOTS):
        assert story.lines.assign([FIRST, SECOND], 1, in_a_hurry(2.0)).instance.device == "cuda:1"


def test_request_that_would_be_late_everywhere_is_refused_before_and_after_its_body(story: Story) -> None:
    story.tell(FIRST, wait_s=5.0)
    story.tell(SECOND, wait_s=4.0)

    for refuse in (
        lambda: story.lines.ensure_room([FIRST, SECOND], in_a_hurry(2.0)),
        lambda: story.lines.assign([FIRST, SECOND], 1, in_a_hurry(2.0)),
    ):
        with pytest.raises(Overloaded, match=r"would wait about (4000|3999) ms") as caught:
            refuse()
        assert caught.value.what == "wait"
        assert 2.3 < caught.value.retry_after_s < 2.5  # 4 s, less four fifths of 2 s
    story.lines.ensure_room([FIRST, SECOND], in_a_hurry(6.0))
    assert story.gauge.value == 0


def test_request_without_a_slot_is_refused_before_its_body(story: Story) -> None:
    story.take_all()

    with pytest.raises(Overloaded, match="slots"):
        story.lines.ensure_room([FIRST, SECOND], Urgency())


def test_low_priority_is_refused_first(story: Story) -> None:
    for item in (FIRST, SECOND):
        story.tell(item, wait_s=1.0)

    story.lines.ensure_room([FIRST, SECOND], in_a_hurry(2.0))
    with pytest.raises(Overloaded):
        story.lines.ensure_room([FIRST, SECOND], in_a_hurry(2.0, Priority.LOW))


def test_bound_on_the_wait_holds_for_any_deadline(arenas_of_two: list[SlotArena]) -> None:
    story = Story(arenas_of_two, WaitBounds(0.5))
    for item in (FIRST, SECOND):
        story.tell(item, wait_s=1.0)

    with pytest.raises(Overloaded, match="SACCADE_MAX_ESTIMATED_WAIT_MS"):
        story.lines.ensure_room([FIRST, SECOND], Urgency())


def test_objective_holds_for_who_names_no_deadline_and_for_nobody_else(arenas_of_two: list[SlotArena]) -> None:
    story = Story(arenas_of_two, WaitBounds(has_objective=True, objective_s=0.5))
    for item in (FIRST, SECOND):
        story.tell(item, wait_s=1.0)

    assert story.lines.assign([FIRST, SECOND], 1, Urgency(allowed_s=10.0)).permits
    with pytest.raises(Overloaded, match="deadline_ms"):
        story.lines.assign([FIRST, SECOND], 1, Urgency(allowed_s=10.0, names_deadline=False))


def test_device_without_a_worker_is_left_out(story: Story) -> None:
    story.clients["cuda:0"].is_connected = False

    assert [story.assign().instance.device for _ in range(SLOTS)] == ["cuda:1"] * SLOTS
    assert story.lines.is_connected


def test_no_worker_at_all_is_not_ready(story: Story) -> None:
    for client in story.clients.values():
        client.is_connected = False

    with pytest.raises(NotReady, match="restarting"):
        story.assign()
    assert not story.lines.is_connected


def test_permits_count_for_their_instance_until_the_last_holder_lets_go(story: Story) -> None:
    given = story.lines.assign([SECOND], 2)
    given.permits[0].hold()
    for permit in given.permits:
        permit.let_go()

    assert story.admissions["cuda:1"].in_flight == {2: 1}
    given.permits[0].let_go()
    assert story.admissions["cuda:1"].in_flight == {}
    assert story.gauge.value == 0


def test_catalog_says_where_workers_listen_and_which_instances_are_gone(story: Story) -> None:
    given = story.lines.assign([FIRST], 1)
    given.observe(Done(1, DONE_OK, 0.0, 0.5, 1))
    devices = (DeviceStatus("cuda:0", True, 0, "/run/0.sock"), DeviceStatus("cuda:1", True, 2, "/run/1.sock"))

    story.lines.follow(catalog(version_of("digits", 1, SECOND), devices=devices))

    assert [client.socket_path for client in story.clients.values()] == ["/run/0.sock", "/run/1.sock"]
    assert given.speeds.image_s(1) is None


def test_expected_wait_is_that_of_the_device_that_is_done_first(story: Story) -> None:
    story.measure(first_s=0.01, second_s=0.02)
    story.tell(FIRST, wait_s=5.0)
    story.tell(SECOND, wait_s=0.5)

    assert story.lines.expected_wait_s([FIRST, SECOND], 1) == pytest.approx(0.52, abs=0.1)
    assert story.lines.expected_wait_s([FIRST], 1) == pytest.approx(5.01, abs=0.1)


def test_a_device_without_a_slot_is_expected_to_take_for_ever(story: Story) -> None:
    story.take_all()

    assert story.lines.expected_wait_s([FIRST, SECOND], 1) == math.inf


def test_wait_of_a_device_that_is_away_is_for_assign_to_refuse(story: Story) -> None:
    story.clients["cuda:0"].is_connected = False

    assert story.lines.expected_wait_s([FIRST], 1) == 0.0


def test_a_wait_that_would_be_refused_is_for_ever(arenas_of_two: list[SlotArena]) -> None:
    """So that a ladder steps down before SACCADE_MAX_ESTIMATED_WAIT_MS refuses."""
    story = Story(arenas_of_two, WaitBounds(0.1))
    story.tell(FIRST, wait_s=0.5)

    assert story.lines.expected_wait_s([FIRST], 1) == math.inf


def test_gauge_is_written_once_for_many_changes() -> None:
    gauge, due = Gauge(), []
    shared = SharedGauge(gauge, due.append)

    for value in (1, 2, 3):
        shared.part("cuda:0").set(value)
    shared.part("cuda:1").set(4)
    assert (gauge.value, len(due)) == (0, 1)
    due[0]()

    assert gauge.value == 7
    shared.part("cuda:0").set(0)
    assert len(due) == 2
