"""Where a network looked, found in graphs of every kind: the method, its numbers, and answers of the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.parser import parse_model

from saccade.export.extras.explanation import explained
from saccade.export.extras.marks import NoExtra, add_branch
from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.models.contract.specs import Task

ANSWER = """
    scores_all = Softmax<axis=1>(logits)
    two = Constant<value_ints=[2]>()
    scores, ids = TopK<axis=1>(scores_all, two)
    class_ids = Cast<to=6>(ids)
}"""
PIXELS = """
    first = Constant<value_ints=[0]>()
    floats = Cast<to=1>(images)
    pixels = Transpose<perm=[0,3,1,2]>(floats)
"""
POOLED = """
    map = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[4,4]>(pixels, kernel)
    hot = Relu(map)
    pooled = GlobalAveragePool(hot)
    vector = Flatten(pooled)
"""
WEIGHTS = {
    "kernel": (6, 3, 3, 3),
    "second": (6, 6, 3, 3),
    "three": (3, 3, 3, 3),
    "head": (3, 6),
    "flat": (6, 3),
    "wide": (96, 3),
    "all": (768, 3),
    "patch": (48, 6),
    "square": (6, 6),
}
CLASS_TOKEN = """
    class = ReduceMean<keepdims=1>(patches, one_axis)
    tokens = Concat<axis=1>(class, patches)
"""
ATTENTION = """
    turned = Transpose<perm=[0,2,1]>(tokens)
    products = MatMul(tokens, turned)
    hundred = Constant<value_float=0.0001>()
    small = Mul(products, hundred)
    head_axis = Constant<value_ints=[1]>()
    heads = Unsqueeze(small, head_axis)
    weights = Softmax<axis=3>(heads)
    square_weights = Squeeze(weights, head_axis)
    mixed = MatMul(square_weights, tokens)
    zero = Constant<value_int=0>()
    token = Gather<axis=1>(mixed, zero)
    logits = MatMul(token, flat)
"""
IMAGES = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)


def classifier(body: str, *weights: str, opset: int = 20) -> onnx.ModelProto:
    """A graph of three classes over 16 x 16 pixels; weights are drawn by their names' shapes."""
    declared = ", ".join(f"float{list(WEIGHTS[name])} {name}" for name in weights)
    head = f'<ir_version: 10, opset_import: ["": {opset}]> g (uint8[batch,16,16,3] images) => '
    outputs = "(float[batch,2] scores, int32[batch,2] class_ids)"
    model = parse_model(head + outputs + (f" <{declared}>" if declared else "") + " {" + body + ANSWER)
    rng = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name in weights:
        values = (rng.normal(size=WEIGHTS[name]) / 100).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    mark_network_outputs(model, ["logits"])
    onnx.checker.check_model(model)
    return model


def patches(strides: str, flattened: str = "rows") -> str:
    """Tokens (n, places, 6) of a convolution's map, whose channels are turned behind the places first or last."""
    turned = {
        "rows": "to_rows = Constant<value_ints=[0, 6, -1]>()\n rows = Reshape(map, to_rows)\n"
        "patches = Transpose<perm=[0,2,1]>(rows)\n",
        "places": "last = Transpose<perm=[0,2,3,1]>(map)\n to_places = Constant<value_ints=[0, -1, 6]>()\n"
        "patches = Reshape(last, to_places)\n",
    }
    made = f"map = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[{strides}]>(pixels, kernel)\n"
    return made + turned[flattened] + "one_axis = Constant<value_ints=[1]>()\n"


