"""Sessions of the exporter. Promises: no warning of ONNX Runtime comes between the lines of a run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.sessions import cpu_session

EXPORT = Path(__file__).resolve().parents[4] / "export"


def model_with_an_unused_constant() -> bytes:
    """ONNX Runtime warns of it when it cleans the graph up."""
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    unused = numpy_helper.from_array(np.ones(1, np.float32), "unused")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [tensor], [result], [unused])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_warnings_are_not_written_and_errors_are_raised(capfd: pytest.CaptureFixture[str]) -> None:
    onnxruntime.set_default_logger_severity(2)  # other tests of this process may have silenced it
    onnxruntime.InferenceSession(model_with_an_unused_constant(), providers=["CPUExecutionProvider"])
    assert "unused" in capfd.readouterr().err, "ONNX Runtime no longer warns of this: find another case"

    cpu_session(model_with_an_unused_constant())

    assert capfd.readouterr().err == ""
    with pytest.raises(Exception, match="INVALID"):
        cpu_session(b"no model")


def test_every_session_of_the_exporter_is_opened_here() -> None:
    opening = re.compile(r"^[^#]*onnxruntime\.InferenceSession\(", re.MULTILINE)
    found = {path.name for path in EXPORT.rglob("*.py") if opening.search(path.read_text("utf-8"))}

    # The second one opens its session in a process of its own, which imports nothing of the exporter.
    assert found == {"sessions.py", "speed_measurements.py"}
