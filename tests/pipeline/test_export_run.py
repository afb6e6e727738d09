"""The pipeline from recipe to version directory. Promises: real steps, toy networks, no stopwatch in any assertion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
from click.testing import CliRunner

from saccade.export import step_table
from saccade.export.artifact import Detail
from saccade.export.cli.program import app
from saccade.export.graph.graph_rewrites import constants_of
from saccade.export.precision import make
from saccade.export.qualification.serving import open_racing_backend
from saccade.export.recipe import Recipe
from saccade.export.steps import StepContext
from saccade.export.variants import VariantTraits
from saccade.models.contract.manifest import MANIFEST_NAME, Manifest, read_manifest
from saccade.service.backends.base import Backend, LoadRequest
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from tests.pipeline.conftest import QUICK_GATE

WriteRecipe = Callable[..., Path]


class Export:
    """Runs the program on one recipe with directories of its own."""

    def __init__(self, root: Path) -> None:
        self.repository = root / "repository"
        self.work = root / "work"

    def __call__(self, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        """Exit code, and status and artifact by step name."""
        places = ["--repository", str(self.repository), "--work", str(self.work), "--json"]
        result = CliRunner().invoke(app, [*arguments, *places])
        if not result.stdout:
            raise AssertionError(f"no output: {result.exception!r}")
        (outcome,) = orjson.loads(result.stdout).values()
        return result.exit_code, {step["step"]: step for step in outcome["steps"]}

    def manifest(self, model: str, version: int = 1) -> Manifest:
        return read_manifest(self.repository / model / str(version))[0]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return Export(tmp_path)


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_run_publishes_a_version_that_the_serving_backend_opens(
    task: str, write_recipe: WriteRecipe, export: Export
) -> None:
    code, steps = export("run", str(write_recipe(task)))

    assert code == 0, steps
    (model_dir,) = (path for path in export.repository.iterdir() if not path.name.startswith("."))
    manifest = export.manifest(model_dir.name)
    assert [variant.name for variant in manifest.accepted_variants()] == ["fp32", "int8-cpu"]
    for variant in manifest.variants:
        request = LoadRequest(model_dir / "1" / variant.file, manifest.input, manifest.outputs, "cpu", 1, False)
        backend = OnnxRuntimeBackend(request)
        outputs = backend.infer(np.zeros((2, 32, 32, 3), np.uint8))
        assert [output.shape[1:] for output in outputs] == [spec.shape for spec in manifest.outputs]
    assert {"labels.txt", "report.md", "report.json", "latency.png"} <= {entry.path for entry in manifest.files}
    truth = orjson.loads((export.repository / ".samples" / task / "truth.json").read_bytes())
    assert set(truth["images"]) == {path.name for path in (export.repository / ".samples" / task).glob("*.jpg")}


def test_second_run_reuses_every_step_and_publishes_nothing_new(write_recipe: WriteRecipe, export: Export) -> None:
    recipe = str(write_recipe())
    export("run", recipe)
    before = (export.repository / "tiny-classifier" / "1" / MANIFEST_NAME).read_bytes()

    code, steps = export("run", recipe)

    assert code == 0
    assert {name for name, step in steps.items() if step["status"] == "done"} == {"gate", "publish"}
    assert steps["publish"]["detail"]["version"] == 1  # type: ignore[index]  # detail is a nested document
    assert [path.name for path in (export.repository / "tiny-classifier").iterdir()] == ["1"]
    assert (export.repository / "tiny-classifier" / "1" / MANIFEST_NAME).read_bytes() == before


def test_tampered_artifact_is_made_again(write_recipe: WriteRecipe, export: Export) -> None:
    recipe = str(write_recipe(variants=["fp32"]))
    _, first = export("run", recipe)
    tampered = Path(first["onnx_optimization"]["artifact"]) / "model.onnx"
    genuine = tampered.read_bytes()
    tampered.write_bytes(genuine[:-1])

    _, second = export("run", recipe)

    assert second["onnx_from_torch"]["status"] == "cached"
    assert second["onnx_optimization"]["status"] == "done"
    assert tampered.read_bytes() == genuine
    assert second["precision.fp32"]["status"] == "cached"


def test_changed_setting_redoes_only_what_depends_on_it(write_recipe: WriteRecipe, export: Export) -> None:
    export("run", str(write_recipe(variants=["fp32"])))

    _, steps = export("run", str(write_recipe(variants=["fp32"], allowed_batch_sizes=[1, 2, 4])))

    redone = {name for name, step in steps.items() if step["status"] == "done"}
    assert redone == {"qualify.fp32", "speed", "gate", "publish"}


def test_step_runs_one_step_again_alone(write_recipe: WriteRecipe, export: Export) -> None:
    recipe = str(write_recipe(variants=["fp32"]))
    export("run", recipe)

    code, steps = export("step", recipe, "onnx_optimization")

    assert code == 0
    assert list(steps) == ["data", "wrap", "onnx_from_torch", "onnx_optimization"]  # what it builds on
    assert steps["onnx_from_torch"]["status"] == "cached"
    assert steps["onnx_optimization"]["status"] == "done"


def test_denied_variants_are_reported_and_never_published(write_recipe: WriteRecipe, export: Export) -> None:
    recipe = write_recipe(variants=["fp32"], gate={"max_parity_error": 1e-30})

    code, steps = export("run", str(recipe))

    assert code == 1
    assert steps["gate"]["status"] == "failed"
    assert "publish" not in steps
    assert not export.repository.exists()
    report = Path(steps["gate"]["artifact"]) / "report.md"
    assert "denied, not published" in report.read_text()


def test_one_denied_variant_leaves_the_other_publishable(write_recipe: WriteRecipe, export: Export) -> None:
    # An impossible parity limit binds fp32 only: for int8 parity informs.
    recipe = write_recipe(gate={**QUICK_GATE, "max_parity_error": 1e-30})

    code, _ = export("run", str(recipe))

    assert code == 0
    manifest = export.manifest("tiny-classifier")
    assert [variant.name for variant in manifest.variants] == ["int8-cpu"]
    assert not (export.repository / "tiny-classifier" / "1" / "fp32.onnx").exists()


def test_int8_file_holds_byte_weights_and_takes_pixels_without_quantizing(
    write_recipe: WriteRecipe, export: Export
) -> None:
    export("run", str(write_recipe("segment", variants=["int8-cpu"])))
    model = onnx.load(export.repository / "tiny-segmenter" / "1" / "int8-cpu.onnx")
    constants = constants_of(model)
    dequantized = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = [constants[dequantized[node.input[1]].input[0]] for node in convolutions]
    assert convolutions
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}
    assert all(
        constants[dequantized[node.input[1]].input[1]].size == len(weight)
        for node, weight in zip(convolutions, weights, strict=True)
    )
    transpose = next(node for node in model.graph.node if "images" in node.input)
    front = next(node for node in model.graph.node if transpose.output[0] in node.input)
    assert (transpose.op_type, front.op_type) == ("Transpose", "DequantizeLinear")
    assert (float(constants[front.input[1]]), int(constants[front.input[2]])) == (1.0, 0)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    head = [node for node in model.graph.node if node.op_type in ("ArgMax", "MatMul")]
    assert len(head) == 3
    assert not any(name in dequantized for node in head[1:] for name in node.input)


@pytest.mark.parametrize("step", ["precision", "qualify"])
def test_a_variant_that_crashes_costs_neither_the_others_nor_the_run(
    step: str, write_recipe: WriteRecipe, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a converter or runtime does that meets an operator it does not know."""
    broken = next(each for each in step_table.STEPS if each.name == step)

    def run(context: StepContext) -> Detail:
        if context.variant == "fp16":
            raise RuntimeError("no kernel for int64")
        return broken.run(context)

    # `dataclasses.replace` keeps what decides the digests: the module of `run` is this one only while it is broken.
    steps = tuple(replace(each, run=run) if each is broken else each for each in step_table.STEPS)
    monkeypatch.setattr("saccade.export.pipeline.STEPS", steps)
    monkeypatch.setattr("saccade.export.pipeline.closure_digest", lambda module, packages: "0" * 64)

    code, found = export("run", str(write_recipe(variants=["fp32", "fp16", "int8-cpu"])))

    assert code == 0
    assert found[f"{step}.fp16"]["status"] == "lost"
    manifest = export.manifest("tiny-classifier")
    assert [variant.name for variant in manifest.variants] == ["fp32", "int8-cpu"]
    report = (export.repository / "tiny-classifier" / "1" / "report.md").read_text()
    assert f"fp16 could not be made: {step}.fp16: RuntimeError: no kernel for int64" in report


