"""What a worker says of its device, also of one that it cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.backends.cuda.driver import CudaVersions
from saccade.service.backends.cuda.failures import failure
from saccade.service.backends.tensorrt import module
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.settings import Settings
from saccade.service.worker.device_facts import cpu_facts, device_facts, memory_meter, resident_bytes
from tests.support.simulated_cuda import SimulatedCuda

GPU = Settings(device="cuda:0")
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "get_args", lambda _names: ())


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU 9000\nprocessor\t: 1\n")
    (tmp_path / "meminfo").write_text("MemTotal:       4096 kB\nMemFree: 1 kB\nMemAvailable:   3072 kB\n")
    return tmp_path


def test_processor_has_a_name_and_the_machines_memory(machine: Path) -> None:
    (machine / "memory.max").write_text("max\n")

    facts = cpu_facts(machine, machine)

    assert facts == DeviceFacts(name="Some CPU 9000", memory_total_bytes=4 * MIB, memory_free_bytes=3 * MIB)


def test_containers_limit_counts_where_it_is_less(machine: Path) -> None:
    (machine / "memory.max").write_text(f"{2 * MIB}\n")
    (machine / "memory.current").write_text(f"{MIB // 2}\n")

    facts = cpu_facts(machine, machine)

    assert (facts.memory_total_bytes, facts.memory_free_bytes) == (2 * MIB, 2 * MIB - MIB // 2)


def test_machine_that_tells_nothing_still_has_facts(tmp_path: Path) -> None:
    facts = cpu_facts(tmp_path, tmp_path)

    assert facts.name
    assert (facts.memory_total_bytes, facts.problem) == (0, "")


def test_gpu_is_described_by_its_driver() -> None:
    facts = device_facts(GPU, SimulatedCuda(memory_bytes=100 * MIB, capability="SM89", name="L4"))

    assert facts == DeviceFacts(
        name="L4",
        compute_capability="SM89",
        driver_version="13.2",
        memory_total_bytes=100 * MIB,
        memory_free_bytes=100 * MIB,
    )


def test_looking_at_a_gpu_takes_none_of_its_memory_and_pins_nothing() -> None:
    cuda = SimulatedCuda()

    device_facts(GPU, cuda)

    cuda.assert_clean()
    assert set(cuda.calls) == {"set_device", "memory"}


def test_tensorrt_is_named_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    runtime = pytest.importorskip("tensorrt_rtx_bindings")

    facts = device_facts(GPU, SimulatedCuda())

    assert (facts.tensorrt, facts.tensorrt_version) in {
        ("tensorrt_rtx", runtime.__version__),
        ("tensorrt", facts.tensorrt_version),
    }


def test_device_that_cannot_be_used_says_why_in_one_line() -> None:
    class Absent(SimulatedCuda):
        def versions(self) -> CudaVersions:
            return CudaVersions(0, 13040)

        def set_device(self, index: int) -> None:
            raise failure("cudaSetDevice", "cudaErrorInsufficientDriver", "driver is\ninsufficient", self.versions())

    facts = device_facts(GPU, Absent())

    assert facts.problem.startswith("the NVIDIA driver is missing, this cuda-python needs one for CUDA 13.4")
    assert "\n" not in facts.problem
    assert (facts.driver_version, facts.memory_total_bytes) == ("", 0)


def test_fake_backend_has_no_device() -> None:
    assert device_facts(Settings(backend="fake", device="cuda:0")) == DeviceFacts(name="fake")


def test_memory_in_use_is_the_devices_on_a_gpu_and_the_processs_on_a_cpu() -> None:
    cuda = SimulatedCuda()
    used_bytes = memory_meter(GPU, cuda)
    before = used_bytes()
    cuda.allocate(5 * MIB)

    assert used_bytes() - before == 5 * MIB
    assert memory_meter(Settings())() == pytest.approx(resident_bytes(Path("/proc")), rel=0.2)
    assert resident_bytes(Path("/proc")) > MIB
    assert resident_bytes(Path("/absent")) == 0


def test_memory_of_a_broken_device_is_nothing() -> None:
    cuda = SimulatedCuda()
    cuda.lose_at_call(1)

    assert memory_meter(GPU, cuda)() == 0
