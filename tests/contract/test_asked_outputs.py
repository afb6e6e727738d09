"""Extra outputs of a file: computed for those who ask, and not even started for others."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from saccade.export.extras.marks import ExtraBranch, add_branch, drop_extras, extras_in
from saccade.models.contract.extras import ExtraKind
from saccade.service.backends.base import AskableBackend, LoadRequest
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from saccade.service.backends.registry import load_backend
from saccade.service.errors import BackendError
from tests.support.graphs import classifier_graph
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_onnxruntime import ON_CPU
from tests.support.versions import EXPLANATION, SIDE, manifest_for

EXPLAIN = ExtraKind.EXPLAIN.bit
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def marked_graph(rows: int = 4) -> onnx.ModelProto:
    """The tiny classifier with the red of every eighth pixel as its explanation; other `rows` fail when it runs."""
    model = onnx.load_model_from_string(classifier_graph())
    constants = {
        "explain_first": np.array([0, 0, 0], np.int64),
        "explain_last": np.array([SIDE, SIDE, 1], np.int64),
        "explain_axes": np.array([1, 2, 3], np.int64),
        "explain_steps": np.array([8, 8, 1], np.int64),
        "explain_grid": np.array([0, rows, 4], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["float", *list(constants)[:4]], ["explain_red"]),
        helper.make_node("Reshape", ["explain_red", "explain_grid"], ["explain_map"]),
    ]
    add_branch(model, ExtraBranch(EXPLANATION, nodes, "explain_map", constants))
    onnx.checker.check_model(model)
    return model


def opened(name: str, folder: Path, model: onnx.ModelProto) -> AskableBackend:
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    manifest = manifest_for("digits", 1, content=content)
    request = LoadRequest(folder / "model.onnx", manifest.input, manifest.outputs, "cpu", 1, False)
    digest = hashlib.sha256(content).hexdigest()
    backend = load_backend(name, replace(request, sha256=digest, extras=extras_in(model), allowed_batch_sizes=(1, 3)))
    return backend  # type: ignore[return-value]  # tests of others ask nothing


def test_asked_outputs_come_behind_the_same_answer(tmp_path: Path) -> None:
    backend = opened("onnxruntime", tmp_path, marked_graph())
    answer, asked = backend.infer(IMAGES), backend.infer_asked(IMAGES, EXPLAIN)
    assert [np.array_equal(*pair) for pair in zip(answer, asked[:2], strict=True)] == [True, True]
    np.testing.assert_array_equal(asked[2], IMAGES[:, ::8, ::8, 0].astype(np.float32))
    assert len(backend.infer_asked(IMAGES, 0)) == 2


def test_what_nobody_asks_for_is_not_computed(tmp_path: Path) -> None:
    backend = opened("onnxruntime", tmp_path, marked_graph(rows=5))
    assert len(backend.infer(IMAGES)) == 2
    with pytest.raises(BackendError, match="Reshape"):
        backend.infer_asked(IMAGES, EXPLAIN)


def test_what_a_mask_asks_for_is_put_together_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened("onnxruntime", tmp_path, marked_graph())
    monkeypatch.delattr("saccade.service.backends.onnxruntime_backend.asked_for")
    assert len(backend.infer_asked(IMAGES, EXPLAIN)) == 3


def test_openvino_leaves_the_output_out(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    backend = opened("openvino", tmp_path, marked_graph(rows=5))  # it computes every output that a model has
    assert not isinstance(backend, AskableBackend)
    assert len(backend.infer(IMAGES)) == 2


def test_the_gpus_path_opens_the_file_without_the_branch(tmp_path: Path) -> None:
    cpu = opened("onnxruntime", tmp_path, marked_graph(rows=5))
    manifest = manifest_for("digits", 1)
    request = LoadRequest(tmp_path / "model.onnx", manifest.input, manifest.outputs, "cuda:0", 1, False)
    extras = extras_in(marked_graph())
    cuda = SimulatedCuda(eagerness=0.3, one_thread_at_a_time=False)
    backend = OnnxRuntimeCudaBackend(replace(request, extras=extras), cuda=cuda, placement=ON_CPU)
    assert not isinstance(backend, AskableBackend)
    assert all(np.array_equal(*pair) for pair in zip(backend.infer(IMAGES), cpu.infer(IMAGES), strict=True))
    backend.close()


def test_a_file_without_what_its_manifest_names_is_refused(tmp_path: Path) -> None:
    model = marked_graph()
    model.graph.output[-1].name = "explained"
    model.graph.node[-1].output[0] = "explained"
    with pytest.raises(BackendError, match="explanation"):
        opened("onnxruntime", tmp_path, model)


def test_a_file_says_itself_what_it_gives_until_it_is_dropped() -> None:
    model = marked_graph()
    assert extras_in(model) == (EXPLANATION,)
    assert [each.name for each in model.graph.input] == ["images", "ask_explain"]
    drop_extras(model)
    assert model.graph == onnx.load_model_from_string(classifier_graph()).graph
