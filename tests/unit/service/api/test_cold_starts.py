"""Requests for a version that is not loaded: asked for once, answered when it is there, refused with a figure."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.api.cold_starts import ColdStarts
from saccade.service.core import VersionKey
from saccade.service.errors import NotLoaded, NotReady
from saccade.service.ipc.messages import VersionStatus
from saccade.service.metrics import Metrics
from tests.unit.service.api.catalogs import catalog, manifests_of, status

KEY = VersionKey("digits", 1)
LONG_S = 60.0


def on_demand(version: int, state: str, load_seconds: float = 0.0) -> VersionStatus:
    found = msgspec.structs.replace(status(version, state), on_demand=True, load_seconds=load_seconds)
    is_unloaded = state == "loading"
    return msgspec.structs.replace(found, instances=()) if is_unloaded else found


class Story:
    """A process with room for two waiting requests."""

    def __init__(self) -> None:
        self.desired: list[VersionKey] = []
        self.catalog = ServingCatalog(Metrics(CollectorRegistry()), lambda generation: None, self.desired.append)
        self.cold_starts = ColdStarts(self.catalog, max_waiting=2)
        self._generation = 0

    def apply(self, *versions: VersionStatus) -> None:
        self._generation += 1
        snapshot = catalog(*versions, generation=self._generation)
        self.catalog.apply(snapshot, manifests_of(snapshot))

    async def ask(
        self, within_s: float = LONG_S, version: str | None = None, label: str | None = None
    ) -> ServingTarget:
        try:
            return self.catalog.resolve("digits", version, label)
        except NotLoaded as unloaded:
            return await self.cold_starts.wait(unloaded, "digits", version, label, within_s)

    async def start(self, version: str | None = None, label: str | None = None) -> asyncio.Task[ServingTarget]:
        """A request that waits when this returns."""
        asked = asyncio.create_task(self.ask(version=version, label=label))
        await asyncio.sleep(0)
        return asked


@pytest.fixture
def story() -> Story:
    story = Story()
    story.apply(on_demand(1, "loading"))
    return story


@pytest.mark.parametrize(("version", "label"), [(None, None), ("1", None), (None, "stable")])
async def test_request_waits_until_the_version_is_ready(story: Story, version: str | None, label: str | None) -> None:
    asked = await story.start(version, label)
    story.apply(on_demand(1, "warming"))
    await asyncio.sleep(0)
    assert not asked.done()

    story.apply(on_demand(1, "ready"))

    assert (await asked).key == KEY


async def test_a_flood_asks_once_per_snapshot(story: Story) -> None:
    first, second = await story.start(), await story.start()
    assert story.desired == [KEY]

    story.apply(on_demand(1, "ready"))

    assert (await first).key == (await second).key == KEY


async def test_more_than_may_wait_are_refused_at_once(story: Story) -> None:
    waiting = [await story.start(), await story.start()]

    with pytest.raises(NotReady, match="2 requests of this process wait for models already") as refused:
        await story.ask()

    assert refused.value.retry_after_s == 5.0, "nobody has measured it yet"
    story.apply(on_demand(1, "ready"))
    for each in waiting:
        await each


async def test_deadline_ends_the_wait_with_the_measured_cold_start(story: Story) -> None:
    story.apply(on_demand(1, "loading", load_seconds=2.5))

    with pytest.raises(NotReady, match=r"its last load took 2\.5 s") as refused:
        await story.ask(within_s=0.0)

    assert refused.value.retry_after_s == 2.5


async def test_a_load_that_fails_says_why(story: Story) -> None:
    asked = await story.start()
    story.apply(msgspec.structs.replace(on_demand(1, "failed"), reason="no room"))

    with pytest.raises(NotReady, match="no room"):
        await asked


async def test_evicted_while_waiting_is_asked_for_again(story: Story) -> None:
    asked = await story.start()
    story.apply(on_demand(1, "unloading"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert story.desired == [KEY, KEY]

    story.apply(on_demand(1, "ready"))
    await asked


async def test_an_older_version_that_is_loaded_answers_while_the_newest_is_asked_for(story: Story) -> None:
    story.apply(on_demand(1, "ready"), on_demand(2, "loading"))

    assert (await story.ask()).key == KEY
    assert (await story.ask()).key == KEY
    assert story.desired == [VersionKey("digits", 2)]


async def test_usage_is_reported_when_it_changed(story: Story) -> None:
    story.apply(on_demand(1, "ready"))
    target = await story.ask()
    story.catalog.usages()
    assert story.catalog.usages() == ()

    story.catalog.begin(target, None)
    (used,) = story.catalog.usages()
    assert (used.model, used.version, used.in_flight) == ("digits", 1, 1)
    story.catalog.end(target)

    (used,) = story.catalog.usages()
    assert used.in_flight == 0
    assert used.last_used_s > 0


async def test_whoever_has_waited_makes_place_for_the_next(story: Story) -> None:
    for _ in range(3):
        with pytest.raises(NotReady, match="not loaded within"):
            await story.ask(within_s=0.0)
