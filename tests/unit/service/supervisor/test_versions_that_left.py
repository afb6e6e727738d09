"""The supervisor keeps nothing of versions that left but what it needs, of a fixed number of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from saccade.service.core import VersionKey
from saccade.service.ipc import messages
from saccade.service.settings import Settings
from saccade.service.supervisor.policy import FOLLOW
from saccade.service.supervisor.quarantine import Quarantines
from saccade.service.supervisor.stable_versions import StableVersions
from tests.support.reconciling import Simulation

COUNT = 200


def come_and_go(simulation: Simulation) -> None:
    """Each version replaces the one before, answers, and is removed."""
    before: VersionKey | None = None
    for number in range(1, COUNT + 1):
        key = simulation.publish("digits", number, 10)
        while not simulation.orders:
            simulation.step()
        simulation.finish(memory_mib=5)
        simulation.settle()
        simulation.use(key)
        if before is not None:
            simulation.remove(before)
            simulation.settle()
            simulation.use(before)  # its last report comes late
        before = key


def test_what_is_observed_of_versions_goes_with_them() -> None:
    simulation = Simulation(versions_per_model=1)

    come_and_go(simulation)

    observed = simulation.observed
    assert observed.versions.keys() == {VersionKey("digits", COUNT)}
    assert len(observed.instances) == 1
    assert {key for reported in observed._usages.values() for key in reported} <= observed.versions.keys()
    assert 1 <= len(observed._measured) <= 17
    assert any(key.manifest_sha256 == f"digest-digits-{COUNT}" for key in observed._measured)


def test_answers_that_are_told_late_do_not_bring_a_version_back() -> None:
    simulation = Simulation()
    watch = SimpleNamespace(rulings={}, listing=None)
    quarantines = Quarantines(Settings(), simulation.observed, cast(Any, watch), StableVersions(), lambda: None)
    for number in range(1, COUNT + 1):
        key = simulation.publish("digits", number)
        simulation.settle()
        told = [messages.Answered("digits", number, 10, 0, 0)]
        quarantines.answered(told)
        assert key in quarantines._answers
        quarantines.forget(key)
        simulation.remove(key)
        quarantines.answered(told)

    assert quarantines._answers == {}


def test_earlier_stable_versions_are_kept_in_a_fixed_number() -> None:
    stable = StableVersions()
    for number in range(1, COUNT + 1):
        stable.settle({"digits": FOLLOW}, {"digits": [number]}, float(number))

    before = stable.before("digits")
    assert before[:2] == [COUNT - 1, COUNT - 2]
    assert len(before) == 64
