"""A device's plans over time: what is built, in which order, how often, and what people see meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.plans import PlanKey, plan_key
from saccade.service.core import VersionKey
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.build_wire import BuildOrder, BuildOutcome, BuildProgress, BuildStage
from saccade.service.supervisor.engines.plan_decision import PlanDecision, Serving, StoredRecord
from saccade.service.supervisor.engines.plans import Follow, Plans, PlanSources, StoreView
from saccade.service.supervisor.placement.specs import InstanceSpec
from tests.unit.service.supervisor.engines.plan_records import DENIED, FLOAT, H200, MANIFEST, PASSED, planned, stored

KEY = VersionKey("digits", 1)
Build = Callable[["Story", BuildOrder, Follow], Awaitable[BuildOutcome]]
ONE = MANIFEST.model_copy(update={"variants": (MANIFEST.variants[0], MANIFEST.variants[3])})  # fp32 and fp16
ACCEPTED = BuildOutcome(accepted=True, denied=False, reason="", plan_dir="/engines/x")


class Story:
    """A builder with a store in memory and scripted builds."""

    def __init__(
        self, build: Build, facts: DeviceFacts = H200, manifest: Manifest = MANIFEST, **settings: object
    ) -> None:
        self.records: list[StoredRecord] = []
        self.elsewhere: set[str] = set()
        self.orders: list[BuildOrder] = []
        self.decisions: list[PlanDecision] = []
        self.refusals: list[str] = []
        self.running = 0
        self._build = build
        self._seen = asyncio.Event()
        values = {"device": "cuda:0", "variant": "auto", "repository": Path("/repository"), **settings}
        self.plans = Plans(Settings.model_validate(values), self._changed, PlanSources(self._view, self._run))
        self.plans.device_found("cuda:0", facts)
        self.plans.follow({KEY: VerifiedVersion(manifest, "a" * 64, Path("/repository/digits/1"))})

    def _changed(self) -> None:
        decision = self.plans.decisions.get((KEY, "cuda:0"))
        if isinstance(decision, str) and decision not in self.refusals[-1:]:
            self.refusals.append(decision)
        elif isinstance(decision, PlanDecision) and decision not in self.decisions[-1:]:
            self.decisions.append(decision)
        self._seen.set()

    def _view(self, key: VersionKey) -> StoreView:
        return StoreView(tuple(self.records), frozenset(self.elsewhere))

    async def _run(self, device: str, order: BuildOrder, follow: Follow) -> BuildOutcome:
        self.orders.append(order)
        self.running += 1
        assert self.running == 1
        try:
            return await self._build(self, order, follow)
        finally:
            self.running -= 1

    def put(self, variant: str, images_per_s: float = 1.0) -> None:
        self.records = [each for each in self.records if each.record.variant != variant]
        self.records.append(stored(variant, PASSED, images_per_s))

    def serving(self) -> list[Serving | None]:
        """What was to serve, one after the other."""
        found: list[Serving | None] = []
        for decision in self.decisions:
            if not found or found[-1] != decision.serve:
                found.append(decision.serve)
        return found

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Runs the builder until something holds."""
        running = asyncio.create_task(self.plans.run())
        try:
            async with asyncio.timeout(10):
                while not is_reached():
                    waiting = asyncio.create_task(self._seen.wait())
                    await asyncio.wait([waiting, running], return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    if running.done():
                        running.result()
                    self._seen.clear()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def until_settled(self) -> None:
        await self.until(lambda: bool(self.decisions) and self.decisions[-1].build is None)


def _spec(serving: Serving | None) -> InstanceSpec:
    assert serving is not None
    return InstanceSpec("cuda:0", serving.variant, serving.backend, serving.plan_dir, serving.plan_sha256)


async def succeed(story: Story, order: BuildOrder, follow: Follow) -> BuildOutcome:
    story.put(order.variant, {"fp16": 100.0, "int8-trt": 200.0}.get(order.variant, 150.0))
    return ACCEPTED


async def fail(story: Story, order: BuildOrder, follow: Follow) -> BuildOutcome:
    return BuildOutcome(accepted=False, denied=False, reason="no kernel fits")


async def test_every_candidate_is_built_once_and_the_fastest_serves() -> None:
    story = Story(succeed)

    await story.until_settled()

    assert [order.variant for order in story.orders] == ["fp16", "int8-trt", "int8-trt-sparse24"]
    assert story.serving() == [
        FLOAT,
        planned("fp16", 100.0),
        planned("int8-trt", 200.0),
    ]


async def test_order_names_all_that_the_child_needs() -> None:
    story = Story(succeed, variant="fp16", engines_dir="/engines", engines_key_file="/secret")

    await story.until_settled()

    (order,) = story.orders
    assert (order.version_dir, order.manifest_sha256, order.engines_dir) == (
        "/repository/digits/1",
        "a" * 64,
        "/engines",
    )
    assert order.engines_key_file == "/secret"
    assert isinstance(order.key, PlanKey)
    assert order.key.capabilities == ("SM90",)


async def test_failing_build_is_tried_twice_and_the_reason_stays_visible() -> None:
    story = Story(fail, manifest=ONE)

    await story.until_settled()

    assert len(story.orders) == 2

    shown = {(status.variant, status.state, status.reason) for status in story.plans.statuses(KEY)}
    assert ("fp16", "failed", "no kernel fits") in shown
    assert any(state == "missing" and "not built in 2 attempts" in reason for _, state, reason in shown)


async def test_build_that_the_store_does_not_show_is_not_repeated_for_ever() -> None:
    async def lose(story: Story, order: BuildOrder, follow: Follow) -> BuildOutcome:
        return ACCEPTED

    story = Story(lose, manifest=ONE, engines_dir="/engines")

    await story.until_settled()

    assert len(story.orders) == 2
    assert any("/engines does not show it" in status.reason for status in story.plans.statuses(KEY))


async def test_denied_plan_is_not_built_again() -> None:
    async def deny(story: Story, order: BuildOrder, follow: Follow) -> BuildOutcome:
        story.records.append(stored(order.variant, DENIED))
        return BuildOutcome(accepted=False, denied=True, reason="device_metric")

    story = Story(deny, manifest=ONE)

    await story.until_settled()

    assert len(story.orders) == 1
    assert "denied by device_metric" in story.decisions[-1].reason


async def test_progress_is_seen_while_it_builds() -> None:
    seen: list[tuple[str, str, float]] = []

    async def slow(story: Story, order: BuildOrder, follow: Follow) -> BuildOutcome:
        follow(BuildProgress(BuildStage.BUILDING, 0.504))
        seen.extend((item.state, item.stage, item.share) for item in story.plans.statuses(KEY))
        return await succeed(story, order, follow)

    story = Story(slow, manifest=ONE)

    await story.until_settled()

    assert seen == [("building", "building", 0.5)]
    assert [(item.variant, item.state) for item in story.plans.statuses(KEY)] == [("fp16", "ready")]


async def test_plan_that_a_worker_cannot_open_is_built_anew_and_then_given_up() -> None:
    story = Story(succeed, manifest=ONE)
    await story.until_settled()

    for _ in range(2):
        story.plans.not_opened(KEY, _spec(story.decisions[-1].serve), "the engine is damaged")
        count = len(story.decisions)
        await story.until(lambda count=count: len(story.decisions) > count and story.decisions[-1].build is None)  # type: ignore[misc]

    assert [order.anew for order in story.orders] == [False, True]
    assert story.decisions[-1].serve == FLOAT
    assert any(item.reason == "the engine is damaged" for item in story.plans.statuses(KEY))


async def test_named_variant_whose_plan_cannot_be_built_is_refused_and_said_once() -> None:
    story = Story(fail, variant="fp16")

    await story.until(lambda: bool(story.refusals))
    await story.until(lambda: True)

    assert len(story.orders) == 2
    (reason,) = story.refusals
    assert "fp16: not built in 2 attempts" in reason


async def test_plan_that_another_server_builds_is_waited_for() -> None:
    story = Story(succeed, manifest=ONE)
    wanted = plan_key(ONE, ONE.variants[1], "tensorrt", H200.tensorrt_version, ("SM90",))
    story.elsewhere = {wanted.place}

    await story.until(lambda: bool(story.decisions))

    (status,) = story.plans.statuses(KEY)
    assert (status.state, status.reason) == ("waiting", "another server builds it")
    assert story.orders == []


async def test_version_that_can_never_serve_is_refused_with_the_reason() -> None:
    story = Story(succeed, facts=DeviceFacts("NVIDIA H200", "SM90"), backend="tensorrt")

    await story.until(lambda: bool(story.refusals))

    assert "no TensorRT is installed" in story.refusals[0]


@pytest.mark.parametrize("may_build", [True, False])
async def test_dropped_version_is_forgotten(may_build: bool) -> None:
    story = Story(succeed, build_engines=may_build)
    await story.until_settled()

    story.plans.follow({})

    assert list(story.plans.statuses(KEY)) == []
