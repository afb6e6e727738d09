"""Mixed precision. Promises: only what bears it leaves fp32, casts lie at borders, and inputs and answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.plans.tensorrt_from_onnx import build_plan, find_tensorrt
from saccade.export.precision.casting import lift_constants, narrowed
from saccade.export.precision.effective_precision import element_types, layer_precisions, share_in
from saccade.export.precision.float_formats import float_format
from saccade.export.precision.mixed_precision import prepared
from saccade.export.precision.regions import (
    Regions,
    constant_reason,
    normalisation_chains,
    ranged_tensors,
    regions_by_operator,
    regions_within_range,
)
from tests.unit.export.precision.mixed_networks import SIDE, classifier, values

needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")
FP16, BF16 = float_format("fp16"), float_format("bf16")


NORMALISATION = {f"norm/{op}" for op in ("ReduceMean", "Sub", "Mul", "ReduceMean_1", "Add", "Sqrt", "Div")}
MULTIPLYING = {"stem/Conv", "body/Conv", "head/Conv", "head/Gemm"}


def regions_of(model: onnx.ModelProto, extremes: dict[str, float] | None = None, precision: str = "fp16") -> Regions:
    target = FP16 if precision == "fp16" else BF16
    allowed = regions_by_operator(model, target)
    known = dict.fromkeys(ranged_tensors(model, allowed), 1.0) | (extremes or {})
    return regions_within_range(model, allowed, known, target)


def run(
    model: onnx.ModelProto, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": images}))


def test_products_leave_fp32_and_what_cannot_bear_it_stays_with_its_reason() -> None:
    regions = regions_of(classifier())

    assert regions.narrow >= MULTIPLYING
    assert {name for name, reason in regions.kept_fp32.items() if reason == "normalisation"} == NORMALISATION
    assert regions.kept_fp32["attention/Softmax"] == "exponentials and logarithms"
    assert regions.kept_fp32["answer/Softmax"] == "answer head"
    assert regions.kept_fp32["answer/TopK"] == "answer head"


def test_every_float_node_is_either_narrow_or_has_a_reason() -> None:
    model = classifier()
    regions = regions_of(model)
    others = {"Cast", "Transpose"}  # casts take any type, the transpose moves bytes

    names = {node.name for node in model.graph.node if node.op_type not in others}
    assert names == regions.narrow | set(regions.kept_fp32)
    assert regions.narrow.isdisjoint(regions.kept_fp32)


def test_channel_attention_is_no_normalisation() -> None:
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x", "axes"], ["mean"], name="mean"),
        node("Conv", ["mean", "w"], ["c"], name="conv"),
        node("Sigmoid", ["c"], ["gate"], name="gate"),
        node("Mul", ["x", "gate"], ["y"], name="scale"),
        node("Sqrt", ["y"], ["z"], name="unrelated"),
    ]
    assert normalisation_chains(nodes) == set()


def test_node_beyond_the_range_stays_in_fp16_and_leaves_in_bf16() -> None:
    model = classifier()
    narrow = regions_of(model, {"c2": 20_000.0})
    inside = regions_of(model, {"c2": 16_000.0})
    wide = regions_of(prepared(classifier(), BF16), {"c2": 20_000.0}, "bf16")

    assert narrow.kept_fp32["body/Conv"] == "calibrated values exceed a quarter of fp16's range"
    assert narrow.kept_fp32["body/Resize"] == "calibrated values exceed a quarter of fp16's range"
    assert {"body/Conv", "body/Resize"} <= inside.narrow
    assert "body/Conv" in wide.narrow


def test_activations_near_zero_stay() -> None:
    regions = regions_of(classifier(), {"c2": 1e-5})

    assert regions.kept_fp32["body/Conv"] == "calibrated values are too small for fp16"


def test_constants_beyond_or_below_the_type_stay() -> None:
    assert constant_reason(np.array([1.0, 70_000.0]), FP16) == "weights exceed fp16's range"
    assert constant_reason(np.array([1e-9, -3e-9]), FP16) == "weights are too small for fp16"
    assert constant_reason(np.array([1.0, 1e-9]), FP16) is None  # what is lost does not count beside the rest
    assert constant_reason(np.array([70_000.0, 1e-9]), BF16) is None
    model = classifier()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(np.full((8, 8, 1, 1), 1e-8, np.float32), "w2"))
    assert regions_of(model).kept_fp32["body/Conv"] == "weights are too small for fp16"


def test_mean_over_many_elements_stays_and_a_short_one_may_leave() -> None:
    def pooled(side: int) -> onnx.ModelProto:
        model = parser.parse_model(
            f"""<ir_version: 10, opset_import: ["": 20]>
            pooled (uint8[batch,{side},{side},3] images) => (float[batch,8] logits)
            <float[8,3,1,1] w = {{{",".join(["0.5"] * 24)}}}, float[8,8] m = {{{",".join(["0.5"] * 64)}}}>
            {{
                planar = Transpose <perm = [0, 3, 1, 2]> (images)
                floats = Cast <to = 1> (planar)
                maps = Conv (floats, w)
                pooled = GlobalAveragePool (maps)
                flat = Flatten (pooled)
                logits = MatMul (flat, m)
            }}"""
        )
        for node in model.graph.node:
            node.name = node.output[0]
        mark_network_outputs(model, ["logits"])
        return model

    assert regions_of(pooled(17)).kept_fp32["pooled"] == "a sum over more than 256 elements"
    assert "pooled" in regions_of(pooled(16)).narrow


def test_island_that_hardly_multiplies_stays() -> None:
    model = classifier()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors["w3"].CopyFrom(values((1, 8, 8, 8), "w3"))
    tensors["w4"].CopyFrom(values((9, 1), "w4"))  # 18 of 500 thousand FLOPs
    model.graph.output[2].type.tensor_type.shape.dim[1].dim_value = 1

    regions = regions_of(model, {"c3": 60_000.0, "flat": 1.0})  # the convolution before it stays, too

    assert regions.kept_fp32["head/Conv"] == "calibrated values exceed a quarter of fp16's range"
    assert regions.kept_fp32["head/Gemm"].startswith("an island of less than 0.001 of the FLOPs")
    assert {"stem/Conv", "body/Conv"} <= regions.narrow


def test_casts_lie_at_borders_only_and_other_inputs_keep_their_type() -> None:
    model = classifier()
    made = narrowed(model, regions_of(model).narrow, FP16)
    producers = {name: node for node in made.graph.node for name in node.output}
    casts = [node for node in made.graph.node if node.op_type == "Cast"]
    types = element_types(made)

    onnx.checker.check_model(made, full_check=True)
    assert len({cast.input[0] for cast in casts}) == len(casts)  # one cast per tensor
    double = [cast.name for cast in casts if producers[cast.input[0]].op_type == "Cast"]
    assert double == []
    assert types["scales"] == TensorProto.FLOAT  # Resize knows float scales only
    assert types["epsilon"] == TensorProto.FLOAT
    assert [tensor.data_type for tensor in made.graph.initializer if tensor.name.startswith("w")] == [10] * 4
    assert {types[value.name] for value in made.graph.output} == {TensorProto.FLOAT, TensorProto.INT32}
    assert made.graph.input == model.graph.input
    assert share_in(layer_precisions(made), "fp16") == 1.0


def test_bytes_become_half_floats_without_a_way_through_fp32() -> None:
    model = classifier()
    made = narrowed(model, regions_of(model).narrow, FP16)

    (first,) = [node for node in made.graph.node if node.op_type == "Cast" and node.input[0] == "planar"]
    assert helper.get_attribute_value(first.attribute[0]) == TensorProto.FLOAT16
    assert "bytes_to_float" not in [node.name for node in made.graph.node]


def test_answers_stay_close_and_an_answer_inside_the_narrow_part_keeps_name_and_type() -> None:
    model = classifier()
    images = np.random.default_rng(3).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    expected = run(model, images)
    found = run(narrowed(model, regions_of(model).narrow, FP16), images)

    for left, right in zip(found, expected, strict=True):
        assert left.dtype == right.dtype
    np.testing.assert_allclose(found[2], expected[2], atol=0.02)


def test_constant_read_on_both_sides_exists_in_both_types() -> None:
    model = classifier()
    shared = helper.make_node("Add", ["probabilities", "row"], ["shifted"], name="answer/Add")
    inside = helper.make_node("Add", ["dense", "row"], ["logits"], name="head/Add")
    gemm = next(node for node in model.graph.node if node.name == "head/Gemm")
    gemm.output[0] = "dense"
    model.graph.node.insert(list(model.graph.node).index(gemm) + 1, inside)
    model.graph.initializer.append(values((10,), "row"))
    softmax = next(node for node in model.graph.node if node.name == "answer/Softmax")
    model.graph.node.insert(list(model.graph.node).index(softmax) + 1, shared)
    next(node for node in model.graph.node if node.name == "answer/TopK").input[0] = "shifted"

    # A node behind the network's last product is decoding, so it is chosen by hand here.
    made = narrowed(model, regions_of(model).narrow | {"head/Add"}, FP16)

    onnx.checker.check_model(made, full_check=True)
    types = element_types(made)
    assert (types["row"], types["row_fp16"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)


def test_tensor_that_a_branch_reads_keeps_its_name_in_fp32() -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[n,4] x, bool pick) => (float[n,4] y)
        <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
        {
            z = MatMul (x, w)
            y = If (pick) <then_branch = a () => (float[n,4] t) { t = Neg (z) },
                           else_branch = b () => (float[n,4] e) { e = Identity (z) }>
        }"""
    )
    for node in model.graph.node:
        node.name = node.output[0]
    made = narrowed(model, {"z"}, FP16)

    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[1, 2, 3, 4]], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "pick": np.array(True)})[0], -x)


