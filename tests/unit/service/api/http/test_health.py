"""Why a process must get no traffic, as a pure function of its catalog."""

from __future__ import annotations

import msgspec
import pytest

from saccade.service.api.http.health import not_ready_reason
from saccade.service.ipc.messages import Catalog, DeviceStatus, ModelStatus
from tests.unit.service.api.catalogs import WORKER_UP, catalog, instance, status, version_of

DOWN = DeviceStatus("cpu", False, 1, "")


def test_ready_when_a_version_of_every_model_answers() -> None:
    assert not_ready_reason(catalog(status(1), status(1, model="letters")), True) is None


@pytest.mark.parametrize(
    ("snapshot", "is_connected", "reason"),
    [
        (Catalog(0, (), (), False), False, "starting: no device worker yet"),
        (Catalog(1, (DOWN,), (status(1),), False), True, "device worker not answering: cpu"),
        (Catalog(1, (WORKER_UP,), (status(1),), False), False, "no connection to the device worker"),
        (catalog(), True, "the model repository holds no version"),
        (catalog(status(1, "loading")), True, "loading: digits"),
        (catalog(status(1, "warming"), status(2, "failed")), True, "loading: digits"),
        (catalog(status(1), status(1, "loading", model="letters")), True, "loading: letters"),
        (catalog(status(1, "failed")), True, "no model could be loaded"),
        (catalog(status(1, "unloading")), True, "no model could be loaded"),
        (catalog(status(1), draining=True), True, "draining"),
    ],
)
def test_reason_names_what_is_missing(snapshot: Catalog, is_connected: bool, reason: str) -> None:
    found = not_ready_reason(snapshot, is_connected)

    assert found is not None
    assert found.startswith(reason)


def test_one_device_that_answers_is_enough() -> None:
    devices = (DeviceStatus("cuda:0", False, 3, ""), DeviceStatus("cuda:1", True, 0, "/run/1.sock"))
    served = version_of("digits", 1, instance("cuda:1", 2))

    assert not_ready_reason(catalog(served, devices=devices), True) is None
    silent = (devices[0], DeviceStatus("cuda:1", False, 0, "/run/1.sock"))
    assert not_ready_reason(catalog(served, devices=silent), True) == "device worker not answering: cuda:0, cuda:1"


def test_failed_model_does_not_keep_the_others_from_traffic() -> None:
    assert not_ready_reason(catalog(status(1), status(1, "failed", model="letters")), True) is None


def test_new_version_on_its_way_does_not_take_the_old_one_from_traffic() -> None:
    assert not_ready_reason(catalog(status(1), status(2, "warming")), True) is None


@pytest.mark.parametrize("state", ["loading", "warming", "ready", "unloading"])
def test_models_that_requests_load_are_as_good_as_ready(state: str) -> None:
    on_demand = msgspec.structs.replace(status(1, state), on_demand=True)

    assert not_ready_reason(catalog(on_demand), True) is None
    assert not_ready_reason(catalog(on_demand, status(1, "loading", model="pinned")), True) == "loading: pinned"


def test_a_model_that_requests_cannot_load_is_none() -> None:
    failed = msgspec.structs.replace(status(1, "failed"), on_demand=True)

    assert not_ready_reason(catalog(failed), True) == "no model could be loaded; /v1/models has the reasons"


def test_pinned_version_that_failed_keeps_traffic_away_whatever_else_is_ready() -> None:
    failed = catalog(status(3, "failed"), status(1, model="letters"))

    assert not_ready_reason(failed, True) is None
    assert "pinned version 3 of 'digits' failed" in str(not_ready_reason(failed, True, {"digits": 3}))
    assert not_ready_reason(failed, True, {"letters": 1}) is None


def test_model_that_a_refused_document_keeps_from_loading_keeps_traffic_away() -> None:
    refused = ModelStatus("letters", problem="serving.json: generation: missing")

    assert "desired state of 'letters' is refused" in str(not_ready_reason(catalog(status(1), models=(refused,)), True))
    served = catalog(status(1), status(1, model="letters"), models=(refused,))
    assert not_ready_reason(served, True) is None
