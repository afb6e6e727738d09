"""ONNX files that are int8 already. Promises: published as they are, gated as int8, nothing else made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from PIL import Image

from saccade.export.cli.init import write_recipe
from saccade.export.data.datasets import DataStore
from saccade.export.errors import RecipeError
from saccade.export.graph.quantized_graph import quantized_weights
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.models.contract.manifest import read_manifest
from saccade.service.repository.report_agreement import ensure_report_agrees

COLOURS = ("blue", "green", "red")
SIDE = 16
_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)


class Pictures(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left: Iterator[dict[str, np.ndarray]] = iter(
            [{"images": rng.random((1, 3, SIDE, SIDE)).astype(np.float32)} for _ in range(8)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def float_file(path: Path) -> Path:
    """Logits are the means of blue, green and red, through a convolution and a matrix."""
    rng = np.random.default_rng(0)
    mix = rng.normal(0, 1, (16, 3)).astype(np.float32)
    kernel = (mix[:, :, None, None] / 9 * np.ones((1, 1, 3, 3))).astype(np.float32)
    back = (20 * np.linalg.pinv(mix)[::-1].T).astype(np.float32)  # (16, 3), the channels in reverse
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["mixed"], pads=[1, 1, 1, 1], name="mix"),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "back"], ["logits"], name="back"),
    ]
    tensors = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(back, "back")]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [entry], [answer], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _qdq(source: Path, target: Path) -> None:
    quantize_static(source, target, Pictures(), quant_format=QuantFormat.QDQ, per_channel=True)


def _operators(source: Path, target: Path) -> None:
    quantize_static(source, target, Pictures(), quant_format=QuantFormat.QOperator)


def _dynamic(source: Path, target: Path) -> None:
    quantize_dynamic(source, target)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for channel, colour in enumerate(reversed(COLOURS)):
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        for index in range(66):
            pixels = rng.integers(40, 90, (SIDE, SIDE, 3))
            pixels[..., channel] += 90
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / colour / f"{index}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("quantize", "sign", "is_batchable"),
    [(_qdq, "the weights of mix", True), (_operators, "QLinearConv", True), (_dynamic, "ConvInteger", False)],
)
def test_a_quantized_file_is_published_as_the_int8_that_it_is(
    tmp_path: Path, data: Path, quantize: Callable[[Path, Path], None], sign: str, is_batchable: bool
) -> None:
    quantize(float_file(tmp_path / "float.onnx"), tmp_path / "ready.onnx")

    new = write_recipe(tmp_path / "ready.onnx", None, data, tmp_path / "recipe.yaml")
    results = run_pipeline(new.loaded, RunSettings(tmp_path / "work", tmp_path / "repository"), DataStore(), _QUIET)

    assert new.loaded.recipe.variants == ("int8-cpu",)
    assert any(each.word == "variants" and sign in each.why for each in new.findings)
    assert results[-1].status == "done", results[-1].detail
    version = tmp_path / "repository" / "ready" / "1"
    manifest, _ = read_manifest(version)
    (variant,) = manifest.variants
    checks = {check.name: check for check in variant.gate.checks}
    assert (variant.name, variant.precision, variant.gate.accepted) == ("int8-cpu", "int8", True)
    assert variant.metric.value > 0.97
    share = checks["effective_precision"].value
    assert isinstance(share, float)
    assert share > 0.95  # the normalisation in front of the file is float
    assert manifest.batchable is is_batchable  # dynamic ranges are those of a whole batch
    ensure_report_agrees(version, manifest)  # as servers do: every layer's precision is read from the file
    published = quantized_weights(onnx.load(version / "int8-cpu.onnx"))
    assert published is not None
    assert published.is_int8
    assert "so no float network exists" in (version / "report.md").read_text()


def test_no_other_variant_is_made_of_a_quantized_file(tmp_path: Path, data: Path) -> None:
    _qdq(float_file(tmp_path / "float.onnx"), tmp_path / "ready.onnx")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"source: onnx\nweights: ready.onnx\ndata: {data}\nvariants: [int8-cpu, fp32, int8-trt]\n")

    with pytest.raises(RecipeError, match=r"quantized to int8 already .*, and fp32, int8-trt needs a float network"):
        load_recipe(recipe)