def test_constant_nodes_become_initializers_of_the_same_value() -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[n,2] x) => (float[n,2] y)
        {
            two = Constant <value_float = 2.0> ()
            row = Constant <value = float[2] {3.0, 4.0}> ()
            z = Mul (x, two)
            y = Add (z, row)
        }"""
    )
    lift_constants(model)

    assert [node.op_type for node in model.graph.node] == ["Mul", "Add"]
    found = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    assert found == {"two": 2.0, "row": [3.0, 4.0]}


def test_padding_next_to_zero_stays_next_to_zero() -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[1,1,2,2] x) => (float[1,1,4,4] y)
        <int64[8] pads = {0,0,1,1,0,0,1,1}, float tiny = {1.2e-38}>
        { y = Pad (x, pads, tiny) }"""
    )
    model.graph.node[0].name = "pad"
    made = narrowed(model, {"pad"}, FP16)

    padding = next(tensor for tensor in made.graph.initializer if tensor.name == "tiny_fp16")
    assert float(numpy_helper.to_array(padding)) == FP16.smallest > 0


def test_graph_is_brought_to_the_opset_whose_convolutions_take_bf16() -> None:
    model = classifier(opset=20)
    names = [node.name for node in model.graph.node]
    prepared(model, BF16)
    made = narrowed(model, regions_of(model, precision="bf16").narrow, BF16)

    onnx.checker.check_model(made, full_check=True)
    assert model.opset_import[0].version == 22
    assert [node.name for node in model.graph.node] == names
    assert share_in(layer_precisions(made), "bf16") == 1.0
    # Unprepared, convolutions have no such form, and none may be claimed.
    assert "stem/Conv" not in regions_of(classifier(), precision="bf16").narrow


@needs_rtx
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_plan_builds_for_every_gpu_generation(precision: str) -> None:
    target = FP16 if precision == "fp16" else BF16
    model = prepared(classifier(), target)
    made = narrowed(model, regions_of(model, precision=precision).narrow, target)

    report = build_plan(made.SerializeToString())

    assert report.errors == ()
    assert report.dtypes["half" if precision == "fp16" else "bf16"] >= 4
