"""What the suite of all backends does not ask of OpenVINO: precision, suppression, weights outside, and silence."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends import openvino_backend
from saccade.service.backends.base import LoadRequest, Outputs, UInt8Array
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.openvino_backend import OpenVinoBackend, ensure_capable, told, why_absent
from saccade.service.errors import BackendError, RepositoryError, RuntimeMissing
from tests.gpu.flatness import growth
from tests.support.bfloat16 import needs_bf16

SIDE, CLASSES = 16, 3
IMAGE = TensorSpec(name="images", dtype="uint8", shape=(SIDE, SIDE, 3))
FEW_BYTES = 24 << 20  # allocators give pages back late


def model_of(nodes: list[onnx.NodeProto], output: TensorSpec, **constants: np.ndarray) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(output.dtype))
    graph = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["float"], name="cast", to=TensorProto.FLOAT), *nodes],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *IMAGE.shape])],
        [helper.make_tensor_value_info(output.name, kind, ["n", *output.shape])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


PRODUCTS = TensorSpec(name="products", dtype="float32", shape=(8,))
LAYERS = ("convolution", "products")  # OpenVINO names the last one by the output that it makes


def products_model() -> onnx.ModelProto:
    """A convolution and a matrix product."""
    random = np.random.default_rng(3)
    nodes = [
        helper.make_node("Transpose", ["float"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["features"], name="convolution", strides=[4, 4]),
        helper.make_node("Flatten", ["features"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "weight"], ["products"], name="product"),
    ]
    kernel, weight = random.normal(0, 0.05, (16, 3, 4, 4)), random.normal(0, 0.05, (256, 8))
    return model_of(nodes, PRODUCTS, kernel=kernel.astype(np.float32), weight=weight.astype(np.float32))


SUPPRESSED = TensorSpec(name="kept", dtype="float32", shape=(CLASSES, SIDE * SIDE))


def suppression_model() -> onnx.ModelProto:
    """Every pixel is a box with its colours as scores; what suppression leaves keeps its score, the rest is 0."""
    corners = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(1, -1, 2)
    nodes = [
        helper.make_node("Reshape", ["float", "rows"], ["pixels"]),
        helper.make_node("Transpose", ["pixels"], ["scores"], perm=[0, 2, 1]),
        helper.make_node("Shape", ["scores"], ["count"], end=1),
        helper.make_node("Concat", ["count", "one", "one"], ["times"], axis=0),
        helper.make_node("Tile", ["corners", "times"], ["boxes"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["selected"]),
        helper.make_node("GatherND", ["scores", "selected"], ["chosen"]),
        helper.make_node("Sub", ["scores", "scores"], ["none"]),
        helper.make_node("ScatterND", ["none", "selected", "chosen"], ["kept"]),
    ]
    return model_of(
        nodes,
        SUPPRESSED,
        rows=np.array([0, SIDE * SIDE, CLASSES], np.int64),
        one=np.array([1], np.int64),
        corners=np.concatenate([corners, corners + 3], -1).astype(np.float32),
        most=np.array(12, np.int64),
        overlap=np.array(0.3, np.float32),
        least=np.array(120, np.float32),
    )


def request_for(directory: Path, model: onnx.ModelProto, output: TensorSpec, **changes: Any) -> LoadRequest:
    file, content = directory / "model.onnx", model.SerializeToString()
    file.write_bytes(content)
    whole = LoadRequest(file, IMAGE, (output,), "cpu", 1, False, hashlib.sha256(content).hexdigest())
    return replace(whole, **changes)


def products_request(directory: Path, **changes: Any) -> LoadRequest:
    return request_for(directory, products_model(), PRODUCTS, **changes)


def pictures(count: int) -> UInt8Array:
    return np.random.default_rng(count).integers(0, 256, (count, *IMAGE.shape), np.uint8)


def answers(request: LoadRequest, images: UInt8Array) -> Outputs:
    backend = OpenVinoBackend(request)
    found = backend.infer(images)
    backend.close()
    return found


@pytest.mark.parametrize("count", [1, 3, 8])
def test_suppression_with_other_rows_in_every_picture_answers_as_onnxruntime(tmp_path: Path, count: int) -> None:
    request, images = request_for(tmp_path, suppression_model(), SUPPRESSED), pictures(count)
    images[0] //= 3  # nothing is left of the first
    expected = OnnxRuntimeBackend(request).infer(images)[0]

    found = answers(request, images)[0]

    kept = (expected > 0).sum(axis=(1, 2))
    assert kept[0] == 0
    assert all(0 < each <= 12 * CLASSES for each in kept[1:])
    np.testing.assert_array_equal(found, expected)


def test_allowed_sizes_are_compiled_and_no_other_runs(tmp_path: Path) -> None:
    backend = OpenVinoBackend(products_request(tmp_path, allowed_batch_sizes=(1, 4)))

    assert [len(backend.infer(pictures(count))[0]) for count in (4, 1)] == [4, 1]
    with pytest.raises(BackendError, match=r"got uint8\[2, 16, 16, 3\].*in batches of 1, 4"):
        backend.infer(pictures(2))
    backend.close()


def test_fp32_computes_every_product_in_fp32_and_says_so(tmp_path: Path) -> None:
    request, images = products_request(tmp_path), pictures(4)
    backend = OpenVinoBackend(request)

    assert {backend.layer_precisions[name] for name in LAYERS} == {"fp32"}
    np.testing.assert_allclose(
        backend.infer(images)[0], OnnxRuntimeBackend(request).infer(images)[0], rtol=1e-3, atol=1e-3
    )
    backend.close()


@needs_bf16
def test_bf16_computes_the_float_file_in_bfloat16(tmp_path: Path) -> None:
    request, images = products_request(tmp_path, precision="bf16"), pictures(4)
    backend, expected = OpenVinoBackend(request), OnnxRuntimeBackend(request).infer(images)[0]

    found = backend.infer(images)[0]

    assert {backend.layer_precisions[name] for name in LAYERS} == {"bf16"}
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < difference < 2e-2  # it rounds, and no more than bfloat16 does
    backend.close()


@needs_bf16
def test_a_runtime_that_falls_back_to_fp32_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = products_request(tmp_path, precision="bf16")
    monkeypatch.setattr(openvino_backend, "_HINTS", {"bf16": "f32"})

    with pytest.raises(BackendError, match=r"computes 0 of 2 products in bf16, the others in fp32: refusing"):
        OpenVinoBackend(request)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cuda:0"}, "runs on processors here, not on 'cuda:0'"),
        ({"precision": "fp16"}, "has no fp16 on processors"),
        ({"precision": "bf16"}, r"has no bfloat16 on this processor \(it has FP32, INT8\): serve another variant"),
    ],
    ids=["device", "precision", "instructions"],
)
def test_what_a_processor_cannot_do_is_refused_by_name(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])

    with pytest.raises(BackendError, match=reason):
        ensure_capable(core, products_request(tmp_path, **changes))


def test_absence_names_the_extra_or_the_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("model name : older\nflags : avx2 avx512f avx512_vnni\n")
    new.write_text("model name : newer\nflags : avx2 avx512_bf16\n")

    assert why_absent("bf16", new) == ""
    assert why_absent("bf16", old) == "OpenVINO's bfloat16 needs avx512_bf16 or amx_bf16, which this processor lacks"
    assert why_absent("int8", old) == ""
    monkeypatch.setattr(openvino_backend.importlib.util, "find_spec", lambda name: None)
    why_absent.cache_clear()
    assert why_absent("bf16", new) == "OpenVINO is not installed: pip install 'saccade-serving[openvino]'"
    with pytest.raises(RuntimeMissing, match="not installed"):
        openvino_backend.import_openvino()
    why_absent.cache_clear()


def with_weights_outside(directory: Path) -> LoadRequest:
    model = products_model()
    onnx.save(model, directory / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    weights = directory / "weights.bin"
    outside = ((weights, hashlib.sha256(weights.read_bytes()).hexdigest()),)
    request = LoadRequest(directory / "model.onnx", IMAGE, (PRODUCTS,), "cpu", 1, False, external_data=outside)
    return request


def test_weights_beside_the_graph_are_the_verified_ones(tmp_path: Path) -> None:
    request, inside = with_weights_outside(tmp_path), tmp_path / "inside"
    inside.mkdir()
    backend = OpenVinoBackend(request)
    request.external_data[0][0].write_bytes(bytes(10_000))

    expected = answers(products_request(inside), pictures(2))[0]

    np.testing.assert_array_equal(backend.infer(pictures(2))[0], expected)
    backend.close()
    with pytest.raises(RepositoryError, match=r"weights\.bin has SHA-256"):
        OpenVinoBackend(request)


def test_weights_that_the_manifest_does_not_list_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(with_weights_outside(tmp_path), external_data=())
    monkeypatch.chdir(tmp_path)  # where OpenVINO looks for weights of a graph without a path

    with pytest.raises(BackendError, match=r"openvino cannot load model\.onnx: Invalid usage .*weights\.bin"):
        OpenVinoBackend(request)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(1000)])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    request = LoadRequest(tmp_path / "model.onnx", IMAGE, (PRODUCTS,), "cpu", 1, False)

    with pytest.raises(BackendError, match=r"^openvino cannot load model\.onnx: [^\n]*\w[^\n]*$"):
        OpenVinoBackend(request)


def test_a_signature_that_differs_from_the_manifest_is_refused(tmp_path: Path) -> None:
    other = TensorSpec(name="scores", dtype="float32", shape=(8,))

    with pytest.raises(BackendError, match=r"has .*products.*the manifest declares .*scores"):
        OpenVinoBackend(request_for(tmp_path, products_model(), other))


def test_of_a_message_the_line_is_told_that_says_what_happened() -> None:
    places = "Exception from src/inference/src/cpp/core.cpp:105:\nCheck 'false' failed at src/report.cpp:151:\n"
    error = RuntimeError(f"{places}Summary:\n-- No conversion rule found for operations: Foo-20\nTo facilitate it\n\n")

    assert told(error) == "No conversion rule found for operations: Foo-20"
    assert told(RuntimeError()) == "RuntimeError"


def test_nothing_is_written_below_the_home_directory(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    program = (
        "import sys\n"
        "from tests.contract.test_openvino import OpenVinoBackend, products_request\n"
        "from pathlib import Path\n"
        f"OpenVinoBackend(products_request(Path({str(tmp_path)!r}))).close()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
    )
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=work, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
    assert [*home.rglob("*"), *work.rglob("*")] == []


def test_models_come_and_go_without_a_trace(tmp_path: Path) -> None:
    request = products_request(tmp_path, allowed_batch_sizes=(1, 2, 4))
    resident: list[int] = []
    for _ in range(30):
        backend = OpenVinoBackend(request)
        for size in (1, 2, 4):
            backend.infer(pictures(size))
        backend.close()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE"))

    assert growth(resident) <= FEW_BYTES, f"the process grew over {len(resident)} cycles"


def test_installed_openvino_that_cannot_be_imported_is_absent_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise ImportError('libtbb is broken')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    for cached in (why_absent, openvino_backend._import_problem):
        cached.cache_clear()

    try:
        assert why_absent("int8") == "OpenVINO does not start: libtbb is broken"
    finally:
        for cached in (why_absent, openvino_backend._import_problem):
            cached.cache_clear()
