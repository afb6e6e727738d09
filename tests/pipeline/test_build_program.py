"""`saccade-export build` on a version. Promises: a plan per variant and GPU, exit codes, and a gate left open."""

from __future__ import annotations

import errno
import io
import shutil
import sys
from pathlib import Path

import orjson
import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from saccade.export.cli.build import build_progress
from saccade.export.cli.program import app, main
from saccade.export.plans import runtime
from saccade.export.plans.runtime import find_tensorrt
from saccade.service.repository.open import list_versions
from saccade.service.repository.plans import PlanStore, engines_root
from tests.pipeline.conftest import QUICK, TASKS
from tests.support.published_graphs import publish_graphs

pytestmark = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")
RTX = ("--runtime", "tensorrt_rtx")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with tiny-classifier/1, made by the exporter itself."""
    root = tmp_path_factory.mktemp("exported")
    document = QUICK | TASKS["classify"] | {"variants": ["fp32", "fp16", "int8-cpu", "int8-trt"]}
    document["source"] = {"kind": "module", "factory": "tiny_networks:WideClassifier"}
    (root / "recipe.yaml").write_text(yaml.safe_dump(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(Path(__file__).parent / "tiny"), *sys.path])
        places = ["--repository", str(root / "repository"), "--work", str(root / "work")]
        result = CliRunner().invoke(app, ["run", str(root / "recipe.yaml"), *places])
    assert result.exit_code == 0, result.output
    return root / "repository"


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "repository"))


def run(repository: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["build", *arguments, *RTX, "--repository", str(repository)])


def fails(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of the whole program; its one line goes to stderr."""
    monkeypatch.setattr("sys.argv", ["saccade-export", "build", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_newest_version_gets_a_plan_for_every_variant_and_gpu(repository: Path) -> None:
    result = run(repository, "tiny-classifier", "--capability", "SM89", "--capability", "SM120")

    assert result.exit_code == 0, result.output
    plans = PlanStore(engines_root(repository)).all("tiny-classifier", 1)
    assert sorted((plan.record.variant, *plan.record.key.capabilities) for plan in plans) == [
        (variant, capability) for variant in ("fp16", "fp32", "int8-trt") for capability in ("SM120", "SM89")
    ]
    assert all(plan.record.gate is None for plan in plans)
    for plan in plans:
        assert f"s: {plan.record.key.place}" in result.output
    assert "int8-trt SM89: building or looking for it" in result.output
    assert "of the multiply-adds in int8 (file" in result.output
    assert "LOST" not in result.output
    assert "gate: open (none of these plans was run" in result.output
    assert [version.key.model for version in list_versions(repository)] == ["tiny-classifier"]


def test_plan_that_is_there_is_left_alone_unless_forced(repository: Path) -> None:
    arguments = ("tiny-classifier/1", "--variant", "int8-trt", "--capability", "SM89", "--json")
    first = orjson.loads(run(repository, *arguments).stdout)

    again = run(repository, *arguments)
    forced = orjson.loads(run(repository, *arguments, "--force").stdout)

    assert again.exit_code == 0
    assert "is there already" in again.stderr
    (second,) = orjson.loads(again.stdout)
    assert (first[0]["is_new"], second["is_new"], forced[0]["is_new"]) == (True, False, True)
    assert second["record"] == first[0]["record"]
    assert first[0]["precision"]["lost"] == []
    assert Path(first[0]["directory"]).is_dir()


def test_plans_go_where_they_are_told_and_are_sealed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    places = ["--engines", str(tmp_path / "engines"), "--engines-key", str(tmp_path / "secret")]

    result = run(repository, "tiny-classifier", "--variant", "fp32", "--capability", "SM89", *places)

    assert result.exit_code == 0, result.output
    assert len(PlanStore(tmp_path / "engines", b"s" * 32).all("tiny-classifier", 1)) == 1
    assert PlanStore(tmp_path / "engines", b"t" * 32).all("tiny-classifier", 1) == ()
    assert not engines_root(repository).exists()


def test_full_disk_is_a_failed_plan_and_leaves_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("saccade.service.repository.confined_files.os.write", full)

    result = run(repository, "tiny-classifier", "--variant", "fp32", "--capability", "SM89")

    assert result.exit_code == 1
    assert "fp32 SM89: failed: cannot keep the plan of tiny-classifier/1 fp32" in result.output
    assert "No space left on device; make room or choose another directory for engines" in result.output
    assert [path for path in engines_root(repository).rglob("*") if path.is_file()] == []


def test_terminal_gets_a_bar_that_names_the_stage() -> None:
    console = Console(force_terminal=True, width=100, file=io.StringIO())

    with build_progress(console, "int8-trt SM89") as progress:
        goes_on = progress("Optimizing graph", 0.5)
        console.file.seek(0)

    assert goes_on
    assert isinstance(console.file, io.StringIO)
    assert "int8-trt SM89 \x1b[1mOptimizing graph" in console.file.getvalue()


def test_without_a_gpu_the_common_ones_are_built_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.export.cli.build.present_gpu", lambda: None)

    result = run(repository, "tiny-classifier", "--variant", "fp32", "--json")

    assert [plan["capability"] for plan in orjson.loads(result.stdout)] == list(runtime.DEFAULT_CAPABILITIES)


def test_one_plan_that_cannot_be_built_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from tests.support.residual_network import residual_network

    model = residual_network()
    model.graph.node.append(helper.make_node("Det", ["stem"], ["volumes"], name="network.stage.2/Det"))
    model.graph.output.append(helper.make_tensor_value_info("volumes", TensorProto.FLOAT, None))
    publish_graphs(tmp_path, {"fp32": "accepted", "int8-trt": "pending"}, replaced={"fp32": model})

    result = run(tmp_path, "digits", "--capability", "SM89")

    assert result.exit_code == 1
    assert "fp32 SM89: failed: " in result.output
    assert "Det 'network.stage.2/Det' of layer network.stage.2" in result.output
    assert [plan.record.variant for plan in PlanStore(engines_root(tmp_path)).all("digits", 1)] == ["int8-trt"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("absent",), "no 'absent' in"),
        (("tiny-classifier/7",), "there is tiny-classifier/1"),
        (("tiny-classifier", "--variant", "int8-cpu"), "int8-cpu is for cpu, not for TensorRT"),
        (("tiny-classifier", "--capability", "H200"), "'H200' is no compute capability"),
        (("tiny-classifier", "--capability", "SM90"), "does not build for 'SM90'; it knows SM75, SM80"),
    ],
)
def test_wrong_usage_is_named(
    repository: Path,
    arguments: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fails(monkeypatch, *arguments, *RTX, "--repository", str(repository)) == 2
    assert told in capsys.readouterr().err


def test_missing_tensorrt_is_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "find_tensorrt", lambda name=None: None)

    assert fails(monkeypatch, "tiny-classifier", "--repository", str(repository)) == 1
    assert "no TensorRT is installed: install the `rtx` extra" in capsys.readouterr().err


def test_version_whose_files_changed_is_not_built(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (repository / "tiny-classifier" / "1" / "fp32.onnx").open("ab") as file:
        file.write(b"\0")

    assert fails(monkeypatch, "tiny-classifier", *RTX, "--repository", str(repository)) == 1
    assert "the file changed after its gate" in capsys.readouterr().err
    assert not engines_root(repository).exists()
