"""`saccade-export triton` on a really exported version: the configuration fits the graph beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from saccade.export.cli.program import app
from saccade.export.errors import ExportError, RecipeError
from tests.pipeline.published_tiny import Published
from tests.support.triton_config import parsed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the proto's package

_ONNX_TYPES = {
    "TYPE_UINT8": onnx.TensorProto.UINT8,
    "TYPE_FP32": onnx.TensorProto.FLOAT,
    "TYPE_INT32": onnx.TensorProto.INT32,
}


def run(published: Published, into: Path, *more: str, version: str = "1") -> Result:
    repository = str(published.version_dir.parents[1])
    words = ("triton", "tiny-classifier", version, "--into", str(into), "--repository", repository, *more)
    return CliRunner().invoke(app, words)


def shape_of(item: Any) -> list[int]:
    return list(item.reshape.shape if item.HasField("reshape") else item.dims)


def test_configuration_says_what_the_graph_has(published: Published, tmp_path: Path) -> None:
    done = run(published, tmp_path, "--variant", "fp32")

    assert done.exit_code == 0, done.output
    folder = tmp_path / "tiny-classifier"
    config = parsed((folder / "config.pbtxt").read_text("utf-8"))
    graph = onnx.load(folder / "1" / config.default_model_filename).graph
    assert (config.name, config.backend) == ("tiny-classifier", "onnxruntime")
    described = {item.name: item for item in (*config.input, *config.output)}
    assert described.keys() == {tensor.name for tensor in (*graph.input, *graph.output)}
    for tensor in (*graph.input, *graph.output):
        kind, item = tensor.type.tensor_type, described[tensor.name]
        assert shape_of(item) == [dim.dim_value for dim in kind.shape.dim][1:]
        enum = item.DESCRIPTOR.fields_by_name["data_type"].enum_type
        assert _ONNX_TYPES[enum.values_by_number[item.data_type].name] == kind.elem_type


def test_program_says_where_it_wrote_and_what_is_missing(published: Published, tmp_path: Path) -> None:
    done = run(published, tmp_path)

    assert f"{tmp_path / 'tiny-classifier'}: fp32 for Triton's onnxruntime backend" in done.output
    assert "what Triton will not do" in done.output
    assert isinstance(run(published, tmp_path).exception, RecipeError)  # it is there


def test_version_that_is_not_there_is_a_failure(published: Published, tmp_path: Path) -> None:
    assert isinstance(run(published, tmp_path, version="9").exception, ExportError)
    assert not (tmp_path / "tiny-classifier").exists()
