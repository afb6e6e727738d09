"""How unlike its calibration pictures an image is, as an output of a variant's file: a Gaussian on deep features.

A classifier's vector is compared as it is, as Lee et al. (2018) do. Of feature maps, the distance of each position to
those of calibration pictures is taken first, and a picture is compared by the mean and the maximum of its logarithm.
A picture without any object lacks the large distances, which a mean of features would not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.data.familiar_pictures import too_few
from saccade.export.data.image_split import Split, batches
from saccade.export.errors import DataRefused
from saccade.export.extras.branch_nodes import BranchNodes
from saccade.export.extras.deep_features import Feature, deepest, features_of, vector_of
from saccade.export.extras.gaussian import (
    ConstantFeatures,
    FloatArray,
    LowRank,
    Whitening,
    fit_positions,
    fit_vectors,
)
from saccade.export.extras.graph_view import GraphView
from saccade.export.extras.marks import ExtraBranch, NoExtra
from saccade.export.graph.large_files import save_graph
from saccade.export.graph.sessions import cpu_session, quiet_options
from saccade.export.qualification.benchmark import usable_threads
from saccade.export.steps import StepContext
from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.models.contract.specs import Task, TensorSpec

FAMILIAR_SHARE = 0.95  # of the tuning pictures, which are not fitted, have scores up to 1
_MOST_FITTED, _MOST_HELD = 512, 200  # calibration pictures, and tuning pictures, which say where the threshold lies
_MANY_POSITIONS = 1024  # of a map: then every second row and column is enough, at a quarter of the cost
_MAP_PICTURES, _MAP_SAMPLES = 64, 16_384  # positions whose features are fitted


def trust_branch(model: onnx.ModelProto, context: StepContext) -> ExtraBranch:
    """Fits the score of a variant on what its own file computes; 1 is the threshold. Raises NoExtra."""
    if context.recipe.task.task is Task.IMAGE:
        raise NoExtra("an answer that is a picture has no place for a score beside it")
    calibration = _pictures(context, "calibration")[:_MOST_FITTED]
    held = _pictures(context, "tuning")[:_MOST_HELD]
    graph = _Graph(model, context)
    try:
        statistics = _statistics(graph, context.recipe.task.task, calibration)
        fitted = fit_vectors(graph.values([statistics], calibration)[0].astype(np.float64))
    except ConstantFeatures as error:
        raise NoExtra(f"what is familiar cannot be told: {error}") from error
    distances = fitted.distances(graph.values([statistics], held)[0].astype(np.float64))
    threshold = float(np.quantile(distances, FAMILIAR_SHARE, method="higher"))
    if not 0.0 < threshold < np.inf:
        raise NoExtra(f"what is familiar cannot be told: the distance of tuning pictures is {threshold}")
    result = graph.distance(statistics, fitted.divided(threshold))
    output = TensorSpec(name="unfamiliarity", dtype="float32", shape=())
    extra = ExtraOutput(kind=ExtraKind.TRUST, output=output, method="gaussian")
    return ExtraBranch(extra, graph.branch.nodes, result, graph.branch.constants)


def _pictures(context: StepContext, name: Split) -> NDArray[np.uint8]:
    """Raises NoExtra where there are too few."""
    try:
        split = context.data.split(context.loaded, name)
    except DataRefused as error:
        raise NoExtra(f"what is familiar is fitted on {name} pictures: {error}") from error
    reason = too_few(name, len(set(split.image_sha256)))
    if reason:
        raise NoExtra(reason)
    return split.images


def _statistics(graph: _Graph, task: Task, images: NDArray[np.uint8]) -> str:
    """Adds nodes up to one vector per image, and returns its name. Raises NoExtra."""
    vector = vector_of(graph.model, task)
    if vector is not None:
        vector = graph.read(vector)
        rank = graph.values([vector.tensor], images[:1])[0].ndim
        axes = [axis for axis in range(1, rank) if axis != vector.axis % rank]
        return graph.branch.mean(vector.tensor, axes) if axes else vector.tensor
    found = features_of(graph.model)
    count = graph.batch_size if graph.batch_size == 1 else 2
    read = graph.values([each.tensor for each in found], images[:count]) if found else []
    shapes = [array.shape for array in read]
    maps = [graph.read(each) for each in deepest(dict(zip(found, shapes, strict=True)), count)]
    if not maps:
        raise NoExtra("no layer of the network reads a feature map, from which unfamiliar pictures could be told")
    arrays = graph.values([each.tensor for each in maps], images[:_MAP_PICTURES])
    parts = [
        graph.map_statistics(
            each, array[0].size // array.shape[each.axis], fit_positions(_at_positions(array, each.axis))
        )
        for each, array in zip(maps, arrays, strict=True)
    ]
    return graph.branch.add("Concat", *chain.from_iterable(parts), axis=1)


def _at_positions(maps: NDArray[np.float32], axis: int) -> FloatArray:
    """The features (n, channels) of some positions, always the same."""
    rows = np.moveaxis(maps, axis, -1).reshape(-1, maps.shape[axis])
    chosen = np.random.default_rng(0).permutation(len(rows))[:_MAP_SAMPLES]
    return rows[np.sort(chosen)].astype(np.float64)


class _Graph:
    """Adds the nodes of a branch to a variant's graph, and runs them on pictures as the file would."""

    def __init__(self, model: onnx.ModelProto, context: StepContext) -> None:
        self.model = model
        self.batch_size = context.recipe.qualify.evaluate_batch_size
        self._context = context
        self._view = GraphView(model)
        opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        self.branch = BranchNodes(ExtraKind.TRUST, opset)

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        return self.branch.constant(f"constant_{len(self.branch.constants)}", np.asarray(values, dtype))

    def read(self, feature: Feature) -> Feature:
        """The same feature, read in nobody's way."""
        return replace(feature, tensor=self.branch.float_side(self._view, feature.tensor))

    def distance(self, vectors: str, fitted: Whitening | LowRank) -> str:
        """The distance of each vector (n, features), (n,)."""
        add, squares = self.branch.add, self.branch.squares
        if isinstance(fitted, Whitening):
            white = add("Gemm", vectors, self.constant(fitted.weights), self.constant(fitted.bias))
            return self.branch.length(white, [1])
        scaled = add("Mul", add("Sub", vectors, self.constant(fitted.mean)), self.constant(fitted.scale))
        along = add("MatMul", scaled, self.constant(fitted.directions))
        whole = add("Mul", squares(scaled, [1]), self.constant(fitted.spherical))
        return add("Sqrt", add("Max", add("Sub", whole, squares(along, [1])), self.constant(0.0)))

    def map_statistics(self, feature: Feature, positions: int, fitted: Whitening) -> list[str]:
        """The mean and the maximum, over positions, of the logarithm of the squared distance, each (n, 1)."""
        add = self.branch.add
        if feature.axis == 1:
            weights = fitted.weights.T[:, :, None, None]
            step = 2 if positions >= _MANY_POSITIONS else 1
            constants = self.constant(weights), self.constant(fitted.bias)
            white = add("Conv", feature.tensor, *constants, strides=[step, step])
        else:
            product = add("MatMul", feature.tensor, self.constant(fitted.weights))
            white = add("Add", product, self.constant(fitted.bias))
        squared = self.branch.squares(white, [feature.axis], keeps=True)
        flat = add("Reshape", squared, self.constant([0, -1], np.int64))
        logarithms = add("Log", flat)
        return [self.branch.mean(logarithms, [1], keeps=True), self.branch.maximum(logarithms, [1], keeps=True)]

    def values(self, tensors: Sequence[str], images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """What the tensors are for these images. Side effect: writes a file beside the variant's while it runs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.node.extend(self.branch.nodes)
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in self.branch.constants.items()
        )
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
        file = self._context.out / "features.onnx"
        save_graph(model, file)
        options = quiet_options()
        options.intra_op_num_threads = usable_threads(self._context.recipe.qualify.threads)
        session = cpu_session(file, options)
        file.unlink()
        name = session.get_inputs()[0].name
        parts = [session.run(list(tensors), {name: batch}) for batch in batches(images, self.batch_size)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
