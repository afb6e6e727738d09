"""Every variant for processors is published with its explanation, and computes its answer as it did without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app
from saccade.export.graph.onnx_graph import op_counts
from saccade.export.reports.export_report import read_report
from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.manifest import read_manifest
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.requests import load_request
from saccade.service.repository.without_extras import without_extras
from tests.pipeline.conftest import WriteRecipe


def kernels(content: bytes, folder: Path) -> dict[str, int]:
    """What ONNX Runtime makes of a file, outside of branches."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return op_counts(onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize(
    ("task", "method", "side"), [("classify", "refined class activation", 16), ("detect", "class activation", 8)]
)
def test_variants_for_processors_explain_at_no_cost_to_others(
    task: str, method: str, side: int, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work"), "--no-sign"]
    ran = CliRunner().invoke(app, ["run", str(write_recipe(task, variants=["fp32", "int8-cpu", "int8-trt"])), *places])
    assert ran.exit_code == 0, ran.output
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")
    manifest, _ = read_manifest(version_dir)
    given = {variant.name: [(each.kind, each.method) for each in variant.extras] for variant in manifest.variants}
    explained = [(ExtraKind.EXPLAIN, method)]
    assert given == {"fp32": explained, "int8-cpu": explained, "int8-trt": []}
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for variant in manifest.variants[:2]:
        request = load_request(version_dir, manifest, variant.name, device="cpu", threads=1)
        backend = OnnxRuntimeBackend(request)
        *answer, heat = backend.infer_asked(images, ExtraKind.EXPLAIN.bit)
        assert all(np.array_equal(*pair) for pair in zip(answer, backend.infer(images), strict=True))
        assert (heat.shape, heat.min() >= 0.0) == ((2, side, side), True)
        content = request.file.read_bytes()
        bare, whole = (kernels(each, tmp_path) for each in (without_extras(content, request.extras), content))
        moved = whole.pop("Transpose", 0) - bare.pop("Transpose", 0)  # of an int8 map, to where the branch reads it
        assert whole == {**bare, "If": 1}
        assert moved <= (task == "classify" and variant.precision == "int8")
    report = read_report(version_dir / "report.json")
    figures = {each.qualify.variant: each.qualify.explanation for each in report.variants}
    assert {name for name, figure in figures.items() if figure is not None} == {"fp32", "int8-cpu"}
    assert "Where it looked" in (version_dir / "report.md").read_text()
