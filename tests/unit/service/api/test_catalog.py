"""Resolving requests to instances, and acknowledging a catalog only once nothing older is in flight."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.core import VersionKey
from saccade.service.errors import BadParameter, NotFound, NotReady
from saccade.service.ipc.messages import DeviceStatus, ModelStatus, VersionStatus
from saccade.service.metrics import Metrics
from tests.unit.service.api.catalogs import WORKER_UP, catalog, instance, manifests_of, status, version_of


class Story:
    """A catalog that remembers what it acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.catalog = ServingCatalog(Metrics(CollectorRegistry()), self.acknowledged.append)

    def apply(
        self,
        *versions: VersionStatus,
        generation: int = 1,
        devices: tuple[DeviceStatus, ...] = (WORKER_UP,),
        models: tuple[ModelStatus, ...] = (),
    ) -> None:
        snapshot = catalog(*versions, generation=generation, devices=devices, models=models)
        self.catalog.apply(snapshot, manifests_of(snapshot))

    def resolved_ids(self) -> list[int]:
        return [item.instance_id for item in self.catalog.resolve("digits", None, None).instances]


@pytest.fixture
def story() -> Story:
    return Story()


def test_newest_ready_version_answers_by_default(story: Story) -> None:
    story.apply(status(1), status(2), status(3, "warming"))

    assert story.resolved_ids() == [20]


def test_named_version_and_label_answer(story: Story) -> None:
    story.apply(status(1), status(2))

    assert story.catalog.resolve("digits", "1", None).key == VersionKey("digits", 1)
    assert story.catalog.resolve("digits", None, "stable").key == VersionKey("digits", 2)


def test_unknown_model_names_those_that_exist(story: Story) -> None:
    story.apply(status(1), status(1, model="letters"))

    with pytest.raises(NotFound, match=r"no model 'faces'; there are: digits, letters"):
        story.catalog.resolve("faces", None, None)


def test_unknown_model_in_an_empty_catalog_says_so(story: Story) -> None:
    with pytest.raises(NotFound, match="there are: none yet"):
        story.catalog.resolve("digits", None, None)


@pytest.mark.parametrize("version", ["7", "01", "latest", "1.0", ""])
def test_unknown_version_names_those_that_exist(story: Story, version: str) -> None:
    story.apply(status(1), status(2))

    with pytest.raises(NotFound, match=rf"no version '{version}' loaded; there are: 1, 2"):
        story.catalog.resolve("digits", version, None)


def test_unknown_label_names_those_that_exist(story: Story) -> None:
    story.apply(status(1))

    with pytest.raises(NotFound, match=r"no label 'canary'; there are: stable"):
        story.catalog.resolve("digits", None, "canary")


def test_no_ready_version_says_what_each_is_doing(story: Story) -> None:
    story.apply(status(1, "failed", reason="tampered"), status(2, "loading"))

    with pytest.raises(NotReady, match=r"version 1 is failed \(tampered\); version 2 is loading"):
        story.catalog.resolve("digits", None, None)


def test_named_version_that_is_not_ready_says_why(story: Story) -> None:
    story.apply(status(1), status(2, "failed", reason="tampered"))

    with pytest.raises(NotReady, match=r"version 2 of 'digits' is not ready: version 2 is failed \(tampered\)"):
        story.catalog.resolve("digits", "2", None)


def test_stable_of_a_model_without_ready_versions_is_worth_asking_again(story: Story) -> None:
    story.apply(status(1, "loading"))

    with pytest.raises(NotReady, match="version 1 is loading"):
        story.catalog.resolve("digits", None, "stable")


def test_held_version_and_labels_answer_whatever_is_newer(story: Story) -> None:
    serving = ModelStatus("digits", 7, 2, (("next", 3), ("old", 1)))
    story.apply(status(1), status(2), status(3, "warming"), status(4), models=(serving,))

    assert story.resolved_ids() == [20]
    assert story.catalog.resolve("digits", None, "stable").key.version == 2
    assert story.catalog.resolve("digits", None, "old").key.version == 1
    with pytest.raises(NotReady, match="version 3 of 'digits' is not ready"):
        story.catalog.resolve("digits", None, "next")
    with pytest.raises(NotFound, match="no label 'canary'; there are: stable, next, old"):
        story.catalog.resolve("digits", None, "canary")


