"""What TensorRT says. Promises: errors of parser and builder name node and torch layer, and nobody's lines are lost."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.plans.build_log import HeardLines, ParserError, builder_error, listening, parser_reason
from saccade.export.plans.network import Parsed
from saccade.export.plans.tensorrt_from_onnx import build_plan, find_tensorrt, refusal_text
from tests.support.residual_network import residual_network

needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")
LAYERS = {
    "network.head/NonMaxSuppression": "network.head",
    "network.stem/Conv": "network.stem",
    "network.stem/Conv_1": "network.stem",
    "network.last/Relu": "network.last",
    "x": "",
}
OPERATORS = {name: name.rpartition("/")[2].partition("_")[0] for name in LAYERS}

# As TensorRT for RTX 1.7.1 wrote it for a suppression without a kernel, apart from the node's name.
NO_KERNEL = (
    "[tacticSupply.cpp::getSupportedFormats::48] Error Code 2: Internal Error (Assertion !layerImpls.empty() failed. "
    "network.head/NonMaxSuppression_122 has no runners that implement it In getSupportedFormats at "
    "/_src/optimizer/builder/tacticSupply.cpp:48)"
)
# The form that TensorRT 10 uses, with nodes that were fused.
NO_IMPLEMENTATION = (
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[network.stem/Conv_1...network.last/Relu]}. In computeCosts at optimizer/common/optimizer.cpp:4)"
)


def test_builder_error_names_the_node_and_the_layer_that_it_is_about() -> None:
    error = builder_error(["an earlier one", NO_KERNEL], LAYERS, OPERATORS)

    assert (error.operator, error.node) == ("NonMaxSuppression", "network.head/NonMaxSuppression")
    assert error.layer == "network.head"
    assert error.reason.endswith("has no runners that implement it")


def test_first_of_several_fused_nodes_is_named_and_not_one_whose_name_it_contains() -> None:
    error = builder_error([NO_IMPLEMENTATION], LAYERS, OPERATORS)

    assert error.node == "network.stem/Conv_1"
    assert "{ForeignNode[network.stem/Conv_1...network.last/Relu]}" in error.reason


@pytest.mark.parametrize("line", ["Error Code 2: out of memory", "a box x and network.stem/Convolution"])
def test_line_without_a_node_still_gives_its_reason(line: str) -> None:
    assert builder_error([line], LAYERS, OPERATORS) == ParserError("", "", "", line)


def test_builder_that_says_nothing_is_an_error_too() -> None:
    assert "no message" in builder_error([], LAYERS, OPERATORS).reason


def test_reason_of_the_parser_leaves_out_what_it_adds_to_everything() -> None:
    assert parser_reason("no such operator\nCuda driver missing\nfalse\n") == "no such operator"
    assert parser_reason("false") == "TensorRT has no such operator"


def test_refusal_is_told_with_operator_node_and_layer() -> None:
    told = refusal_text(ParserError("Det", "network.stage.2/Det", "network.stage.2", "no determinants"))

    assert told == "Det 'network.stage.2/Det' of layer network.stage.2: no determinants"
    assert refusal_text(ParserError("", "", "", "out of memory")) == "the graph: out of memory"


def test_warnings_are_shown_once_and_bounded() -> None:
    heard = HeardLines(warnings=["The logger passed into createInferBuilder differs", "a  b", "a b", "c" * 1000])

    assert heard.shown_warnings() == ("a b", "c" * 400)


def suppressed() -> onnx.ModelProto:
    """A suppression that no rewriting knows: TensorRT for RTX parses it and has no kernel for it."""
    limits = [
        numpy_helper.from_array(np.array([10], np.int64), "most"),
        numpy_helper.from_array(np.array([0.5], np.float32), "overlap"),
        numpy_helper.from_array(np.array([0.1], np.float32), "floor"),
    ]
    nodes = [
        helper.make_node("Relu", ["scores"], ["positive"], name="network.scale/Relu"),
        helper.make_node(
            "NonMaxSuppression",
            ["boxes", "positive", "most", "overlap", "floor"],
            ["kept"],
            name="network.head/NonMaxSuppression",
        ),
    ]
    given = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 20, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 20]),
    ]
    answer = [helper.make_tensor_value_info("kept", TensorProto.INT64, ["count", 3])]
    made = helper.make_graph(nodes, "graph", given, answer, limits)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@needs_rtx
def test_real_builder_names_what_it_has_no_kernel_for() -> None:
    report = build_plan(suppressed().SerializeToString(), ("SM89",), (1,), "tensorrt_rtx")

    assert report.plan is None
    (error,) = report.errors
    assert (error.operator, error.layer) == ("NonMaxSuppression", "network.head")
    assert "has no runners" in error.reason


@needs_rtx
def test_second_builder_is_heard_while_the_first_one_is_alive() -> None:
    # TensorRT ignores the second builder's logger, so a logger per build would lose its lines.
    tensorrt = find_tensorrt("tensorrt_rtx")
    assert tensorrt is not None
    first = Parsed(residual_network().SerializeToString(), tensorrt)

    report = build_plan(suppressed().SerializeToString(), ("SM89",), (1,), "tensorrt_rtx")

    assert first.errors == ()
    assert report.errors[0].layer == "network.head"
    assert not any("logger" in warning for warning in report.warnings)


@needs_rtx
def test_nobody_listens_after_a_build() -> None:
    tensorrt = find_tensorrt("tensorrt_rtx")
    assert tensorrt is not None
    with listening(tensorrt) as heard:
        build_plan(suppressed().SerializeToString(), ("SM89",), (1,), "tensorrt_rtx")
    count = len(heard.errors)

    build_plan(suppressed().SerializeToString(), ("SM89",), (1,), "tensorrt_rtx")

    assert len(heard.errors) == count > 0
