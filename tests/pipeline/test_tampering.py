"""Tampering. Promises: each kind is caught by the check that exists for it, in a real export of a toy network."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from PIL import Image

from saccade.export.artifact import Detail
from saccade.export.cli.program import app
from saccade.export.compression import compress
from saccade.export.graph.graph_rewrites import constants_of
from saccade.export.graph.large_files import save_graph
from saccade.export.graph.onnx_graph import MODEL_FILE, layer_of
from saccade.export.precision import make as precision
from saccade.export.reports.export_report import read_report
from saccade.export.steps import StepContext
from tests.pipeline.sparse_form import CLAIMED, compress_by_magnitude

WriteRecipe = Callable[..., Path]
Tamper = Callable[[onnx.ModelProto], None]
SOURCE = {"kind": "module", "factory": "tiny_networks:WideClassifier"}


@pytest.fixture
def export(tmp_path: Path) -> Callable[[Path], dict[str, dict[str, Any]]]:
    """Runs a recipe; the outcome of each step by its name."""

    def run(recipe: Path) -> dict[str, dict[str, Any]]:
        places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work"), "--json"]
        result = CliRunner().invoke(app, ["run", str(recipe), *places])
        (outcome,) = orjson.loads(result.stdout).values()
        return {step["step"]: step for step in outcome["steps"]}

    return run


@pytest.fixture
def tamper_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Tamper], None]:
    """Changes the file of a variant between the step that makes it and everything that measures it."""

    def change(variant: str, tamper: Tamper) -> None:
        made = dict(precision._MAKERS)[variant]  # type: ignore[index]  # a str here

        def maker(context: StepContext) -> Detail:
            detail = made(context)
            model = onnx.load(context.out / MODEL_FILE)
            tamper(model)
            save_graph(model, context.out / MODEL_FILE)
            return detail

        monkeypatch.setitem(precision._MAKERS, variant, maker)  # type: ignore[arg-type]  # as above

    return change


@pytest.fixture
def sparse_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compress._MAKERS, "sparse24", compress_by_magnitude)


def failed(steps: dict[str, dict[str, Any]], variant: str) -> list[str]:
    """Names of the checks that a variant failed, by the report."""
    report = read_report(Path(steps["gate"]["artifact"]) / "report.json")
    (found,) = (each.gate for each in report.variants if each.qualify.variant == variant)
    return [check.name for check in found.checks if not (check.passed or check.pending)]


def move_one_weight(model: onnx.ModelProto) -> None:
    """A third weight in one group of four input channels of a claimed layer, as rounding or a rewrite might put it."""
    node = next(each for each in model.graph.node if each.op_type == "Conv" and layer_of(each.name) == CLAIMED[0])
    tensor = _weight_of(model, node)
    weight = numpy_helper.to_array(tensor).copy()
    group = weight[0, :4, 0, 0]
    group[np.flatnonzero(group == 0)[0]] = np.abs(group).max()
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))


def leave_one_layer_in_fp32(model: onnx.ModelProto) -> None:
    """Its weight becomes the floats that its integers stand for: the same answers, and no int8 kernel."""
    constants = constants_of(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    node = next(each for each in model.graph.node if each.op_type == "Conv" and layer_of(each.name) == CLAIMED[0])
    pair = producers[node.input[1]]
    scale = constants[pair.input[1]].reshape(-1, 1, 1, 1)
    weight = constants[pair.input[0]].astype(np.float32) * scale
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "left_in_fp32"))
    node.input[1] = "left_in_fp32"
    if not any(pair.output[0] in each.input for each in model.graph.node):
        model.graph.node.remove(pair)


def _weight_of(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.TensorProto:
    producers = {name: each for each in model.graph.node for name in each.output}
    name = node.input[1]
    while name in producers:
        name = producers[name].input[0]
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


@pytest.mark.parametrize("variant", ["fp16-sparse24", "int8-trt-sparse24"])
@pytest.mark.usefixtures("sparse_form")
def test_sparse_variant_as_it_was_made_is_pending(
    variant: str, write_recipe: WriteRecipe, export: Callable[[Path], dict[str, dict[str, Any]]]
) -> None:
    steps = export(write_recipe(source=SOURCE, variants=["fp32", variant]))

    assert failed(steps, variant) == []
    assert steps["gate"]["detail"]["pending"] == variant
    assert steps["publish"]["detail"]["pending"] == variant


@pytest.mark.parametrize("variant", ["fp16-sparse24", "int8-trt-sparse24"])
@pytest.mark.usefixtures("sparse_form")
def test_one_weight_moved_off_the_pattern_fails_the_mask_check(
    variant: str,
    write_recipe: WriteRecipe,
    export: Callable[[Path], dict[str, dict[str, Any]]],
    tamper_with: Callable[[str, Tamper], None],
    tmp_path: Path,
) -> None:
    tamper_with(variant, move_one_weight)

    steps = export(write_recipe(source=SOURCE, variants=["fp32", variant]))

    assert failed(steps, variant) == ["mask"]
    assert not (tmp_path / "repository" / "tiny-classifier" / "1" / f"{variant}.onnx").exists()


@pytest.mark.parametrize("variant", ["int8-cpu", "int8-trt"])
def test_layer_silently_left_in_fp32_fails_the_precision_check(
    variant: str,
    write_recipe: WriteRecipe,
    export: Callable[[Path], dict[str, dict[str, Any]]],
    tamper_with: Callable[[str, Tamper], None],
) -> None:
    recipe = write_recipe(source=SOURCE, variants=["fp32", variant])
    genuine = failed(export(recipe), variant)
    tamper_with(variant, leave_one_layer_in_fp32)
    shutil.rmtree(recipe.parent / "work")

    steps = export(recipe)

    assert genuine == []
    assert failed(steps, variant) == ["silent_layers"]
    assert CLAIMED[0] in steps["gate"]["detail"]["denied"]


def test_raised_tolerance_fails_the_thresholds_check(
    write_recipe: WriteRecipe, export: Callable[[Path], dict[str, dict[str, Any]]]
) -> None:
    gate = {"max_metric_drop": 1.0, "allow_random_weights": True, "mode": "parity"}

    steps = export(write_recipe(variants=["fp32"], gate=gate))

    assert steps["gate"]["status"] == "failed"
    assert failed(steps, "fp32") == ["thresholds"]


def test_tolerance_raised_after_the_gate_is_not_published(
    write_recipe: WriteRecipe,
    export: Callable[[Path], dict[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def loosened(path: Path) -> object:
        report = read_report(path)
        return report.model_copy(update={"thresholds": report.thresholds.model_copy(update={"max_parity_error": 9e-3})})

    monkeypatch.setattr("saccade.export.publish.publish.read_report", loosened)

    steps = export(write_recipe(variants=["fp32"]))

    assert steps["publish"]["status"] == "failed"
    assert "thresholds: the gate used max_parity_error 0.009 instead of 0.0001" in steps["publish"]["detail"]["error"]
    assert not (tmp_path / "repository" / "tiny-classifier" / "1").exists()


@pytest.mark.parametrize(("change", "what"), [("metric", "figures"), ("gate", "verdict")])
def test_figures_or_verdicts_changed_after_the_gate_are_not_published(
    change: str,
    what: str,
    write_recipe: WriteRecipe,
    export: Callable[[Path], dict[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def changed(path: Path) -> object:
        report = read_report(path)
        (variant,) = report.variants
        if change == "metric":
            better = variant.qualify.metric.model_copy(update={"value": 1.0})
            variant = variant.model_copy(update={"qualify": variant.qualify.model_copy(update={"metric": better})})
        else:
            checks = tuple(check for check in variant.gate.checks if check.name != "parity")
            variant = variant.model_copy(update={"gate": variant.gate.model_copy(update={"checks": checks})})
        return report.model_copy(update={"variants": (variant,)})

    monkeypatch.setattr("saccade.export.publish.publish.read_report", changed)

    steps = export(write_recipe(variants=["fp32"]))

    assert steps["publish"]["status"] == "failed"
    assert what in steps["publish"]["detail"]["error"]


def test_published_report_with_a_raised_tolerance_fails_by_name(
    write_recipe: WriteRecipe, export: Callable[[Path], dict[str, dict[str, Any]]]
) -> None:
    recipe = write_recipe(variants=["fp32"])
    version_dir = Path(export(recipe)["publish"]["detail"]["path"])
    report = version_dir / "report.json"
    document = orjson.loads(report.read_bytes())
    document["thresholds"]["max_parity_error"] = 9e-3
    report.write_bytes(orjson.dumps(document))

    alone = CliRunner().invoke(app, ["gate", str(report)])
    beside_recipe = CliRunner().invoke(app, ["gate", str(report), "--recipe", str(recipe)])

    assert alone.exit_code == 1
    assert "report_hash" in alone.output
    assert "thresholds (not the recipe's: max_parity_error 0.009 instead of 0.0001" in beside_recipe.output


def test_calibration_images_from_the_test_split_are_refused(
    write_recipe: WriteRecipe, export: Callable[[Path], dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pictures: dict[str, list[Path]] = {}
    for split in ("calibration", "tuning", "test"):
        for number in range(8):
            path = tmp_path / "pictures" / split / str(number % 3) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(content, "PNG")
            path.write_bytes(content.getvalue())
            pictures.setdefault(split, []).append(path)
    shutil.copyfile(pictures["test"][0], pictures["calibration"][0])

    steps = export(
        write_recipe(
            data={"dataset": "folder", "path": str(tmp_path / "pictures")},
            labels=["0", "1", "2"],
            source={"kind": "module", "factory": "tiny_networks:TinyClassifier", "arguments": {"classes": 3}},
            variants=["int8-cpu"],
            calibration={"min_images": 8, "entropy": False, "percentiles": []},
        )
    )

    assert list(steps) == ["data"]
    assert "1 picture (12.5%) of split 'calibration' also in split 'test'" in steps["data"]["detail"]["error"]


def test_one_byte_of_a_published_file_fails_the_hash_check(
    write_recipe: WriteRecipe, export: Callable[[Path], dict[str, dict[str, Any]]]
) -> None:
    version_dir = Path(export(write_recipe(variants=["fp32"]))["publish"]["detail"]["path"])
    file = version_dir / "fp32.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))

    result = CliRunner().invoke(app, ["gate", str(version_dir / "report.json"), "--json"])

    checks = orjson.loads(result.stdout)["fp32"]["checks"]
    assert [check["name"] for check in checks if not check["passed"]] == ["file_hash"]
    assert result.exit_code == 1
