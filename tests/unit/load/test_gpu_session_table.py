"""The last words of a session: what each part found, and why it did not find more."""

from __future__ import annotations

from typing import Any

from tests.load.gpu_session_table import Part, parts_from, session_table

CALL = {
    "device": "NVIDIA H200",
    "capability": "SM90",
    "cores": 16,
    "commit": "abc",
    "versions": {"onnxruntime-cuda": "1.31.1"},
}
PARTS = [
    Part("tests", 75, 110, "exit code 1", "tests/gpu"),
    Part("served", 65, 65, "out of time", "ResNet-50 served"),
]


def row(stage: str, runtime: str, **content: Any) -> dict[str, Any]:
    return {"stage": stage, "network": "resnet50-224", "variant": "fp16", "runtime": runtime, "batch": 0, **content}


def table(*rows: dict[str, Any], logs: dict[str, list[str]] | None = None) -> list[str]:
    document = {"calls": [CALL], "rows": {str(index): each for index, each in enumerate(rows)}}
    return session_table(PARTS, document, logs or {}).splitlines()


def test_parts_are_read_as_the_script_wrote_them() -> None:
    text = "tests\t75\t110\texit code 1\ttests/gpu\nserved\t65\t65\tout of time\tResNet-50 served\n"

    assert parts_from(text) == PARTS


def test_part_that_failed_stands_there_with_its_last_line_and_its_failed_tests() -> None:
    lines = table(logs={"tests": ["FAILED tests/gpu/test_a.py::test_b - assert 500 == 503", "1 failed, 61 passed"]})

    assert "| tests: tests/gpu | 75 | 110 | exit code 1 | 1 failed, 61 passed |" in lines
    assert "FAILED tests/gpu/test_a.py::test_b - assert 500 == 503" in lines
    assert "| served: ResNet-50 served | 65 | 65 | out of time |  |" in lines


def test_figures_name_their_place_and_every_load_of_the_server() -> None:
    trial = {"connections": 8, "per_second": 947.4, "p50_ms": 8.3, "p99_ms": 9.9, "not_200": 0}
    lines = table(
        row("bare", "onnxruntime-cuda", images_per_s=7450.2, p50_ms=1.5) | {"batch": 64},
        row("graphs", "onnxruntime-cuda", ratio=1.72, ci_low=1.7, ci_high=1.75),
        row(
            "served",
            "onnxruntime-cuda",
            first_ms=1600.0,
            tenth_ms=4.1,
            trials=[trial],
            jpegs_by="hardware",
            why="faster",
        ),
        row("limits", "nvImageCodec hardware", images_per_s=9000.0, worst_share=0.99912, worst_image="small"),
        row("reference", "torch eager", images_per_s=14268.0) | {"batch": 256},
    )

    assert lines[0] == "Device: NVIDIA H200 (SM90), 16 cores; commit abc; onnxruntime-cuda 1.31.1"
    assert "bare resnet50-224 fp16 onnxruntime-cuda 64: 7450 images/s, p50 1.5 ms" in lines
    assert "graphs resnet50-224 fp16 onnxruntime-cuda: graphs make it 1.72 times as fast [1.70, 1.75]" in lines
    assert "served resnet50-224 fp16 onnxruntime-cuda: first request 1600.0 ms, tenth 4.1 ms" in lines
    assert "  JPEGs by hardware; faster" in lines
    assert "  8 connections: 947/s, p50 8.3 ms, p99 9.9 ms, 0 not 200" in lines
    limits = "limits resnet50-224 fp16 nvImageCodec hardware: 9000 images/s, 99.9120% of pixels of small"
    assert limits in lines
    assert "reference resnet50-224 fp16 torch eager 256: 14268 images/s" in lines


def test_without_a_gpu_it_says_in_words_what_was_not_run() -> None:
    lines = table(row("bare", "onnxruntime-cuda", not_run="gpu: no usable NVIDIA driver"))

    assert "No figure was measured." in lines
    assert "- not run: gpu: no usable NVIDIA driver (resnet50-224 fp16 onnxruntime-cuda)" in lines


def test_session_without_a_report_has_a_table_too() -> None:
    assert session_table(PARTS, {}, {}).startswith("The benchmark wrote no report.")
