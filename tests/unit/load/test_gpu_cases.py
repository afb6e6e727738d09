"""What is put together for a benchmark, and why a case cannot run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.flatness import growth
from tests.load.gpu_bench import run_stages
from tests.load.gpu_cases import (
    BACKEND,
    DIRECT,
    Runtime,
    Selection,
    missing_for,
    missing_for_serving,
    networks_for,
    runtimes_for,
    served_variants,
    stage_seconds,
    variants_for,
)
from tests.load.gpu_reference import reference_sizes
from tests.load.gpu_rows import OUT_OF_TIME, Budget, Place, Rows
from tests.load.gpu_served import _ensure_served_by, unsupported
from tests.load.gpu_stages import Bench
from tests.support.gpu_machine import EXPORTER, GPU, SERVER, TENSORRT, TORCH_CUDA, Component, GpuMachine


def machine(*missing: str) -> GpuMachine:
    names = (GPU, TORCH_CUDA, TENSORRT, "tensorrt_rtx", "onnxruntime-cuda", EXPORTER, SERVER, "nvimgcodec")
    return GpuMachine({name: Component(name, "1", "gone" if name in missing else "") for name in names})


def test_every_variant_is_timed_through_the_server_and_directly_by_both_tensorrts() -> None:
    for variant in variants_for("cuda"):
        names = {runtime.name for runtime in runtimes_for(variant, "cuda")}

        assert {f"{module} {how}" for module in ("tensorrt", "tensorrt_rtx") for how in (DIRECT, BACKEND)} <= names


def test_plain_variants_have_onnxruntime_and_torch_beside_them_and_quantized_ones_do_not() -> None:
    beside = {"onnxruntime-cuda", "torch-compile"}

    assert beside <= {runtime.name for runtime in runtimes_for("fp16", "cuda")}
    assert not beside & {runtime.name for runtime in runtimes_for("int8-trt", "cuda")}


def test_toy_is_for_cpus_and_full_networks_are_for_gpus() -> None:
    assert [network.name for network in networks_for("cpu")] == ["tiny-32"]
    assert [network.name for network in networks_for("cuda")] == [
        "resnet50-224",
        "yolov10s-640",
        "ddrnet23slim-1024x2048",
        "digits-detector",
    ]
    assert networks_for("cuda", ["tiny-32"]) == ()


@pytest.mark.parametrize(
    ("runtime", "lacks", "missing"),
    [
        (Runtime(TENSORRT, "backend"), TORCH_CUDA, ""),
        (Runtime(TENSORRT, "direct"), TORCH_CUDA, "torch-cuda: gone"),
        (Runtime(TENSORRT, "direct"), TENSORRT, "tensorrt: gone"),
        (Runtime("torch-compile"), EXPORTER, "exporter: gone"),
        (Runtime("onnxruntime-cuda"), TENSORRT, ""),
        (Runtime("onnxruntime-cpu"), GPU, ""),
    ],
)
def test_runtime_needs_what_it_uses_and_nothing_else(runtime: Runtime, lacks: str, missing: str) -> None:
    assert missing_for(runtime, machine(lacks)) == missing


def test_serving_needs_the_libraries_of_the_server() -> None:
    for _, runtime in served_variants("cuda"):
        assert missing_for_serving(runtime, machine(SERVER)) == "server: gone"
        assert missing_for_serving(runtime, machine()) == ""


# What a call is limited to


def test_call_for_one_runtime_and_one_variant_leaves_all_others_out_with_the_reason() -> None:
    only = Selection(("onnxruntime", "torch eager"), ("fp16",))

    assert only.leaves_out(runtime="onnxruntime-cuda", variant="fp16") == ""
    assert only.leaves_out(runtime="torch eager") == ""
    assert "the runtimes onnxruntime, torch eager" in only.leaves_out(runtime="torch-compile", variant="fp16")
    assert "the variants fp16" in only.leaves_out(runtime="onnxruntime-cuda", variant="fp32")
    assert Selection().leaves_out(runtime="tensorrt direct", variant="fp8-trt") == ""


# Time of a call


def test_shares_of_a_call_are_its_whole_time_and_what_is_left_over_goes_to_later_stages() -> None:
    stages = ("bare", "limits", "served")
    lefts = (90.0, 50.0, 40.0)
    shares = [stage_seconds(stage, stages, 90.0, left_s) for stage, left_s in zip(stages, lefts, strict=True)]

    assert shares == pytest.approx([40.0, 10.0, 40.0])
    assert stage_seconds("served", stages, 90.0, 80.0) == 80.0, "nothing else was to do"
    assert stage_seconds("served", stages, 90.0, -300.0) == pytest.approx(40.0), "an earlier case took too long"


@pytest.mark.parametrize("case_s", [1.0, 7.0, 500.0])
def test_stage_with_more_cases_than_time_leaves_the_last_stage_its_own(tmp_path: Path, case_s: float) -> None:
    now = [0.0]

    def stage(name: str, cases: int) -> Callable[[Bench], None]:
        def case() -> dict[str, Any]:
            now[0] += case_s
            return {"images_per_s": 1.0}

        def run(bench: Bench) -> None:
            for index in range(cases):
                bench.measure(Place(name, "resnet50-224", batch=index), "", case)

        return run

    rows = Rows(tmp_path / "report.json", "gpu", {})
    bench = Bench(
        machine=machine(),
        device="cuda",
        prepared=tmp_path,
        work=tmp_path,
        rows=rows,
        budget=Budget(100.0, lambda: now[0]),
        networks=(),
        case_s=0.5,
        retry_failed=False,
        say=lambda text: None,
    )

    run_stages(bench, ("limits", "served"), {"limits": stage("limits", 200), "served": stage("served", 1)})

    assert rows.find(Place("served", "resnet50-224")) is not None
    assert rows.document["rows"][Place("limits", "resnet50-224", batch=199).key]["not_run"] == OUT_OF_TIME


def test_reference_runs_at_sizes_that_a_network_takes() -> None:
    sizes = {network.name: reference_sizes(network) for network in networks_for("cuda")}

    assert sizes["resnet50-224"] == (64, 256)
    assert sizes["ddrnet23slim-1024x2048"] == (8,)


# Leaks


def test_memory_that_is_taken_once_is_no_growth() -> None:
    assert growth([50, 100, 100, 101, 100, 100, 99, 100, 100, 101, 100, 100]) <= 1


def test_memory_that_a_cycle_keeps_is_growth() -> None:
    assert growth([100 + 10 * cycle for cycle in range(12)]) >= 60


def test_few_cycles_say_nothing() -> None:
    with pytest.raises(ValueError, match="take more cycles"):
        growth([1, 2])


def test_tensorrt_that_a_server_would_not_choose_is_not_served() -> None:
    assert "chooses tensorrt" in unsupported(Runtime("tensorrt_rtx"), machine())
    assert unsupported(Runtime("tensorrt_rtx"), machine(TENSORRT)) == ""
    assert unsupported(Runtime("onnxruntime-cuda"), machine()) == ""


def test_row_of_a_plan_is_refused_where_the_server_bridges_with_something_else() -> None:
    bridging = {"instances": [{"variant": "fp32", "backend": "onnxruntime"}]}

    with pytest.raises(RuntimeError, match="asked for fp16 tensorrt, the server serves fp32 onnxruntime"):
        _ensure_served_by(bridging, "fp16", "tensorrt")
    _ensure_served_by(bridging, "fp32", "onnxruntime")
