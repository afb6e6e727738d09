"""Joules per answer: from counters that begin again, only of devices that tell, and never of another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from saccade.service.bench import energy
from saccade.service.bench.energy import EnergyCounter, EnergyMeter, meter_of, nvml_counters, processor_counters
from saccade.service.bench.report import DeviceEnergy


def zone(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = 1_000_000_000) -> Path:
    made = root / folder
    made.mkdir(parents=True)
    for file, content in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
        (made / file).write_text(f"{content}\n")
    return made


def counter(*readings_j: float | OSError, range_j: float = 0.0, device: str = "chip") -> EnergyCounter:
    left: Iterator[float | OSError] = iter(readings_j)

    def joules() -> float:
        found = next(left)
        if isinstance(found, OSError):
            raise found
        return found

    return EnergyCounter(device, joules, range_j)


def test_only_what_was_consumed_while_measuring_counts() -> None:
    meter = EnergyMeter([counter(100.0, 140.0, 300.0)])

    for elapsed_s in (-1.0, 0.0, 1.0, 4.0, 4.0, 4.0):  # warm-up, and the wait for the last answers
        meter.read(elapsed_s)

    assert meter.figures(answered_rps=25.0).devices == (DeviceEnergy("chip", 50.0, 2.0),)


def test_counter_that_began_again_has_consumed_the_rest_of_its_range() -> None:
    meter = EnergyMeter([counter(90.0, 5.0, 95.0, 0.0, range_j=100.0)])

    for elapsed_s in (0.0, 1.0, 2.0, 3.0):
        meter.read(elapsed_s)

    assert meter.figures(answered_rps=1.0).devices[0].watts == pytest.approx(110.0 / 3.0)


def test_processors_are_read_once_each_with_their_memory(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, 262_143_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)  # a part of the package
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)
    zone(tmp_path, "intel-rapl:1", "psys", 1)  # the package and more
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1)  # the package by another way

    found, reasons = processor_counters(tmp_path)

    assert [(each.device, each.joules()) for each in found] == [
        ("package-0 (intel-rapl:0)", 5.0),
        ("dram (intel-rapl:0:1)", 2.0),
    ]
    assert found[0].range_j == 262_143.0
    assert reasons == []
    (package / "energy_uj").write_text("7000000\n")
    assert found[0].joules() == 7.0


def test_machine_that_tells_nothing_says_why(tmp_path: Path) -> None:
    assert processor_counters(tmp_path) == ([], [f"RAPL: no counter in {tmp_path}"])
    (zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj").write_text("?\n")
    assert processor_counters(tmp_path)[0] == []
    assert "RAPL: invalid literal" in processor_counters(tmp_path)[1][0]


def test_counter_for_root_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def refused(self: Path, encoding: str | None = None) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, encoding)

    monkeypatch.setattr(Path, "read_text", refused)

    assert processor_counters(tmp_path) == ([], [f"RAPL: only root may read {package / 'energy_uj'}"])


class Nvml:
    """Two GPUs, of which the second counts nothing."""

    class NvmlError(Exception):
        pass

    def init_v2(self) -> None:
        pass

    def device_get_count_v2(self) -> int:
        return 2

    def device_get_handle_by_index_v2(self, index: int) -> int:
        return index + 10

    def device_get_name(self, handle: int) -> str:
        return "NVIDIA X"

    def device_get_total_energy_consumption(self, handle: int) -> int:
        if handle == 11:
            raise self.NvmlError("Not Supported")
        return 2500


class NoDriver(Nvml):
    def init_v2(self) -> None:
        raise RuntimeError("no driver")


def test_gpus_are_named_with_their_joules_or_with_the_reason() -> None:
    found, reasons = nvml_counters(Nvml())

    assert [(each.device, each.joules()) for each in found] == [("NVIDIA X (GPU 0)", 2.5)]
    assert reasons == ["NVML, GPU 1: Not Supported"]
    assert nvml_counters(NoDriver()) == ([], ["NVML: no driver"])


def test_device_that_stops_telling_costs_the_others_nothing() -> None:
    meter = EnergyMeter([counter(0.0, 10.0), counter(0.0, OSError("lost"), device="GPU")])

    meter.read(0.0)
    meter.read(1.0)

    assert [each.device for each in meter.figures(1.0).devices] == ["chip"]
    assert meter.figures(1.0).not_told == ("GPU: lost",)


def test_run_without_time_or_answers_claims_no_joules() -> None:
    meter = EnergyMeter([counter(0.0, 10.0)])

    meter.read(0.0)

    assert "too short" in meter.figures(1.0).not_told[0]
    meter.read(1.0)
    assert meter.figures(0.0).devices == (DeviceEnergy("chip", 10.0, None),)


def test_another_machine_is_not_measured_by_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)

    figures = meter_of("192.0.2.1").figures(1.0)

    assert figures.devices == ()
    assert "192.0.2.1 is no loopback address" in figures.not_told[0]
    assert "too short" in meter_of("127.0.0.1").figures(1.0).not_told[-1]
