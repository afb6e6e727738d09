"""Names of devices: what is allowed, and what a worker's environment leaves it."""

from __future__ import annotations

import pytest

from saccade.service.device_names import device_kind, devices_from, inner_name, worker_environment
from saccade.service.errors import SettingsError

GPU = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
MIG = "MIG-3d3f9f3e-5f5c-5f9d-8f0f-0123456789ab"
OLD_MIG = f"MIG-{GPU}/7/0"


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu", ("cpu",)),
        ("cpu:0,cpu:1", ("cpu:0", "cpu:1")),
        ("cuda:0", ("cuda:0",)),
        ("cuda:0,cuda:1", ("cuda:0", "cuda:1")),
        ("cuda:1, cuda:0", ("cuda:1", "cuda:0")),
        (f"{GPU},{MIG},{OLD_MIG}", (GPU, MIG, OLD_MIG)),
        ("cuda:0,cpu", ("cuda:0", "cpu")),
    ],
)
def test_devices_are_read_in_order(text: str, devices: tuple[str, ...]) -> None:
    assert devices_from(text) == devices


@pytest.mark.parametrize(
    "text", ["", "gpu", "cuda", "cuda:", "cuda:01", "cuda:-1", "cpu:01", "cpu:", "cuda:0,", "MIG-1", "GPU-"]
)
def test_what_is_no_device_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not a device; allowed: cpu, cpu:<number> for one of several workers, cuda:<index>, "
    ):
        devices_from(text)


@pytest.mark.parametrize("text", ["cuda:0,cuda:0", "cpu,cpu", f"{MIG},{MIG.upper()[:4]}{MIG[4:].upper()}"])
def test_a_device_named_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="named twice"):
        devices_from(text)


def test_kind_and_inner_name_of_every_form() -> None:
    assert [device_kind(device) for device in ("cpu", "cpu:1", "cuda:3", GPU, MIG)] == ["cpu"] * 2 + ["cuda"] * 3
    assert [inner_name(device) for device in ("cpu", "cpu:1", "cuda:3", GPU, MIG)] == ["cpu"] * 2 + ["cuda:0"] * 3


@pytest.mark.parametrize(
    ("device", "given", "visible"),
    [
        ("cuda:0", None, "0"),
        ("cuda:3", None, "3"),
        ("cuda:1", "4,6", "6"),
        ("cuda:0", f"{GPU}", GPU),
        ("cuda:1", "0, 2 ,5", "2"),
        (GPU, "0", GPU),
        (MIG, None, MIG),
        ("cpu", "0,1", ""),
    ],
)
def test_worker_sees_its_device_only(device: str, given: str | None, visible: str) -> None:
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}

    assert worker_environment(device, environment)["CUDA_VISIBLE_DEVICES"] == visible


@pytest.mark.parametrize("given", ["", "3", "3,-1,4", "3,,4", "-1"])
def test_index_beyond_what_the_operator_made_visible_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="SACCADE_DEVICE: cuda:1 is not visible: CUDA_VISIBLE_DEVICES="):
        worker_environment("cuda:1", {"CUDA_VISIBLE_DEVICES": given})


def test_devices_are_numbered_by_bus_unless_the_operator_chose_an_order() -> None:
    assert worker_environment("cuda:1", {})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    chosen = worker_environment("cuda:1", {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert chosen["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
