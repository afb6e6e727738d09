"""OpenVINO's variants from recipe to version: measured by the runtime that serves, or left out with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app
from saccade.export.precision import make
from saccade.models.contract.manifest import read_manifest
from saccade.service.backends.base import Outputs, UInt8Array
from saccade.service.backends.openvino_backend import OpenVinoBackend
from saccade.service.backends.registry import backend_name, load_backend
from saccade.service.backends.requests import load_request
from saccade.service.errors import RepositoryError
from saccade.service.repository.report_agreement import ensure_report_agrees
from saccade.service.repository.verify import verify_version
from saccade.service.worker.replay import replay
from tests.pipeline.conftest import QUICK_GATE, WriteRecipe
from tests.support.bfloat16 import needs_bf16

VARIANTS = ["fp32", "bf16-cpu"]
GATE = QUICK_GATE | {"max_half_parity_error": 0.09}  # boxes of random weights change places at the smallest rounding
NO_BF16 = "this processor has no bfloat16"


def run(root: Path, recipe: Path, *words: str) -> tuple[int, str]:
    places = ["--repository", str(root / "repository"), "--work", str(root / "work")]
    result = CliRunner().invoke(app, ["run", str(recipe), *places, *words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


@needs_bf16
@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_it_is_published_with_figures_of_the_runtime_that_serves_it(
    task: str, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    code, said = run(tmp_path, write_recipe(task, variants=VARIANTS, gate=GATE))
    assert code == 0, said
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")

    manifest = read_manifest(version_dir)[0]

    fp32, half = manifest.variants
    assert (half.name, half.precision, half.target, half.file) == ("bf16-cpu", "bf16", "openvino", fp32.file)
    assert [each.against for each in half.paired_speeds] == ["fp32"]
    assert len(half.latency) == len(manifest.allowed_batch_sizes)
    checks = {check.name: check for check in half.gate.checks}
    assert half.gate.accepted
    assert checks["parity"].limit == GATE["max_half_parity_error"]  # as fp16 is held to
    assert isinstance(checks["effective_precision"].value, float)
    assert checks["effective_precision"].value >= 0.95
    report = orjson.loads((version_dir / "report.json").read_bytes())
    through = [each["qualify"]["measured_through"] for each in report["variants"]]
    assert through[1].startswith("openvino 2026")
    assert {layer["precision"] for layer in report["variants"][0]["qualify"]["layers"]} == {"fp32"}
    ensure_report_agrees(version_dir, verify_version(version_dir).manifest)


@needs_bf16
def test_the_replay_holds_the_answers_of_the_runtime(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    run(tmp_path, write_recipe(variants=VARIANTS))
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")
    manifest = read_manifest(version_dir)[0]
    with np.load(version_dir / "replay.npz") as kept:
        recorded = {name: kept[f"{name}/0"] for name in VARIANTS}
        images = kept["images"]

    request = load_request(version_dir, manifest, "bf16-cpu", device="cpu", threads=1)
    backend = load_backend(backend_name(manifest.variants[1], "auto"), request)

    replay(backend.infer, version_dir, manifest, "bf16-cpu")
    alone = np.concatenate([backend.infer(image[None])[0] for image in images])
    np.testing.assert_array_equal(alone, recorded["bf16-cpu"])
    assert not np.array_equal(recorded["bf16-cpu"], recorded["fp32"])
    backend.close()


@needs_bf16
def test_without_fp32_it_has_a_file_of_its_own(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    code, said = run(tmp_path, write_recipe(variants=VARIANTS), "--variant", "bf16-cpu")
    assert code == 0, said
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")

    (half,) = read_manifest(version_dir)[0].variants

    assert half.file == "bf16-cpu.onnx"
    assert (version_dir / half.file).exists()


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_fp32_of_both_runtimes_shares_a_file_and_is_held_to_the_same_limits(
    task: str, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    code, said = run(tmp_path, write_recipe(task, variants=["fp32", "fp32-openvino"]))
    assert code == 0, said
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")

    manifest = verify_version(version_dir).manifest

    mine, other = manifest.variants
    assert (other.name, other.precision, other.target, other.file) == ("fp32-openvino", "fp32", "openvino", mine.file)
    assert other.extras == mine.extras
    assert [each.against for each in other.paired_speeds] == ["fp32"]
    limits = [{check.name: check.limit for check in each.gate.checks} for each in (mine, other)]
    assert limits[0].items() <= limits[1].items()  # which tells its speed beside fp32 too
    assert limits[1]["parity"] == 1e-4  # bfloat16 may differ by a hundred times as much
    assert other.gate.accepted
    found = orjson.loads((version_dir / "report.json").read_bytes())["variants"][1]["qualify"]
    assert found["measured_through"].startswith("openvino 2026")
    assert {layer["precision"] for layer in found["layers"]} == {"fp32"}


def test_a_file_that_rounds_does_not_pass_for_fp32_of_openvino(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    run(tmp_path, write_recipe(variants=["fp32", "fp32-openvino", "int8-cpu"]))
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")
    manifest = read_manifest(version_dir)[0]
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    rounded = manifest.variants[2].file
    report = orjson.loads((version_dir / "report.json").read_bytes())
    report["variants"][1]["qualify"]["file_sha256"] = digests[rounded]
    (version_dir / "report.json").write_bytes(orjson.dumps(report))
    variants = tuple(
        each.model_copy(update={"file": rounded}) if each.name == "fp32-openvino" else each
        for each in manifest.variants
    )

    with pytest.raises(RepositoryError, match=r"int8-cpu\.onnx multiplies layer .* in int8, report\.json says fp32"):
        ensure_report_agrees(version_dir, manifest.model_copy(update={"variants": variants}))


def test_answers_beyond_what_the_order_of_sums_explains_are_denied(
    tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given OpenVINO answers a little otherwise than the network, less than bfloat16 would
    right = OpenVinoBackend.infer

    def wrong(backend: OpenVinoBackend, images: UInt8Array) -> Outputs:
        return [each + 1e-3 if each.dtype == np.float32 else each for each in right(backend, images)]

    monkeypatch.setattr(OpenVinoBackend, "infer", wrong)

    code, said = run(tmp_path, write_recipe(variants=["fp32", "fp32-openvino"]))

    assert code == 0, said
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")
    report = orjson.loads((version_dir / "report.json").read_bytes())
    gates = {each["qualify"]["variant"]: each["gate"] for each in report["variants"]}
    assert gates["fp32"]["accepted"]
    assert "parity" in [each["name"] for each in gates["fp32-openvino"]["checks"] if not each["passed"]]


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_int8_of_both_runtimes_shares_a_file_and_takes_turns(
    task: str, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    names = ["fp32", "int8-cpu", "int8-openvino"]
    code, said = run(tmp_path, write_recipe(task, variants=names))
    assert code == 0, said
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")

    manifest = read_manifest(version_dir)[0]

    _, mine, other = manifest.variants
    assert (other.name, other.precision, other.target, other.file) == ("int8-openvino", "int8", "openvino", mine.file)
    assert [each.against for each in other.paired_speeds] == ["fp32", "int8-cpu"]
    assert other.gate.accepted
    ensure_report_agrees(version_dir, verify_version(version_dir).manifest)
    elsewhere = tuple(each.model_copy(update={"target": "openvino"}) for each in manifest.variants)
    with pytest.raises(RepositoryError, match="is for openvino, its figures were measured through ONNX Runtime"):
        ensure_report_agrees(version_dir, manifest.model_copy(update={"variants": elsewhere}))
    request = load_request(version_dir, manifest, other.name, device="cpu", threads=1)
    backend = load_backend(backend_name(other, "auto"), request)
    replay(backend.infer, version_dir, manifest, other.name)
    backend.close()


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(make, "why_absent", lambda precision: NO_BF16)


@pytest.mark.usefixtures("no_bf16")
def test_where_it_cannot_run_it_is_left_out_with_the_reason(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    code, said = run(tmp_path, write_recipe(variants=VARIANTS))
    (version_dir,) = (tmp_path / "repository").glob("tiny-*/1")
    report = orjson.loads((version_dir / "report.json").read_bytes())

    assert code == 0, said
    assert [each.name for each in read_manifest(version_dir)[0].variants] == ["fp32"]
    assert "could not be made: precision.bf16-cpu" in said
    assert report["lost"] == {
        "bf16-cpu": f"precision.bf16-cpu: bf16-cpu is measured where it runs, not here: {NO_BF16}"
    }


@pytest.mark.usefixtures("no_bf16")
def test_where_it_is_asked_for_by_name_the_reason_ends_the_run(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    code, said = run(tmp_path, write_recipe(variants=VARIANTS), "--variant", "fp32", "--variant", "bf16-cpu")

    assert code != 0
    assert f"bf16-cpu is measured where it runs, not here: {NO_BF16}" in said
    assert not (tmp_path / "work").exists()
