"""Every variant for processors is published with its score of unfamiliarity, and computes its answer as it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app
from saccade.export.reports.export_report import read_report
from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.manifest import read_manifest
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.requests import load_request
from saccade.service.repository.without_extras import without_extras
from tests.pipeline.conftest import WriteRecipe
from tests.pipeline.test_explained_export import kernels

DATA = {"dataset": "digit_scenes", "images": {"calibration": 40, "tuning": 24, "test": 24}}


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_variants_for_processors_tell_unfamiliar_pictures(task: str, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work"), "--no-sign"]
    ran = CliRunner().invoke(app, ["run", str(write_recipe(task, data=DATA)), *places])
    assert ran.exit_code == 0, ran.output
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")
    manifest, _ = read_manifest(version_dir)
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for variant in manifest.variants:
        assert variant.detail.get("trust") == "gaussian", variant.detail
        request = load_request(version_dir, manifest, variant.name, device="cpu", threads=1)
        backend = OnnxRuntimeBackend(request)
        *answer, scores = backend.infer_asked(noise, ExtraKind.TRUST.bit)
        assert all(np.array_equal(*pair) for pair in zip(answer, backend.infer(noise), strict=True))
        assert scores.shape == (3,)
        assert (scores > 0).all()
        content = request.file.read_bytes()
        bare, whole = (kernels(each, tmp_path) for each in (without_extras(content, request.extras), content))
        moved = whole.pop("Transpose", 0) - bare.pop("Transpose", 0)  # of int8 maps, to where the branch reads them
        assert whole == {**bare, "If": len(request.extras)}
        assert moved <= ({"classify": 1, "detect": 2}[task] if variant.precision == "int8" else 0)
    for measured in read_report(version_dir / "report.json").variants:
        trust = measured.qualify.trust
        assert trust is not None
        assert [kind.kind for kind in trust.kinds] == ["photographs", "textures", "noise"]
        assert trust.familiar_share > 0.5
    assert "called unfamiliar" in (version_dir / "report.md").read_text("utf-8")
