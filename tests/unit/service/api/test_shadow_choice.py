"""Which requests a shadow is asked about: a share of those that stable answered, the same on every replica."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from saccade.service.api.catalog import ServingCatalog
from saccade.service.ipc.messages import ModelStatus
from saccade.service.metrics import Metrics
from tests.unit.service.api.catalogs import catalog, manifests_of, status

IDS = [f"request {number}" for number in range(5000)]


def applied(serving: ModelStatus, *, is_ready: bool = True) -> ServingCatalog:
    made = ServingCatalog(Metrics(CollectorRegistry()), lambda generation: None)
    snapshot = catalog(status(1), status(2, "ready" if is_ready else "loading"), models=(serving,))
    made.apply(snapshot, manifests_of(snapshot))
    return made


def serving(shadow: int = 2, sample: float = 0.2, generation: int = 1, rollout: str = "") -> ModelStatus:
    return ModelStatus("digits", generation, stable=1, shadow=shadow, sample=sample, rollout=rollout)


def test_share_of_the_requests_of_stable_is_drawn_and_no_other() -> None:
    made = applied(serving())
    stable, other = made.resolve("digits", None, None), made.resolve("digits", "2", None)

    drawn = [request_id for request_id in IDS if made.shadow_of(stable, request_id) is not None]

    assert 900 <= len(drawn) <= 1100
    assert made.shadow_of(stable, drawn[0]) is other
    assert made.shadow_of(other, drawn[0]) is None
    again = applied(serving())
    assert all(again.shadow_of(again.resolve("digits", None, None), request_id) for request_id in drawn)


@pytest.mark.parametrize("made", [applied(serving(shadow=0)), applied(serving(sample=1.0), is_ready=False)])
def test_without_a_ready_shadow_nothing_is_drawn(made: ServingCatalog) -> None:
    assert made.shadow_of(made.resolve("digits", None, None), IDS[0]) is None


def test_counts_are_told_during_a_rollout_and_end_with_the_desired_state() -> None:
    made = applied(serving(rollout="step 1 of 2"))
    stable = made.resolve("digits", None, None)
    stable.tally.answered(0.01)
    (told,) = made.tallies()
    assert (told.version, told.generation, told.answered) == (1, 1, 1)
    assert made.tallies() == ()

    stable.tally.answered(0.01)
    snapshot = catalog(status(1), status(2), generation=2, models=(serving(generation=2, rollout="step 2 of 2"),))
    made.apply(snapshot, manifests_of(snapshot))
    assert made.tallies() == ()
