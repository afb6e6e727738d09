"""Facts out of artefacts. Promises held here: worst output per batch, seconds of export steps, one-line reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.export.artifact import Artifact, StepResult
from saccade.export.convert.conversion_proof import ConversionProof, ProofFigure, write_proof
from saccade.export.plans.tensorrt_from_onnx import ParserError
from tests.matrix.plans import plans_of, problem_text
from tests.matrix.readings import Run, denial_of, export_figures, int8_of
from tests.matrix.rows import Int8, Parity
from tests.support.graphs import classifier_graph


def _made(directory: Path, **detail: str | float | int) -> Artifact:
    return Artifact(directory, "digest", "content", detail, 2.0)


def _done(step: str, artifact: Artifact) -> StepResult:
    return StepResult(step, "cached", artifact, 0.01, artifact.detail)


def _failed(step: str, error: str) -> StepResult:
    return StepResult(step, "failed", None, 1.0, {"error": error})


def _run(*results: StepResult) -> Run:
    return Run({result.step: result for result in results})


def test_figures_come_from_the_steps_that_made_them(tmp_path: Path) -> None:
    figures = [("network_0", 1, 1e-7), ("network_1", 1, 3e-7), ("network_0", 8, 2e-6)]
    write_proof(ConversionProof(tuple(ProofFigure(*figure, False) for figure in figures), None), tmp_path)
    run = _run(
        _done("wrap", _made(tmp_path, parameters=7, folds=2)),
        _done("onnx_from_torch", _made(tmp_path, opset=20)),
        _done("onnx_optimization", _made(tmp_path)),
    )
    assert export_figures(run) == {
        "parameters": 7,
        "folds": 2,
        "opset": 20,
        "parity": (Parity(batch_size=1, relative_l2=3e-7), Parity(batch_size=8, relative_l2=2e-6)),
        "export_seconds": 6.0,
    }


def test_half_an_export_has_no_export_seconds(tmp_path: Path) -> None:
    run = _run(_done("wrap", _made(tmp_path, parameters=7, folds=0)), _failed("onnx_from_torch", "no such operator"))
    assert export_figures(run) == {"parameters": 7, "folds": 0}
    assert run.failed is not None
    assert run.failed.step == "onnx_from_torch"


def test_int8_is_built_refused_or_not_reached(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(1_500_000))
    assert int8_of(_run()) is None
    assert int8_of(_run(_done("precision.int8-cpu", _made(tmp_path)))) == Int8(is_built=True, megabytes=1.5)
    refused = int8_of(
        _run(_failed("precision.int8-cpu", "no \x1b[96mrange\x1b[0m\nof /tmp/saccade-matrix-x_1/a tensor"))
    )
    assert refused == Int8(is_built=False, note="no range of a tensor")


def test_denials_of_the_gate_are_told(tmp_path: Path) -> None:
    assert denial_of(_run(_done("gate", _made(tmp_path, denied="int8-cpu denied:\n drop")))) == "int8-cpu denied: drop"
    assert denial_of(_run(_done("gate", _made(tmp_path)))) == ""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ParserError("Col2Im", "n1", "network.0", "no such\noperator"), "Col2Im in layer network.0: no such operator"),
        (ParserError("Col2Im", "n1", "", "refused"), "Col2Im at n1: refused"),
        (ParserError("", "", "", "out of memory"), "builder: out of memory"),
        (
            ParserError(
                "", "", "", "[a.cpp::f::48] Error Code 2: Internal Error (Assertion !x.empty() failed. nms has"
            ),
            "builder: nms has",
        ),
        (
            ParserError("", "", "", "(Assertion !x.empty() failed. head/NMS_3 has no runners In f at /_src/a.cpp:48)"),
            "builder: head/NMS_3 has no runners",
        ),
    ],
)
def test_what_stops_a_plan_is_named(error: ParserError, text: str) -> None:
    assert problem_text(error) == text


def test_plans_of_a_small_graph_are_built_for_every_capability(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    (tmp_path / "model.onnx").write_bytes(classifier_graph())
    plans, problem = plans_of(tmp_path / "model.onnx")
    assert problem == ""
    assert [plan.capability for plan in plans] == ["SM80", "SM86", "SM89", "SM120"]
    assert all(plan.megabytes > 0 for plan in plans)
