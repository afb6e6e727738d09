"""What rules in place of a version that is held as stable and cannot be served here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from saccade.service.repository.serving_document import ServingDocument
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.plan_decision import PlanDecision
from saccade.service.supervisor.quarantine import Quarantines
from saccade.service.supervisor.serving_documents import Ruling, ServingDocuments
from saccade.service.supervisor.stable_versions import StableVersions
from tests.support.reconciling import A, Simulation

HELD = Ruling(ServingDocument(generation=4, policy="hold", labels={"stable": 2}), before=(3,))
TOO_LARGE_MIB = 200


def stable(
    simulation: Simulation, *, settings: Settings | None = None, answered: int | None = None, is_decided: bool = False
) -> int | None:
    """The version that rules by the document above, of 1, 2 and 3; `answered` was stable here until now."""
    settings = settings or Settings()
    versions = StableVersions()
    versions.now["digits"] = answered
    watch = SimpleNamespace(
        rulings={"digits": HELD},
        listing=SimpleNamespace(of=lambda model: [1, 2, 3]),
        documents=ServingDocuments(settings.repository, None, settings.pins),
    )
    quarantines = Quarantines(settings, simulation.observed, cast(Any, watch), versions, lambda: None)
    plans = {(key, A): PlanDecision(None, None, "") for key in simulation.observed.versions} if is_decided else {}
    return quarantines.policies(plans)["digits"].stable


def having(*file_mib: int, refusal: str = "") -> Simulation:
    """A server that has tried version 2, and has it to load if it may."""
    simulation = Simulation()
    simulation.publish("digits", 2, *file_mib, refusal=refusal)
    simulation.policies = {"digits": HELD.policy}
    while simulation.step():
        pass
    return simulation


def test_one_that_is_refused_is_replaced_by_what_answers_or_else_by_the_history() -> None:
    refused = having(refusal="unjudged")

    assert stable(refused) == 3
    assert stable(refused, answered=1) == 1
    assert stable(refused, answered=2) == 3
    assert stable(refused, settings=Settings(serve_versions="digits=2"), answered=1) == 2  # a pin is a pin


@pytest.mark.parametrize(("state", "rules"), [("ready", 2), ("failed", 3)])
def test_one_that_fails_in_its_load_is_replaced(state: str, rules: int) -> None:
    simulation = having()
    assert stable(simulation) == 2  # while it loads

    simulation.finish(state, reason="its answers differ from the recorded ones")

    assert stable(simulation) == rules


def test_one_that_is_tried_again_is_waited_for() -> None:
    assert stable(having(TOO_LARGE_MIB)) == 2

    failed = having()
    failed.finish("failed")
    assert (stable(failed), stable(failed, is_decided=True)) == (3, 2)  # another plan may serve