def test_held_version_that_is_not_ready_is_no_reason_for_another_one(story: Story) -> None:
    story.apply(status(1), status(2, "loading"), models=(ModelStatus("digits", 1, 2),))

    with pytest.raises(NotReady, match="version 2 of 'digits' is not ready"):
        story.resolved_ids()


def test_canary_answers_its_share_of_requests_that_name_only_a_model(story: Story) -> None:
    serving = ModelStatus("digits", 7, 1, canary=2, share=0.1)
    story.apply(status(1), status(2), models=(serving,))

    routed = [story.catalog.routed("digits", None, None, b"key %d" % number) for number in range(10_000)]

    assert 900 <= routed.count(("digits", None, "canary")) <= 1100
    assert story.catalog.resolve("digits", None, "canary").key.version == 2
    named = [story.catalog.routed("digits", *names, b"key") for names in (("1", None), (None, "stable"))]
    assert named == [("digits", "1", None), ("digits", None, "stable")]


def test_canary_that_is_not_ready_gets_no_requests(story: Story) -> None:
    story.apply(status(1), status(2, "loading"), models=(ModelStatus("digits", 7, 1, canary=2, share=1.0),))

    assert story.catalog.routed("digits", None, None, b"key") == ("digits", None, None)


def test_ready_version_with_an_unreadable_manifest_does_not_answer(story: Story) -> None:
    story.catalog.apply(catalog(status(1)), {})

    with pytest.raises(NotReady):
        story.catalog.resolve("digits", None, None)


def test_variant_that_is_not_loaded_is_refused(story: Story) -> None:
    story.apply(status(1))
    target = story.catalog.resolve("digits", None, None)

    story.catalog.begin(target, "fp32")
    with pytest.raises(BadParameter, match=r"variant 'int8' of digits/1 is not loaded; loaded: 'fp32'"):
        story.catalog.begin(target, "int8")


def test_catalog_is_acknowledged_at_once_when_nothing_is_in_flight(story: Story) -> None:
    story.apply(status(1), generation=4)

    assert story.acknowledged == [4]


def test_catalog_is_acknowledged_only_after_requests_to_what_it_dropped_end(story: Story) -> None:
    # given two requests on version 1
    story.apply(status(1), status(2), generation=1)
    target = story.catalog.resolve("digits", "1", None)
    story.catalog.begin(target, None)
    story.catalog.begin(target, None)

    # when a catalog no longer lists it as ready
    story.apply(status(1, "unloading"), status(2), generation=2)
    assert story.acknowledged == [1]

    # then the acknowledgement waits for both
    story.catalog.end(target)
    assert story.acknowledged == [1]
    story.catalog.end(target)
    assert story.acknowledged == [1, 2]


def test_requests_to_what_stays_ready_do_not_delay_the_acknowledgement(story: Story) -> None:
    story.apply(status(1), generation=1)
    story.catalog.begin(story.catalog.resolve("digits", None, None), None)

    story.apply(status(1), status(2), generation=2)

    assert story.acknowledged == [1, 2]


def test_only_the_latest_of_several_pending_catalogs_is_acknowledged(story: Story) -> None:
    story.apply(status(1), generation=1)
    target = story.catalog.resolve("digits", None, None)
    story.catalog.begin(target, None)
    story.apply(status(1, "unloading"), generation=2)
    story.apply(generation=3)

    story.catalog.end(target)

    assert story.acknowledged == [1, 3]


def test_reloaded_version_is_a_new_target(story: Story) -> None:
    # given a request on instance 10 of version 1, whose worker then dies and loads it again as instance 11
    story.apply(status(1), generation=1)
    before = story.catalog.resolve("digits", None, None)
    story.catalog.begin(before, None)
    reloaded = version_of("digits", 1, instance("cpu", 11))

    story.apply(reloaded, generation=2)

    assert story.resolved_ids() == [11]
    assert story.acknowledged == [1]


def test_unchanged_instance_keeps_its_target_across_catalogs(story: Story) -> None:
    story.apply(status(1), generation=1)
    before = story.catalog.resolve("digits", None, None)
    story.apply(status(1), generation=2)

    assert story.catalog.resolve("digits", None, None) is before