def test_too_few_calibration_images_cost_the_quantized_variants_alone(
    write_recipe: WriteRecipe, export: Export
) -> None:
    recipe = write_recipe(variants=["fp32", "int8-cpu"], calibration={"min_images": 33})

    code, found = export("run", str(recipe))

    assert code == 0
    assert found["precision.int8-cpu"]["status"] == "lost"
    assert [variant.name for variant in export.manifest("tiny-classifier").variants] == ["fp32"]
    report = (export.repository / "tiny-classifier" / "1" / "report.md").read_text()
    assert "32 images, the recipe asks for at least 33" in report


def test_variants_are_timed_in_turns_and_the_ratio_stands_wherever_they_are_shown(
    write_recipe: WriteRecipe, export: Export
) -> None:
    code, found = export("run", str(write_recipe(variants=["int8-cpu", "fp16", "fp32"])))

    assert code == 0
    fp32, int8, fp16 = (export.manifest("tiny-classifier").variant(name) for name in ("fp32", "int8-cpu", "fp16"))
    assert fp32 is not None
    assert int8 is not None
    (pair,) = int8.paired_speeds
    assert (pair.against, pair.device_kind, pair.batch_sizes) == ("fp32", "cpu", (1, 2))
    assert pair.ci_low <= pair.ratio <= pair.ci_high
    assert fp32.paired_speeds == ()
    assert fp16 is None or fp16.latency == ()
    for figure in (*fp32.latency, *int8.latency):
        assert figure.p50_low_ms is not None
        assert figure.p50_high_ms is not None
        assert figure.p50_low_ms <= figure.p50_high_ms
    (check,) = (each for each in int8.gate.checks if each.name == "paired_speed")
    assert check.value == pair.ratio
    assert pair.text in (export.repository / "tiny-classifier" / "1" / "report.md").read_text()
    told = found["speed"]["detail"]["in_turns"]  # type: ignore[index]  # detail is a nested document
    assert told.startswith(f"int8-cpu {pair.text}; fp32 ")


def test_a_variant_that_cannot_be_timed_is_denied_and_costs_the_others_nothing(
    write_recipe: WriteRecipe, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(file: Path, recipe: Recipe, traits: VariantTraits) -> Backend:
        if "int8-cpu" in str(file):
            raise RuntimeError("no kernel for int64\nand where")
        return open_racing_backend(file, recipe, traits)

    monkeypatch.setattr("saccade.export.qualification.speed_step.open_racing_backend", opened)

    code, found = export("run", str(write_recipe(variants=["fp32", "int8-cpu"])))

    assert code == 0
    assert [variant.name for variant in export.manifest("tiny-classifier").variants] == ["fp32"]
    denied = found["gate"]["detail"]["denied"]  # type: ignore[index]  # detail is a nested document
    assert denied == "int8-cpu denied: paired_speed (it could not be timed: no kernel for int64)"


def test_when_every_variant_crashes_the_run_fails(
    write_recipe: WriteRecipe, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context: StepContext) -> Detail:
        raise RuntimeError("out of order")

    monkeypatch.setitem(make._MAKERS, "fp32", broken)

    code, found = export("run", str(write_recipe(variants=["fp32"])))

    assert code == 1
    assert found["precision.fp32"]["status"] == "failed"
    assert "gate" not in found
