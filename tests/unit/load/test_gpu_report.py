"""What the report says: figures, reasons for what is missing, and what is promised."""

from __future__ import annotations

from typing import Any

import pytest

from tests.load.gpu_report import TARGETS, markdown
from tests.load.gpu_rows import Place

CALL = {
    "device": "NVIDIA H200",
    "capability": "SM90",
    "driver": "580.1",
    "cores": 16,
    "commit": "abc",
    "command": "python -m tests.load.gpu_bench",
    "versions": {"tensorrt": "10.16.1"},
    "missing": {"tensorrt_rtx": "the module tensorrt_rtx is not installed"},
}


def row(place: Place, **content: Any) -> dict[str, Any]:
    names = {"stage": place.stage, "network": place.network, "variant": place.variant, "runtime": place.runtime}
    return {**names, "batch": place.batch, **content, "call": 0}


def document(*rows: dict[str, Any], kind: str = "gpu") -> dict[str, Any]:
    return {"kind": kind, "calls": [CALL], "rows": {str(index): each for index, each in enumerate(rows)}}


def bare(images_per_s: float, variant: str = "fp16", network: str = "resnet50-224", batch: int = 128) -> dict[str, Any]:
    return ran("tensorrt direct", images_per_s, variant, network, batch)


def ran(
    runtime: str, images_per_s: float, variant: str = "fp16", network: str = "resnet50-224", batch: int = 128
) -> dict[str, Any]:
    figures = {"images_per_s": images_per_s, "p50_ms": 1e3 * batch / images_per_s, "p99_ms": 7.0}
    return row(Place("bare", network, variant, runtime, batch), **figures)


def verdicts(*rows: dict[str, Any]) -> dict[str, str]:
    lines = [line for line in markdown(document(*rows)).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {each[0]: each[2] for each in cells if each[0] in {target.text for target in TARGETS}}


def test_figures_stand_in_a_table_with_their_machine() -> None:
    text = markdown(document(bare(21_234.4)))

    assert "| fp16 | tensorrt direct | 128 | 21234 |" in text
    assert "NVIDIA H200 (SM90)" in text
    assert "tensorrt_rtx: the module tensorrt_rtx is not installed" in text
    assert "Weights are random" in text


def test_rows_that_were_not_run_are_told_once_per_reason() -> None:
    gone = "tensorrt: the module tensorrt is not installed"
    places = [
        Place("bare", "resnet50-224", variant, "tensorrt direct", size)
        for variant in ("fp16", "fp8-trt")
        for size in (1, 8)
    ]
    lost = [row(place, not_run=gone) for place in places]
    broken = row(Place("bare", "resnet50-224", "fp32", "torch-compile", 8), failed="RuntimeError: no compiler")

    lines = [line for line in markdown(document(*lost, broken)).splitlines() if line.startswith("- ")]

    assert lines[1:] == [
        f"- not run: {gone} (4 rows: resnet50-224; fp16, fp8-trt; tensorrt direct)",
        "- failed: RuntimeError: no compiler (resnet50-224 fp32 torch-compile 8)",
    ]


def test_promise_without_a_figure_is_open() -> None:
    assert set(verdicts().values()) == {"open"}
    assert len(verdicts()) == len(TARGETS)


@pytest.mark.parametrize(("images_per_s", "verdict"), [(20_000.0, "reached"), (19_999.0, "not reached")])
def test_promise_is_held_against_the_best_row(images_per_s: float, verdict: str) -> None:
    found = verdicts(bare(9_000.0), bare(images_per_s, batch=256), bare(90_000.0, variant="int8-trt"))

    assert found["ResNet-50 fp16: at least 20,000 images/s bare, by any runtime"] == verdict


@pytest.mark.parametrize(("third", "verdict"), [(1_250.0, "reached"), (1_150.0, "not reached"), (None, "open")])
def test_compiled_torch_is_worth_a_backend_only_by_two_of_three_networks(third: float | None, verdict: str) -> None:
    networks = {"resnet50-224": 1_500.0, "mobilenetv3-small-224": 900.0, "digits-detector": third}
    rows = [ran("onnxruntime-cuda", 1_000.0, network=name) for name in networks]
    rows += [ran("torch-compile", speed, network=name) for name, speed in networks.items() if speed]

    (found,) = [each for text, each in verdicts(*rows).items() if text.startswith("torch.compile")]
    assert found == verdict


@pytest.mark.parametrize(("low", "verdict"), [(1.01, "reached"), (0.99, "not reached")])
def test_faster_means_the_whole_interval(low: float, verdict: str) -> None:
    place = Place("paired", "resnet50-224", "int8 against fp16", "tensorrt direct", 256)

    assert verdicts(row(place, ratio=1.3, ci_low=low, ci_high=1.5))["ResNet-50: int8 faster than fp16"] == verdict


def test_frames_per_second_are_of_one_image_at_a_time() -> None:
    text = "DDRNet-23-slim 1024x2048 fp16: at least 300 images/s at batch 1"

    assert verdicts(bare(900.0, network="ddrnet23slim-1024x2048", batch=8))[text] == "open"
    assert verdicts(bare(310.0, network="ddrnet23slim-1024x2048", batch=1))[text] == "reached"


def trial(connections: int, per_second: float, p99_ms: float, not_200: int = 0) -> dict[str, Any]:
    figures = {"per_second": per_second, "p50_ms": p99_ms / 2, "p99_ms": p99_ms, "not_200": not_200}
    return {"connections": connections, **figures}


def test_every_load_of_a_server_stands_in_the_report_with_its_first_and_tenth_request() -> None:
    trials = [trial(64, 3_000.0, 20.0), trial(8, 900.0, 8.0)]
    place = Place("served", "resnet50-224", "fp16", "onnxruntime-cuda")

    text = markdown(document(row(place, trials=trials, per_second=900.0, first_ms=1600.0, tenth_ms=4.1)))

    assert "| fp16 | onnxruntime-cuda | 8 | 900 | 4.00 | 8.00 | 0 |\n| fp16 | onnxruntime-cuda | 64 | 3000 |" in text
    assert "| 1600.0 | 4.1 |" in text


def test_stages_that_nobody_asked_for_are_named() -> None:
    text = markdown(document(bare(5.0)))

    assert "have no rows: plans, graphs, paired, reference, limits, served." in text


def test_served_promise_counts_trials_within_its_own_bound() -> None:
    trials = [
        trial(8, 9_000.0, 14.0),
        trial(16, 11_000.0, 40.0),
        trial(32, 20_000.0, 51.0),
        trial(64, 20_000.0, 5.0, not_200=9),
    ]
    served = row(Place("served", "resnet50-224", "int8-trt", "tensorrt"), trials=trials, per_second=9_000.0)

    text = markdown(document(served))

    assert "| ResNet-50 served: at least 10,000/s at p99 of 50 ms | 11000/s | reached |" in text


def test_self_check_says_that_it_is_no_gpu_and_promises_nothing() -> None:
    text = markdown(document(bare(5.0), kind="cpu self-check"))

    assert text.startswith("# Self-check on a CPU: these are no figures of a GPU")
    assert "What is promised" not in text


def test_figure_that_a_runtime_does_not_tell_is_a_dash() -> None:
    assert "| 21000 | - | 6.095 | 7.000 | - | - |" in markdown(document(bare(21_000.0)))