def weight(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


def run(model: onnx.ModelProto, names: list[str], *, asked: bool = False) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(
        names, {"images": IMAGES, **({"ask_explain": np.array(True)} if asked else {})}
    )
    return found


def inside(model: onnx.ModelProto, *tensors: str) -> list[NDArray[Any]]:
    """What a graph computes inside."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return run(watched, list(tensors))


def explained_maps(model: onnx.ModelProto, method: str, task: Task = Task.CLASSIFY) -> NDArray[Any]:
    """The map of each image, once it is known that the method is this one and that answers are the same bits."""
    before = run(model, [each.name for each in model.graph.output])
    branch = explained(model, task, 3)
    assert branch.extra.method == method
    add_branch(model, branch)
    onnx.checker.check_model(model)
    *after, maps = run(model, [each.name for each in model.graph.output], asked=True)
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    assert maps.shape == (3, *branch.extra.output.shape)
    return maps


@pytest.mark.parametrize(
    "head",
    ["logits = Gemm<transB=1>(vector, head)", "raw = Gemm<transB=1>(vector, head)\n logits = Softmax<axis=1>(raw)"],
)
def test_a_linear_head_weighs_the_map_as_the_answered_class_does(head: str) -> None:
    model = classifier(PIXELS + POOLED + head, "kernel", "head")
    maps = explained_maps(model, "class activation")
    hot, class_ids = inside(model, "hot", "class_ids")
    expected = np.einsum("nc,nchw->nhw", weight(model, "head")[class_ids[:, 0]], hot)
    np.testing.assert_allclose(maps, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)
    assert len(np.unique(class_ids[:, 0])) > 1 or maps.max() > 0


def test_a_finer_map_says_where_in_a_cell_the_class_is() -> None:
    finer = """
    edges = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(pixels, kernel)
    fine = Relu(edges)
    map = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(fine, second)
    hot = Relu(map)
    pooled = GlobalAveragePool(hot)
    vector = Flatten(pooled)
    logits = Gemm<transB=1>(vector, head)
    """
    model = classifier(PIXELS + finer, "kernel", "second", "head")
    maps = explained_maps(model, "refined class activation")
    fine, hot, class_ids = inside(model, "fine", "hot", "class_ids")
    coarse = np.einsum("nc,nchw->nhw", weight(model, "head")[class_ids[:, 0]], hot)
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(coarse[:, None]), (8, 8), mode="bilinear")[:, 0].numpy()
    expected = np.maximum(enlarged * (fine**2).sum(1), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=0.02, atol=0.01 * expected.max())  # runtimes round sizes down


@pytest.mark.parametrize("opset", [17, 20])
def test_a_head_behind_another_layer_shows_the_principal_component(opset: int) -> None:
    body = PIXELS + POOLED + "squashed = Tanh(vector)\n logits = MatMul(squashed, flat)"
    model = classifier(body, "kernel", "flat", opset=opset)
    maps = explained_maps(model, "principal component")
    (hot,) = inside(model, "hot")
    places = hot.reshape(3, 6, 16).transpose(0, 2, 1)
    for found, features in zip(maps, places, strict=True):
        _, _, components = np.linalg.svd(features - features.mean(0), full_matrices=False)
        along = (features - features.mean(0)) @ components[0]
        along *= np.sign(along @ (features**2).mean(1))
        assert np.corrcoef(np.maximum(along, 0), found.ravel())[0, 1] > 0.99


def test_channels_that_are_the_classes_need_no_head() -> None:
    body = PIXELS + "map = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[4,4]>(pixels, kernel)\n"
    model = classifier(body.replace("kernel)", "three)") + "p = GlobalAveragePool(map)\n logits = Flatten(p)", "three")
    maps = explained_maps(model, "class activation")
    made, class_ids = inside(model, "map", "class_ids")
    expected = np.stack([made[row, class_ids[row, 0]] for row in range(3)])
    np.testing.assert_allclose(maps, np.maximum(expected, 0), rtol=1e-5)


def test_a_map_without_pooling_is_found_in_front_of_the_flattening() -> None:
    body = (
        PIXELS
        + """
    map = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[4,4]>(pixels, kernel)
    hot = Relu(map)
    vector = Flatten(hot)
    logits = MatMul(vector, wide)
    """
    )
    assert explained_maps(classifier(body, "kernel", "wide"), "principal component").shape == (3, 4, 4)


@pytest.mark.parametrize(("strides", "grid"), [("8,8", (2, 2)), ("2,8", (8, 2)), ("8,2", (2, 8))])
def test_the_class_token_shows_what_it_attends_to(strides: str, grid: tuple[int, int]) -> None:
    model = classifier(PIXELS + patches(strides) + CLASS_TOKEN + ATTENTION, "kernel", "flat")
    maps = explained_maps(model, "class attention")
    (weights,) = inside(model, "weights")
    np.testing.assert_allclose(maps, weights.mean(1)[:, 0, 1:].reshape(3, *grid), rtol=1e-6)


@pytest.mark.parametrize(("strides", "grid"), [("4,4", (4, 4)), ("2,8", (8, 2)), ("8,2", (2, 8))])
@pytest.mark.parametrize("flattened", ["rows", "places"])
def test_a_mean_over_tokens_lies_on_the_grid_of_the_patches(
    strides: str, grid: tuple[int, int], flattened: str
) -> None:
    mean = "axis = Constant<value = int64[1] {1}>()\n vector = ReduceMean<keepdims=0>(hot, axis)\n"
    body = patches(strides, flattened) + "hot = Relu(patches)\n" + mean + "logits = Gemm<transB=1>(vector, head)"
    model = classifier(PIXELS + body, "kernel", "head")
    maps = explained_maps(model, "class activation")
    map_, class_ids = inside(model, "map", "class_ids")
    expected = np.einsum("nc,nchw->nhw", weight(model, "head")[class_ids[:, 0]], np.maximum(map_, 0))
    assert maps.shape[1:] == grid
    np.testing.assert_allclose(maps, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


FEWER = """
    chosen = Constant<value_ints=[15,3,7,0,4,1,2,6,8]>()
    kept = Gather<axis=1>(patches, chosen)
    class = ReduceMean<keepdims=1>(kept, one_axis)
    tokens = Concat<axis=1>(class, kept)
"""
BEHIND = """
    class = ReduceMean<keepdims=1>(patches, one_axis)
    tokens = Concat<axis=1>(patches, class)
"""


@pytest.mark.parametrize("joined", [FEWER, BEHIND], ids=["some tokens left out", "the class token comes last"])
def test_tokens_that_are_no_grid_are_not_guessed_to_be_one(joined: str) -> None:
    model = classifier(PIXELS + patches("4,4") + joined + ATTENTION, "kernel", "flat")
    with pytest.raises(NoExtra, match="rows and columns"):
        explained(model, Task.CLASSIFY, 3)


def test_tokens_without_a_convolution_are_not_guessed_to_be_a_grid() -> None:
    cut = """
    to_patches = Constant<value_ints=[0, 16, 48]>()
    cut = Reshape(pixels, to_patches)
    patches = MatMul(cut, patch)
    one_axis = Constant<value_ints=[1]>()
    """
    model = classifier(PIXELS + cut + CLASS_TOKEN + ATTENTION, "patch", "flat")
    with pytest.raises(NoExtra, match="rows and columns"):
        explained(model, Task.CLASSIFY, 3)


def test_a_map_that_most_of_the_network_follows_explains_no_answer() -> None:
    layers = [f"made{layer + 1} = MatMul(made{layer}, square)\n" for layer in range(4)]
    body = patches("4,4") + "made0 = Relu(patches)\n" + "".join(layers)
    flat = "vector = Flatten(made4)\n logits = MatMul(vector, wide)"
    model = classifier(PIXELS + body + flat, "kernel", "square", "wide")
    with pytest.raises(NoExtra, match="only the head lies"):
        explained(model, Task.CLASSIFY, 3)
    with pytest.raises(NoExtra, match="most layers follow"):
        explained(model, Task.DETECT, 3)


def test_networks_without_a_map_are_named() -> None:
    model = classifier(PIXELS + "vector = Flatten(pixels)\n logits = MatMul(vector, all)", "all")
    with pytest.raises(NoExtra, match="no map"):
        explained(model, Task.CLASSIFY, 3)


def test_a_network_of_small_numbers_has_as_clear_a_map() -> None:
    body = PIXELS + POOLED + "squashed = Tanh(vector)\n logits = MatMul(squashed, flat)"
    usual, small = (classifier(body, "kernel", "flat") for _ in range(2))
    for tensor in small.graph.initializer:
        if tensor.name == "kernel":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e-9), "kernel"))
    maps = [explained_maps(model, "principal component") for model in (usual, small)]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-3)
    assert maps[0].max() == pytest.approx(1.0)
