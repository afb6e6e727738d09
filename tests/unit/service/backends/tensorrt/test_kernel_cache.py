"""Kernels that TensorRT for RTX compiled outlive the worker, and nothing else is taken for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saccade.service.backends.tensorrt_backend import TensorRtBackend
from saccade.service.repository.plan_seal import Seal
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import SIZES
from tests.unit.service.backends.tensorrt.machines import Machine, batch, design, rtx, same

SECRET = b"s" * 32


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    cuda = SimulatedCuda()
    return Machine(tmp_path, cuda, rtx(cuda))


def warmed(machine: Machine, place: Path, seal: Seal | None) -> tuple[list[int], TensorRtBackend]:
    """Loads and warms as a worker does; returns the sizes for which kernels were compiled."""
    before = len(machine.tensorrt.compiled)
    backend = machine.open_at(place, kernel_seal=seal)
    for size in SIZES:
        assert same(backend.infer(batch(size)), batch(size))
    backend.keep_compiled()
    return machine.tensorrt.compiled[before:], backend


def kept(place: Path) -> list[Path]:
    return list(place.glob("kernels-*"))


@pytest.mark.parametrize("secret", [None, SECRET])
def test_second_load_compiles_nothing(machine: Machine, secret: bytes | None) -> None:
    place = machine.put(design())

    first, backend = warmed(machine, place, Seal(secret))
    backend.close()
    second, backend = warmed(machine, place, Seal(secret))
    backend.close()

    assert (first, second) == (list(SIZES), [])
    machine.cuda.assert_clean()


def test_kernels_are_written_in_one_rename_and_only_where_some_are_new(machine: Machine) -> None:
    place = machine.put(design())
    warmed(machine, place, Seal(None))[1].close()
    (file,) = kept(place)
    written = file.stat().st_ino  # a rename brings another file

    warmed(machine, place, Seal(None))[1].close()

    assert kept(place) == [file]
    assert file.stat().st_ino == written


@pytest.mark.parametrize("change", ["cut off", "other letters", "empty", "no seal"])
def test_damaged_kernels_never_reach_tensorrt(machine: Machine, change: str) -> None:
    place = machine.put(design())
    warmed(machine, place, Seal(None))[1].close()
    (file,) = kept(place)
    content = file.read_bytes()
    damaged = {
        "cut off": content[:-1],
        "other letters": content.replace(b"1", b"2"),
        "empty": b"",
        "no seal": content.partition(b"\n")[2],
    }
    file.write_bytes(damaged[change])

    compiled, backend = warmed(machine, place, Seal(None))

    backend.close()
    assert compiled == list(SIZES)
    assert file.read_bytes() == content  # replaced by whole ones


def test_kernels_of_whoever_lacks_the_secret_never_reach_tensorrt(machine: Machine) -> None:
    place = machine.put(design())
    warmed(machine, place, Seal(None))[1].close()

    assert warmed(machine, place, Seal(SECRET))[0] == list(SIZES)


def test_kernels_that_tensorrt_refuses_are_compiled_again(machine: Machine) -> None:
    place = machine.put(design())
    warmed(machine, place, Seal(None))[1].close()
    (file,) = kept(place)
    other = b"1.0 on another GPU: 1"
    file.write_bytes(Seal(None).of(other) + other)

    assert warmed(machine, place, Seal(None))[0] == list(SIZES)


def test_each_kind_of_gpu_has_a_file_of_its_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine.put(design())
    warmed(machine, place, Seal(None))[1].close()
    here = machine.cuda.properties(0)
    monkeypatch.setattr(machine.cuda, "properties", lambda _: replace(here, name="NVIDIA L4 / other"))

    assert warmed(machine, place, Seal(None))[0] == list(SIZES)
    assert len(kept(place)) == 2


def test_plan_is_served_where_nothing_may_be_written(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: int, name: str, content: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("saccade.service.backends.tensorrt.kernel_cache.replace_file", refuse)
    place = machine.put(design())

    assert warmed(machine, place, Seal(None))[0] == list(SIZES)
    assert kept(place) == []


def test_link_in_place_of_the_file_is_not_followed(machine: Machine, tmp_path: Path) -> None:
    place = machine.put(design())
    warmed(machine, place, Seal(None))[1].close()
    (file,) = kept(place)
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)

    assert warmed(machine, place, Seal(None))[0] == list(SIZES)
    assert not file.is_symlink()


def test_builds_and_measurements_keep_no_kernels(machine: Machine) -> None:
    place = machine.put(design())

    warmed(machine, place, None)[1].close()

    assert kept(place) == []


def test_real_bindings_have_what_the_simulation_stands_for() -> None:
    bindings = pytest.importorskip("tensorrt_rtx_bindings")

    assert {"create_runtime_cache", "set_runtime_cache"} <= set(dir(bindings.IRuntimeConfig))
    assert {"serialize", "deserialize"} <= set(dir(bindings.IRuntimeCache))
