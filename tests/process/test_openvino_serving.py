"""A version with fp32 in both runtimes and bf16-cpu, exported and published; real servers serve it, or say why not."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from saccade.export.cli.program import app
from saccade.models.contract.manifest import manifest_bytes, read_manifest
from tests.pipeline.conftest import QUICK, TASKS
from tests.support.bfloat16 import needs_bf16
from tests.support.images import red_png
from tests.support.server import running_server
from tests.support.versions import manifest_for

MODEL = "tiny-classifier"
TINY = Path(__file__).resolve().parents[1] / "pipeline" / "tiny"
SERVED = {"backend": "auto", "allow_unjudged": "true"}  # random weights have no accuracy that could be judged


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the version as the exporter published it."""
    root = tmp_path_factory.mktemp("exported")
    document = copy.deepcopy(QUICK | TASKS["classify"]) | {"variants": ["fp32", "fp32-openvino", "bf16-cpu"]}
    (root / "recipe.yaml").write_text(yaml.safe_dump(document))
    places = ["--repository", str(root / "repository"), "--work", str(root / "work"), "--no-sign"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(TINY), *sys.path])
        result = CliRunner().invoke(app, ["run", str(root / "recipe.yaml"), *places])
    assert result.exit_code == 0, result.output
    return root / "repository"


@pytest.mark.parametrize("variant", ["fp32-openvino", pytest.param("bf16-cpu", marks=needs_bf16)])
def test_a_server_answers_through_openvino_from_what_was_exported(variant: str, exported: Path, tmp_path: Path) -> None:
    with running_server(exported, tmp_path, variant=variant, **SERVED) as server:
        answer = server.predict(MODEL, red_png(120))
        (instance,) = server.version(MODEL, 1)["instances"]  # type: ignore[index]  # it is served

    assert answer.status_code == 200, answer.text
    assert (instance["variant"], instance["backend"]) == (variant, "openvino")
    assert answer.json()["variant"] == variant


def test_a_setting_that_excludes_openvino_is_told_and_fp32_serves(exported: Path, tmp_path: Path) -> None:
    with running_server(exported, tmp_path, **SERVED | {"backend": "onnxruntime"}) as server:
        answer = server.predict(MODEL, red_png(120))
        version = server.version(MODEL, 1)

    assert answer.status_code == 200
    assert version is not None
    assert version["variant"] == "fp32"
    assert "fp32-openvino cannot serve here: SACCADE_BACKEND is onnxruntime" in version["choice"]


def publish_half_alone(root: Path) -> None:
    """Any version with bf16-cpu; its file is never opened."""
    manifest = manifest_for("half", 1)
    half = manifest.variants[0].model_copy(update={"name": "bf16-cpu", "precision": "bf16", "target": "openvino"})
    folder = root / "half" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "manifest.json").write_bytes(
        manifest_bytes(manifest.model_copy(update={"variants": (*manifest.variants, half)}))
    )


def test_naming_a_variant_whose_runtime_is_absent_refuses_in_one_sentence(tmp_path: Path) -> None:
    publish_half_alone(tmp_path / "repository")

    with running_server(
        tmp_path / "repository", tmp_path, wait=False, variant="bf16-cpu", backend="onnxruntime"
    ) as server:
        failed = server.wait_state("half", 1, "failed")

    assert failed["reason"] == "variant bf16-cpu of half cannot serve here: SACCADE_BACKEND is onnxruntime"


@pytest.mark.parametrize("name", ["fp32-openvino", pytest.param("bf16-cpu", marks=needs_bf16)])
def test_where_it_was_measured_faster_it_is_chosen_by_itself(name: str, exported: Path, tmp_path: Path) -> None:
    # given the manifest says that this variant is faster, and the server measures nothing itself
    place = exported / MODEL / "1" / "manifest.json"
    before = place.read_bytes()
    manifest = read_manifest(place.parent)[0]
    fp32, *others = manifest.variants
    other = next(each for each in others if each.name == name)
    pair = other.paired_speeds[0].model_copy(update={"ratio": 1.5, "ci_low": 1.4, "ci_high": 1.6})
    files = tuple(each for each in manifest.files if each.path != "report.json")  # which holds other figures
    faster = other.model_copy(update={"paired_speeds": (pair,)})
    changed = manifest.model_copy(update={"variants": (fp32, faster), "files": files, "lineage": ()})
    place.write_bytes(manifest_bytes(changed))
    try:
        with running_server(exported, tmp_path, **SERVED) as server:
            version = server.version(MODEL, 1)
            answer = server.predict(MODEL, red_png(120))
    finally:
        place.write_bytes(before)

    assert answer.status_code == 200
    assert version is not None
    assert version["variant"] == name
    assert "1.50 times as fast as fp32" in version["choice"]
