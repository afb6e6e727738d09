"""What an API process expects of instances: how long a newcomer waits, and how fast they are."""

from __future__ import annotations

import pytest

from saccade.service.api.instance_estimates import InstanceEstimates, Wait
from saccade.service.ipc.messages import DONE_OK, Done


def done(*, wait_s: float = 0.0, image_s: float = 0.0, run_s: float = 0.0, batch_size: int | None = None) -> Done:
    """A reply; without a run its batch has no images."""
    images = int(run_s > 0) if batch_size is None else batch_size
    return Done(1, DONE_OK, 0.0, run_s / 2, images, decode_s=run_s / 2, wait_s=wait_s, image_s=image_s)


@pytest.fixture
def estimates() -> InstanceEstimates:
    """Instance 7 said at 100 s that one would wait 2 s, and 0.1 s more for each further image."""
    made = InstanceEstimates()
    made.sent(7)
    made.answered(7, done(wait_s=2.0, image_s=0.1, run_s=0.4), 100.0)
    return made


def test_instance_that_never_answered_is_not_waited_for() -> None:
    assert InstanceEstimates().wait(7, in_flight=50, now_s=0.0) == Wait(0.0, 0.0)


def test_wait_shrinks_as_time_passes_and_is_gone_in_the_end(estimates: InstanceEstimates) -> None:
    assert estimates.wait(7, 0, 100.5).wait_s == pytest.approx(1.5)
    assert estimates.wait(7, 0, 103.0).wait_s == 0.0


def test_what_was_sent_since_and_what_is_still_decoded_comes_on_top(estimates: InstanceEstimates) -> None:
    for _ in range(3):
        estimates.sent(7)

    assert estimates.wait(7, in_flight=5, now_s=100.0).wait_s == pytest.approx(2.0 + 5 * 0.1)


def test_news_replace_what_was_known(estimates: InstanceEstimates) -> None:
    estimates.sent(7)
    estimates.answered(7, done(wait_s=0.5, image_s=0.1, run_s=0.0), 101.0)

    assert estimates.wait(7, 0, 101.0) == Wait(0.5, 0.4)


def test_run_time_follows_what_runs(estimates: InstanceEstimates) -> None:
    for _ in range(30):
        estimates.sent(7)
        estimates.answered(7, done(wait_s=0.0, image_s=0.1, run_s=0.8), 101.0)

    assert estimates.wait(7, 0, 101.0).run_s == pytest.approx(0.8, rel=0.01)


def test_gone_instances_and_retired_arenas_are_forgotten(estimates: InstanceEstimates) -> None:
    estimates.keep_only({7})
    assert estimates.wait(7, 0, 100.0).wait_s == 2.0
    estimates.keep_only({8})
    assert estimates.wait(7, 0, 100.0).wait_s == 0.0
    estimates.sent(8)
    estimates.clear()
    assert estimates.wait(8, in_flight=3, now_s=100.0) == Wait(0.0, 0.0)


def test_other_senders_are_taken_to_send_as_much() -> None:
    made = InstanceEstimates(senders=2)
    made.sent(7)
    made.answered(7, done(wait_s=0.0, image_s=0.01, run_s=0.02), 0.0)
    for _ in range(3):
        made.sent(7)

    assert made.wait(7, in_flight=3, now_s=0.0).wait_s == pytest.approx(0.06)
    assert made.wait(7, in_flight=4, now_s=0.0).wait_s == pytest.approx(0.08)  # one is still being decoded here


def test_estimate_follows_what_is_seen() -> None:
    estimates = InstanceEstimates()
    assert estimates.image_s(1) is None

    estimates.answered(1, done(run_s=0.08, batch_size=8), 0.0)
    assert estimates.image_s(1) == pytest.approx(0.01)
    for _ in range(40):
        estimates.answered(1, done(run_s=0.02), 0.0)
    assert estimates.image_s(1) == pytest.approx(0.02, rel=0.01)


def test_request_that_never_ran_says_nothing_of_speed() -> None:
    estimates = InstanceEstimates()
    estimates.answered(1, done(), 0.0)

    assert estimates.image_s(1) is None


def test_outstanding_work_counts_every_instance_of_a_device() -> None:
    estimates = InstanceEstimates()
    estimates.answered(1, done(run_s=0.01), 0.0)
    estimates.answered(2, done(run_s=0.1), 0.0)

    assert estimates.outstanding_s({1: 3, 2: 2}) == pytest.approx(0.23)
    assert estimates.outstanding_s({1: 1, 9: 1}) == pytest.approx(0.02), "unmeasured counts like the fastest"
    assert estimates.outstanding_s({}) == 0.0


def test_instances_that_are_gone_are_forgotten() -> None:
    estimates = InstanceEstimates()
    estimates.answered(1, done(run_s=0.01), 0.0)
    estimates.answered(2, done(run_s=0.01), 0.0)

    estimates.keep_only({2, 3})

    assert (estimates.image_s(1), estimates.image_s(2)) == (None, 0.01)