# Several devices

TWO_UP = (DeviceStatus("cuda:0", True, 0, "/run/0.sock"), DeviceStatus("cuda:1", True, 0, "/run/1.sock"))
SECOND_DOWN = (TWO_UP[0], DeviceStatus("cuda:1", False, 0, "/run/1.sock"))
FIRST_OF_TWO, SECOND_OF_TWO = instance("cuda:0", 1), instance("cuda:1", 2, variant="int8-trt")


def test_every_ready_instance_may_answer(story: Story) -> None:
    loading = instance("cuda:2", 3, "loading")
    story.apply(version_of("digits", 1, FIRST_OF_TWO, SECOND_OF_TWO, loading), devices=TWO_UP)

    assert story.resolved_ids() == [1, 2]


def test_device_that_stopped_answering_probes_is_left_out_while_another_answers(story: Story) -> None:
    story.apply(version_of("digits", 1, FIRST_OF_TWO, SECOND_OF_TWO), devices=SECOND_DOWN)
    assert story.resolved_ids() == [1]

    story.apply(version_of("digits", 1, SECOND_OF_TWO), devices=SECOND_DOWN)
    assert story.resolved_ids() == [2], "better late than refused"


def test_pinned_variant_narrows_the_instances(story: Story) -> None:
    story.apply(version_of("digits", 1, FIRST_OF_TWO, SECOND_OF_TWO), devices=TWO_UP)
    target = story.catalog.resolve("digits", None, None)

    assert target.instances_of("int8-trt") == (SECOND_OF_TWO,)
    assert target.instances_of(None) == (FIRST_OF_TWO, SECOND_OF_TWO)
    with pytest.raises(BadParameter, match=r"variant 'fp16' of digits/1 is not loaded; loaded: 'fp32', 'int8-trt'"):
        target.instances_of("fp16")


@pytest.mark.parametrize("state", ["building", "loading", "warming"])
def test_a_named_variant_that_is_on_its_way_is_worth_another_try(story: Story, state: str) -> None:
    def second(state: str) -> ServingTarget:
        there = instance("cuda:1", 2, state, variant="int8-trt")
        story.apply(version_of("digits", 1, FIRST_OF_TWO, there), devices=TWO_UP)
        return story.catalog.resolve("digits", None, None)

    with pytest.raises(NotReady, match=r"variant 'int8-trt' of digits/1 is being loaded; loaded: 'fp32'"):
        story.catalog.begin(second(state), "int8-trt")
    with pytest.raises(BadParameter, match="is not loaded"):
        story.catalog.begin(second("failed"), "int8-trt")
    assert second("ready").instances_of("int8-trt")


def test_instance_is_let_go_only_when_no_request_may_still_choose_it(story: Story) -> None:
    # given a request that may go to either instance
    story.apply(version_of("digits", 1, FIRST_OF_TWO, SECOND_OF_TWO), generation=1, devices=TWO_UP)
    target = story.catalog.resolve("digits", None, None)
    story.catalog.begin(target, None)

    # when one of them begins to leave
    leaving = instance("cuda:1", 2, "unloading")
    story.apply(version_of("digits", 1, FIRST_OF_TWO, leaving), generation=2, devices=TWO_UP)
    assert story.acknowledged == [1]

    story.catalog.end(target)
    assert story.acknowledged == [1, 2]


def test_instance_of_a_silent_device_still_counts_as_reachable(story: Story) -> None:
    story.apply(version_of("digits", 1, FIRST_OF_TWO, SECOND_OF_TWO), generation=1, devices=TWO_UP)
    story.catalog.begin(story.catalog.resolve("digits", None, None), None)

    story.apply(version_of("digits", 1, FIRST_OF_TWO, SECOND_OF_TWO), generation=2, devices=SECOND_DOWN)

    assert story.acknowledged == [1, 2]


def test_objective_of_a_model_follows_its_document(story: Story) -> None:
    story.apply(status(1), models=(ModelStatus("digits", 1, objective_s=0.2),))
    assert story.catalog.resolve("digits", None, None).objective_s == 0.2

    story.apply(status(1), generation=2)
    assert story.catalog.resolve("digits", None, None).objective_s == 0.0
