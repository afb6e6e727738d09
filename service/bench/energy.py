"""Reads what the processors (RAPL) and GPUs (NVML) of this machine say that they consume while a load runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from saccade.service.bench.report import DeviceEnergy, EnergyFigures

POWERCAP = Path("/sys/class/powercap")
_OUTERMOST = ("package", "dram")  # `core` and `uncore` are parts of a package, and `psys` holds the packages again
_READ_EVERY_S = 0.2  # RAPL's smallest range lasts a minute at full power


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """Consumed energy, counted from any moment on. `joules` raises OSError where it cannot be read."""

    device: str
    joules: Callable[[], float]
    range_j: float = 0.0  # it begins again at zero beyond this; 0: never


class EnergyMeter:
    """Adds up what counters say while measuring lasts."""

    def __init__(self, counters: Sequence[EnergyCounter], reasons: Sequence[str] = ()) -> None:
        self._counters = list(counters)
        self._reasons = list(reasons)
        self._last: dict[str, float] = {}
        self._consumed_j = {counter.device: 0.0 for counter in counters}
        self._first_s = self._last_s = -1.0

    def read(self, elapsed_s: float) -> None:
        """`elapsed_s` counts from the start of measuring; it is negative before, and stands still behind the end."""
        if elapsed_s < 0.0 or (self._last and elapsed_s < self._last_s + _READ_EVERY_S):
            return
        for counter in list(self._counters):
            try:
                now_j = counter.joules()
            except OSError as error:
                self._counters.remove(counter)
                self._reasons.append(f"{counter.device}: {error}")
                continue
            grown_j = now_j - self._last.get(counter.device, now_j)
            self._consumed_j[counter.device] += grown_j if grown_j >= 0.0 else grown_j + counter.range_j
            self._last[counter.device] = now_j
        self._last_s = elapsed_s
        self._first_s = elapsed_s if self._first_s < 0.0 else self._first_s

    def figures(self, answered_rps: float) -> EnergyFigures:
        """Mean power, and energy per good answer at this rate; a device that told nothing has a reason instead."""
        lasted_s = self._last_s - self._first_s
        if self._counters and lasted_s <= 0.0:
            return EnergyFigures((), (*self._reasons, "the run was too short to read a counter twice"))
        told = [(counter.device, self._consumed_j[counter.device] / lasted_s) for counter in self._counters]
        devices = tuple(
            DeviceEnergy(device, watts, watts / answered_rps if answered_rps else None) for device, watts in told
        )
        return EnergyFigures(devices, tuple(self._reasons))


def meter_of(address: str) -> EnergyMeter:
    """A meter of this machine, where the server at `address` is surely on it."""
    if not ip_address(address).is_loopback:
        return EnergyMeter((), (f"only the server's own machine counts it, and {address} is no loopback address",))
    processors, why_no_processor = processor_counters(POWERCAP)
    gpus, why_no_gpu = gpu_counters()
    return EnergyMeter((*processors, *gpus), (*why_no_processor, *why_no_gpu))


def processor_counters(root: Path) -> tuple[list[EnergyCounter], list[str]]:
    """Packages and memory as RAPL counts them below `root`, with the reason for each that cannot be read."""
    counters, reasons = [], []
    for zone in sorted(root.glob("intel-rapl:*")):  # AMD's processors have this name, too
        try:
            name = (zone / "name").read_text("ascii").strip()
            if not name.startswith(_OUTERMOST):
                continue
            range_j = _joules_in(zone / "max_energy_range_uj")
            device = f"{name} ({zone.name})"  # each package has a `dram` of its own
            counter = EnergyCounter(device, partial(_joules_in, zone / "energy_uj"), range_j)
            counter.joules()
        except PermissionError as error:
            reasons.append(f"RAPL: only root may read {error.filename}")
        except (OSError, ValueError) as error:
            reasons.append(f"RAPL: {error}")
        else:
            counters.append(counter)
    return counters, reasons or ([] if counters else [f"RAPL: no counter in {root}"])


def gpu_counters() -> tuple[list[EnergyCounter], list[str]]:
    """Every GPU of the machine that the driver counts energy of, with the reason for each that it does not."""
    try:
        from cuda.bindings import nvml  # an extra that only servers with a GPU have
    except ImportError:
        return [], ["NVML: no cuda-bindings from 13.2 on (extra `gpu`)"]
    return nvml_counters(nvml)


def nvml_counters(nvml: Any) -> tuple[list[EnergyCounter], list[str]]:
    """The same of an NVML that is given."""
    counters, reasons = [], []
    try:
        nvml.init_v2()
        count = nvml.device_get_count_v2()
    except (RuntimeError, nvml.NvmlError) as error:  # RuntimeError: there is no library of the driver
        return [], [f"NVML: {error}"]
    for index in range(count):
        try:
            handle = nvml.device_get_handle_by_index_v2(index)
            device = f"{nvml.device_get_name(handle)} (GPU {index})"
            counter = EnergyCounter(device, partial(_gpu_joules, nvml, handle))
            counter.joules()
        except (OSError, nvml.NvmlError) as error:
            reasons.append(f"NVML, GPU {index}: {error}")
        else:
            counters.append(counter)
    return counters, reasons


def _joules_in(file: Path) -> float:
    return int(file.read_text("ascii")) / 1e6


def _gpu_joules(nvml: Any, handle: int) -> float:
    try:
        return float(nvml.device_get_total_energy_consumption(handle)) / 1e3
    except nvml.NvmlError as error:
        raise OSError(str(error)) from error
