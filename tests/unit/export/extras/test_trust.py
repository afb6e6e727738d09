"""The score of unfamiliarity. Promises: what was not seen lies above 1, refusals in words, the answer is left alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.data.image_split import ImageSplit
from saccade.export.errors import DataRefused
from saccade.export.extras.deep_features import Feature, deepest, features_of, vector_of
from saccade.export.extras.gaussian import ConstantFeatures, LowRank, Whitening, fit_positions, fit_vectors
from saccade.export.extras.marks import NoExtra, add_branch
from saccade.export.extras.trust import FAMILIAR_SHARE, trust_branch
from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.graph.sessions import cpu_session
from saccade.models.contract.specs import Task

SIDE = 32
RNG = np.random.default_rng(0)


def dark(count: int, seed: int) -> NDArray[np.uint8]:
    """Pictures of little contrast; each with a bright spot, as an object is."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 60, (count, SIDE, SIDE, 3), np.uint8)
    for picture in pictures:
        row, column = rng.integers(0, SIDE - 6, 2)
        picture[row : row + 6, column : column + 6] = 255
    return pictures


def network(task: Task) -> onnx.ModelProto:
    """Two convolutions with random weights, and a linear layer over their mean where the task is to classify."""
    weights = np.random.default_rng(1)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((weights.normal(0, 0.3, shape)).astype(np.float32), name)

    nodes = [
        helper.make_node("Transpose", ["images"], ["planar"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["levels"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "white"], ["floats"], "div"),
        helper.make_node("Conv", ["floats", "first"], ["wide"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["wide"], ["seen"], "relu"),
        helper.make_node("Conv", ["seen", "second"], ["map"], "second", pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    constants = [numpy_helper.from_array(np.float32(255), "white"), constant("first", 8, 3, 3, 3)]
    constants.append(constant("second", 12, 8, 3, 3))
    end = "map"
    if task is Task.CLASSIFY:
        nodes += [
            helper.make_node("Relu", ["map"], ["active"], "active"),
            helper.make_node("ReduceMean", ["active", "axes"], ["vector"], "mean", keepdims=0),
            helper.make_node("Gemm", ["vector", "classifier"], ["logits"], "classify"),
        ]
        constants += [numpy_helper.from_array(np.array([2, 3]), "axes"), constant("classifier", 12, 4)]
        end = "logits"
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    answer = helper.make_tensor_value_info(end, TensorProto.FLOAT, None)
    nodes.append(helper.make_node("Identity", [end], ["answer"], "answer"))
    outputs = [answer, helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "network", [images], outputs, constants)
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    )
    mark_network_outputs(model, [end])
    return model


def context(tmp_path: Path, task: Task = Task.CLASSIFY, **splits: NDArray[np.uint8]) -> Any:
    pictures = {"calibration": dark(64, 1), "tuning": dark(40, 2)} | splits

    def split(_loaded: object, name: str) -> ImageSplit:
        if name not in pictures:
            raise DataRefused(f"no split {name}")
        digests = tuple(picture.tobytes().hex() for picture in pictures[name])
        return ImageSplit(name, (), pictures[name], (), digests)  # type: ignore[arg-type]  # named by the keywords

    recipe = SimpleNamespace(
        task=SimpleNamespace(task=task), qualify=SimpleNamespace(threads=1, evaluate_batch_size=16)
    )
    return SimpleNamespace(loaded=None, recipe=recipe, out=tmp_path, data=SimpleNamespace(split=split))


def scored(model: onnx.ModelProto, made: Any, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    add_branch(changed, trust_branch(model, made))
    onnx.checker.check_model(changed)
    session = cpu_session(changed.SerializeToString())
    plain = cpu_session(model.SerializeToString()).run(["answer"], {"images": pictures})[0]
    answer, scores = session.run(["answer", "unfamiliarity"], {"images": pictures, "ask_trust": np.array(True)})
    assert np.array_equal(answer, plain)
    found: NDArray[np.float32] = scores
    return found


@pytest.mark.parametrize("task", [Task.CLASSIFY, Task.SEGMENT])
def test_foreign_pictures_lie_above_the_threshold(tmp_path: Path, task: Task) -> None:
    bright = RNG.integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
    empty = np.random.default_rng(5).integers(0, 60, (20, SIDE, SIDE, 3), np.uint8)  # no object

    scores = scored(network(task), context(tmp_path, task), np.concatenate([dark(100, 3), bright, empty]))

    assert scores.shape == (140,)
    assert (scores[:100] <= 1).mean() >= FAMILIAR_SHARE - 0.1
    assert (scores[100:] > 1).all()
    assert not [*tmp_path.iterdir()]


def test_a_score_does_not_depend_on_the_others_of_its_batch(tmp_path: Path) -> None:
    pictures = dark(5, 7)
    together = scored(network(Task.CLASSIFY), context(tmp_path), pictures)
    alone = [scored(network(Task.CLASSIFY), context(tmp_path), pictures[row : row + 1])[0] for row in range(5)]

    np.testing.assert_allclose(together, alone, rtol=1e-4)


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"calibration": dark(31, 1)}, "at least 32 different calibration pictures, and the data has 31"),
        ({"calibration": np.repeat(dark(1, 1), 64, 0)}, "and the data has 1"),
        ({"tuning": dark(19, 1)}, "at least 20 different tuning pictures"),
    ],
)
def test_too_few_pictures_are_refused_in_words(tmp_path: Path, splits: dict[str, Any], told: str) -> None:
    with pytest.raises(NoExtra, match=told):
        trust_branch(network(Task.CLASSIFY), context(tmp_path, **splits))


