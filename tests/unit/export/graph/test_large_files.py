"""Weights beside the graph. Promises: one file handed on, optimisers never see it, served only as it was hashed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph import large_files
from saccade.export.graph.large_files import hand_on_weights, load_graph, save_graph, weight_files, weights_as_inputs
from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.errors import BackendError, RepositoryError

WEIGHTS = np.random.default_rng(0).normal(0, 1, (3, 500)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), np.uint8)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph whose 6 KB of weights count as large."""
    monkeypatch.setattr(large_files, "EXTERNAL_ABOVE_BYTES", 4000)
    monkeypatch.setattr(large_files, "_INLINE_BELOW_BYTES", 1000)
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 4, 4, 500])
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "w"], ["product"], name="matmul"),
        helper.make_node("Add", ["product", "b"], ["answer"], name="add"),
    ]
    constants = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.float32([1.0]), "b")]
    graph = helper.make_graph(nodes, "large", [images], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = tmp_path / "first" / "model.onnx"
    made.parent.mkdir()
    save_graph(model, made)
    return made


def run(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    answer: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    ).run(None, {"images": IMAGES})[0]
    return answer


def request(path: Path, external_data: tuple[tuple[Path, str | None], ...]) -> LoadRequest:
    return LoadRequest(
        file=path,
        input=TensorSpec(name="images", dtype="uint8", shape=(4, 4, 3)),
        outputs=(TensorSpec(name="answer", dtype="float32", shape=(4, 4, 500)),),
        device="cpu",
        threads=1,
        allow_spinning=False,
        external_data=external_data,
    )


def test_large_weights_lie_beside_the_graph_and_small_ones_in_it(file: Path) -> None:
    assert weight_files(file) == ("model.onnx.data",)
    assert file.stat().st_size < 1000
    assert [len(tensor.raw_data) for tensor in load_graph(file).graph.initializer] == [0, 4]
    np.testing.assert_allclose(run(file), IMAGES.astype(np.float32) @ WEIGHTS + 1, rtol=1e-4, atol=1e-3)


def test_small_graph_stays_one_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "EXTERNAL_ABOVE_BYTES", 1_000_000)
    other = file.parent / "other.onnx"

    save_graph(onnx.load(file), other)

    assert weight_files(other) == ()


def test_handed_on_weights_may_get_a_name_of_their_own(file: Path, tmp_path: Path) -> None:
    model, target = load_graph(file), tmp_path / "second"
    target.mkdir()

    hand_on_weights(model, file.parent, target, "fp32.onnx.data")
    save_graph(model, target / "model.onnx")

    assert weight_files(target / "model.onnx") == ("fp32.onnx.data",)
    np.testing.assert_array_equal(run(target / "model.onnx"), run(file))


def test_optimisers_see_inputs_in_place_of_large_weights(file: Path) -> None:
    model = load_graph(file)

    with weights_as_inputs(model):
        assert [tensor.name for tensor in model.graph.initializer] == ["b"]
        assert [value.name for value in model.graph.input] == ["images", "w"]

    assert [value.name for value in model.graph.input] == ["images"]
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "b"}
    save_graph(model, file)
    assert run(file).shape == (2, 4, 4, 500)


def test_server_runs_from_the_verified_bytes_of_every_file(file: Path) -> None:
    weights = file.parent / "model.onnx.data"
    expected = run(file)

    backend = OnnxRuntimeBackend(request(file, ((weights, hashlib.sha256(weights.read_bytes()).hexdigest()),)))
    weights.unlink()

    np.testing.assert_array_equal(backend.infer(IMAGES)[0], expected)
    backend.close()


def test_tampered_weights_are_refused_by_name(file: Path) -> None:
    weights = file.parent / "model.onnx.data"

    with pytest.raises(RepositoryError, match=r"model\.onnx\.data has SHA-256"):
        OnnxRuntimeBackend(request(file, ((weights, "0" * 64),)))


def test_weights_that_the_manifest_does_not_list_are_not_read(file: Path) -> None:
    with pytest.raises(BackendError, match="cannot load"):
        OnnxRuntimeBackend(request(file, ()))
