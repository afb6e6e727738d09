"""Which instances a request may go to: by ladder, objective, pinned variant and what it allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from saccade.models.contract.extras import ExtraKind
from saccade.service.api.asking import able
from saccade.service.api.catalog import ServingTarget
from saccade.service.api.fallback import Fallback, FallbackRule
from saccade.service.core import VersionKey
from saccade.service.errors import BadParameter
from saccade.service.ipc.messages import InstanceStatus
from saccade.service.ipc.tensor_slots import layout_of
from saccade.service.metrics import Metrics, VersionMetrics
from saccade.service.vision.parameters import DeadlineRule, GivenParameters, complete
from tests.support.versions import EXPLANATION, manifest_for, with_extras
from tests.unit.service.api.catalogs import instance

BEST = instance("cpu", 1, variant="fp32")
CHEAPER = msgspec.structs.replace(instance("cpu", 2, variant="int8-cpu"), ladder_level=1)
EXPLAINING = msgspec.structs.replace(CHEAPER, gives=ExtraKind.EXPLAIN.bit)
MANIFEST = with_extras(manifest_for("digits", 1), EXPLANATION)


def version(*instances: InstanceStatus) -> ServingTarget:
    counted = VersionMetrics(Metrics(CollectorRegistry()), "digits", "1")
    layout = layout_of(MANIFEST.input, MANIFEST.answer)
    return ServingTarget(VersionKey("digits", 1), instances, MANIFEST, layout, counted)


class Story:
    """A version with two variants on its ladder, with waits and a clock that the test sets."""

    def __init__(self, *, is_on: bool = True, objective_s: float | None = 0.2) -> None:
        self.wait_s = 0.0
        self.now_s = 0.0
        self.shown: list[tuple[str, int]] = []
        rule = FallbackRule(is_on, objective_s)
        self._fallback = Fallback(
            rule, self.expected_wait_s, lambda model, level: self.shown.append((model, level)), lambda: self.now_s
        )

    def expected_wait_s(self, instances: Sequence[InstanceStatus], image_count: int) -> float:
        assert len({item.ladder_level for item in instances}) == 1
        return self.wait_s

    def variants(self, *instances: InstanceStatus, **given: object) -> list[str]:
        """Of the instances that may answer a request with these parameters."""
        self.now_s += 0.01
        parameters = complete(GivenParameters(**given), MANIFEST, DeadlineRule(1000.0, 60_000.0))  # type: ignore[arg-type]  # of the test's choice
        target = version(*(instances or (BEST, CHEAPER)))
        return [item.variant for item in self._fallback.instances_for(target, parameters, 1)]

    def press(self) -> None:
        """Time is short, and the ladder has stepped down."""
        self.variants()
        self.wait_s = 0.15
        assert self.variants() == ["int8-cpu"]


def test_best_variant_answers_while_there_is_time() -> None:
    assert Story().variants() == ["fp32"]


def test_cheaper_variant_answers_when_the_objective_is_in_danger() -> None:
    story = Story()
    story.press()

    assert story.shown == [("digits", 0), ("digits", 1)]


def test_request_that_forbids_it_is_answered_by_the_best() -> None:
    story = Story()
    story.press()

    assert story.variants(allow_cheaper=False) == ["fp32"]
    assert story.variants(allow_cheaper=True) == ["int8-cpu"]


@pytest.mark.parametrize("variant", ["fp32", "int8-cpu"])
def test_pinned_variant_answers_at_any_time(variant: str) -> None:
    story = Story()
    assert story.variants(variant=variant) == [variant]
    story.press()

    assert story.variants(variant=variant) == [variant]


def test_variant_that_is_not_loaded_is_named() -> None:
    with pytest.raises(BadParameter, match="loaded: 'fp32', 'int8-cpu'"):
        Story().variants(variant="fp16")


def test_without_an_objective_nothing_engages_unless_the_request_names_a_deadline() -> None:
    story = Story(objective_s=None)
    story.wait_s = 0.9
    story.variants()
    assert story.variants() == ["fp32"], "though half of the default deadline is gone"
    story.wait_s = 0.15

    story.variants(deadline_ms=250)

    assert story.variants(deadline_ms=250) == ["int8-cpu"]
    assert story.variants(deadline_ms=10_000) == ["fp32"]
    assert story.variants() == ["fp32"]


def test_tight_deadlines_of_one_client_do_not_move_the_others() -> None:
    story = Story()
    story.wait_s = 0.02
    story.variants(deadline_ms=10)
    assert story.variants(deadline_ms=10) == ["int8-cpu"]

    assert story.variants() == ["fp32"]


def test_without_a_ladder_every_ready_instance_may_answer() -> None:
    story = Story(is_on=False)
    story.wait_s = math.inf
    story.variants()

    assert story.variants() == ["fp32", "int8-cpu"]


def test_a_ladder_of_one_variant_is_none() -> None:
    story = Story()
    story.wait_s = math.inf
    story.variants(BEST)

    assert story.variants(BEST) == ["fp32"]


def test_the_best_variant_that_is_loaded_answers() -> None:
    assert Story().variants(CHEAPER, allow_cheaper=False) == ["int8-cpu"]


def test_what_only_a_cheaper_variant_computes_is_refused_where_that_is_forbidden() -> None:
    assert Story().variants(BEST, EXPLAINING, explain="grid") == ["int8-cpu"]
    assert Story().variants(EXPLAINING, explain="grid", allow_cheaper=False) == ["int8-cpu"]  # the best that is loaded
    wanted = r"not computed by .*: fp32 \(fake\); loaded variants that do: int8-cpu, which allow_cheaper=false forbids"
    with pytest.raises(BadParameter, match=wanted):
        Story().variants(BEST, EXPLAINING, explain="grid", allow_cheaper=False)


def test_in_a_rollout_it_is_answered_by_the_version_whose_best_variant_computes_it() -> None:
    poor, rich = version(BEST, EXPLAINING), version(EXPLAINING)

    assert able([poor, rich], GivenParameters(explain="grid")) is poor
    assert able([poor, rich], GivenParameters(explain="grid", allow_cheaper=False)) is rich