def test_features_that_never_change_are_refused_in_words(tmp_path: Path) -> None:
    blind = network(Task.CLASSIFY)
    first = next(tensor for tensor in blind.graph.initializer if tensor.name == "first")
    first.CopyFrom(numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "first"))

    with pytest.raises(NoExtra, match="are the same for every calibration picture"):
        trust_branch(blind, context(tmp_path))


def test_a_network_without_maps_is_refused_in_words(tmp_path: Path) -> None:
    model = network(Task.SEGMENT)
    del model.graph.node[3:]  # without layers that have weights
    mark_network_outputs(model, ["floats"])

    with pytest.raises(NoExtra, match="no layer of the network reads a feature map"):
        trust_branch(model, context(tmp_path, Task.SEGMENT))


def test_features_are_what_the_last_classifier_reads() -> None:
    assert vector_of(network(Task.CLASSIFY), Task.CLASSIFY) == Feature("vector", -1)
    assert vector_of(network(Task.SEGMENT), Task.SEGMENT) is None
    assert features_of(network(Task.SEGMENT)) == (Feature("floats", 1), Feature("seen", 1))


def test_the_coarsest_maps_are_taken_and_windows_of_attention_are_not() -> None:
    shapes = {
        Feature("fine", 1): (2, 8, 64, 64),
        Feature("middle", 1): (2, 8, 32, 32),
        Feature("earlier", 1): (2, 8, 16, 16),
        Feature("later", 1): (2, 8, 16, 16),
        Feature("tokens", -1): (2, 196, 32),
        Feature("windows", -1): (32, 64, 32),
        Feature("small", 1): (2, 8, 8, 8),
    }
    assert [each.tensor for each in deepest(shapes, 2)] == ["tokens", "later"]


def test_fewer_samples_than_features_are_no_singular_covariance() -> None:
    rows = RNG.normal(size=(40, 200)) @ RNG.normal(size=(200, 200))
    fitted = fit_vectors(rows)
    assert isinstance(fitted, Whitening)
    distances = ((rows @ fitted.weights + fitted.bias) ** 2).sum(1)
    far = ((rows * 4 @ fitted.weights + fitted.bias) ** 2).sum(1)
    assert np.isfinite(distances).all()
    assert far.min() > distances.max()


def test_many_features_share_the_variance_of_narrow_directions() -> None:
    wide = RNG.normal(size=(600, 300)) * np.r_[np.full(10, 30.0), np.ones(290)]
    fitted = fit_vectors(wide)
    assert isinstance(fitted, LowRank)
    scaled = (wide - fitted.mean) * fitted.scale
    distances = fitted.spherical * (scaled**2).sum(1) - ((scaled @ fitted.directions) ** 2).sum(1)
    assert 0.5 < distances.mean() < 1.5


def test_what_is_not_finite_is_no_feature() -> None:
    with pytest.raises(ConstantFeatures):
        fit_positions(np.full((100, 3), np.nan))


def test_a_network_whose_answer_is_a_picture_gets_no_score_that_nobody_could_ask_for(tmp_path: Path) -> None:
    with pytest.raises(NoExtra, match="no place for a score"):
        trust_branch(network(Task.IMAGE), context(tmp_path, Task.IMAGE))
