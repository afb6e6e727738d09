"""A device and the image threads share JPEGs where one alone is short: the rule, and a simulated GPU server."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from saccade.service.api.decoding_share import DecoderLoad, DeviceDecoding, device_decodes
from saccade.service.ipc import messages

BEHIND = DecoderLoad(waiting=9, image_s=0.001, decode_s=0.032, run_s=0.004)


def done(batch_size: int, decode_s: float, infer_s: float = 0.001) -> messages.Done:
    return messages.Done(1, messages.DONE_OK, 0.0, infer_s, batch_size, decode_s)


def test_device_that_would_be_later_than_the_threads_leaves_them_the_jpeg() -> None:
    assert device_decodes(BEHIND, threads_s=0.0101)
    assert not device_decodes(BEHIND, threads_s=0.0099)


def test_decoding_that_the_runs_hide_stays_on_the_device() -> None:
    assert device_decodes(DecoderLoad(waiting=90, image_s=0.001, decode_s=0.032, run_s=0.032), threads_s=0.0)


def test_idle_device_is_tried_whatever_is_known_of_it() -> None:
    assert device_decodes(DecoderLoad(waiting=0, image_s=1.0, decode_s=1.0, run_s=0.0), threads_s=0.0)


def test_device_takes_all_until_its_first_answer() -> None:
    decoding = DeviceDecoding()
    decoding.sent(is_jpeg=True)

    assert device_decodes(decoding.load, threads_s=0.0)


def test_time_of_a_batch_is_divided_among_its_jpegs_alone() -> None:
    decoding = DeviceDecoding()
    for number in range(2000):
        decoding.sent(is_jpeg=number % 2 == 0)
    for _ in range(200):
        decoding.answered(done(batch_size=31, decode_s=0.016))  # 16 JPEGs and 15 images in pixels

    assert decoding.load.image_s == pytest.approx(0.001, rel=0.1)


def test_jpegs_of_other_processes_are_assumed_to_wait_as_well() -> None:
    decoding = DeviceDecoding(senders=4)
    decoding.sent(is_jpeg=True)
    decoding.sent(is_jpeg=False)

    assert decoding.load.waiting == 4


def test_new_worker_begins_without_jpegs_and_figures() -> None:
    decoding = DeviceDecoding()
    decoding.sent(is_jpeg=True)
    decoding.answered(done(1, 0.001))
    decoding.sent(is_jpeg=True)
    decoding.clear()

    assert decoding.load == DecoderLoad()


Rule = Callable[[DecoderLoad, float], bool]


@dataclass
class SimulatedServer:
    """Clients in a closed loop, image threads, and a device that decodes one batch while it runs the one before."""

    rule: Rule
    decode_s: float  # of one JPEG on the device
    run_s: float  # of one image on the device
    thread_s: float  # of one JPEG in a thread
    threads: int = 4
    clients: int = 128
    batch: int = 32
    now_s: float = 0.0
    answers: int = 0
    by_device: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _in_threads: int = 0
    _threads_free_s: list[float] = field(default_factory=list)
    _queue: deque[bool] = field(default_factory=deque)  # whether each waiting image is a JPEG
    _in_flight: int = 0
    _is_decoding: bool = False
    _run_ends_s: float = 0.0
    _decoding: DeviceDecoding = field(default_factory=DeviceDecoding)

    def rate(self, seconds: float) -> float:
        """Answers per second, without the first second."""
        self._threads_free_s = [0.0] * self.threads
        for _ in range(self.clients):
            self._request()
        before = None
        while self.now_s < seconds:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
            if before is None and self.now_s >= 1.0:
                before, self.by_device = self.answers, 0
        assert before is not None
        self.answers -= before
        return self.answers / (seconds - 1.0)

    def _at(self, when_s: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when_s, self._number, happen))

    def _request(self) -> None:
        wait_s = max(0, self._in_threads - self.threads + 1) / self.threads * self.thread_s
        if self.rule(self._decoding.load, wait_s + self.thread_s):
            self._send(is_jpeg=True)
            return
        self._in_threads += 1
        end_s = max(self.now_s, heapq.heappop(self._threads_free_s)) + self.thread_s
        heapq.heappush(self._threads_free_s, end_s)
        self._at(end_s, self._decoded)

    def _decoded(self) -> None:
        self._in_threads -= 1
        self._send(is_jpeg=False)

    def _send(self, *, is_jpeg: bool) -> None:
        self._decoding.sent(is_jpeg=is_jpeg)
        self._queue.append(is_jpeg)
        self._start()

    def _start(self) -> None:
        if self._is_decoding or self._in_flight == 2 or not self._queue:
            return
        batch = [self._queue.popleft() for _ in range(min(self.batch, len(self._queue)))]
        decode_s, run_s = sum(batch) * self.decode_s, len(batch) * self.run_s
        self._is_decoding, self._in_flight = True, self._in_flight + 1
        self._at(self.now_s + decode_s, self._filled)
        self._run_ends_s = max(self._run_ends_s, self.now_s + decode_s) + run_s
        self._at(self._run_ends_s, lambda: self._answer(batch, decode_s, run_s))

    def _filled(self) -> None:
        self._is_decoding = False
        self._start()

    def _answer(self, batch: list[bool], decode_s: float, run_s: float) -> None:
        self._in_flight -= 1
        for is_jpeg in batch:
            if is_jpeg:
                self._decoding.answered(done(len(batch), decode_s, run_s))
        self.answers += len(batch)
        self.by_device += sum(batch)
        for _ in batch:
            self._request()
        self._start()


def to_the_device(load: DecoderLoad, threads_s: float) -> bool:
    return True


def to_the_threads(load: DecoderLoad, threads_s: float) -> bool:
    return False


@pytest.mark.parametrize(
    ("decode_s", "run_s", "thread_s"),
    [(0.00025, 0.0001, 0.0009), (0.0005, 0.0001, 0.0009), (0.00025, 0.0001, 0.002)],
    ids=["alike", "slow device", "slow threads"],
)
def test_both_together_answer_more_than_the_better_one_where_each_alone_is_short(
    decode_s: float, run_s: float, thread_s: float
) -> None:
    alone = [SimulatedServer(rule, decode_s, run_s, thread_s).rate(3.0) for rule in (to_the_device, to_the_threads)]

    shared = SimulatedServer(device_decodes, decode_s, run_s, thread_s).rate(3.0)

    assert shared > 0.8 * min(sum(alone), 1 / run_s)
    assert shared > 1.2 * max(alone)


def test_processor_is_left_alone_where_the_network_is_what_takes_time() -> None:
    server = SimulatedServer(device_decodes, decode_s=0.0001, run_s=0.0005, thread_s=0.0009)

    rate = server.rate(3.0)

    assert rate == pytest.approx(2000, rel=0.02)
    assert server.by_device == server.answers


def test_threads_that_something_else_keeps_busy_get_little() -> None:
    # given threads that take ten times as long as the device
    server = SimulatedServer(device_decodes, decode_s=0.00025, run_s=0.0001, thread_s=0.02)

    rate = server.rate(3.0)

    assert rate > 0.98 * SimulatedServer(to_the_device, 0.00025, 0.0001, 0.02).rate(3.0)
