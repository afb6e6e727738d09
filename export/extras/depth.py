"""Says whether a map lies deep enough in a network to explain its answer, and not the pixels alone."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.export.extras.feature_maps import FeatureMap
from saccade.export.extras.graph_view import GraphView
from saccade.export.extras.token_grid import CONVOLUTIONS

_LEAST_DEPTH = 0.25  # of the layers one behind another; the patches of a transformer of two blocks have 0.07
_LAYERS = CONVOLUTIONS | {"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "QGemm", "Einsum", "LSTM", "GRU", "RNN"}


def is_deep(view: GraphView, outputs: Sequence[str], maps: Sequence[FeatureMap]) -> bool:
    """Whether the deepest map has a quarter of the network's layers in front of it, on the longest way."""
    depths: dict[str, int] = {}
    for node in view.ancestors(outputs):
        depth = max((depths.get(name, 0) for name in node.input), default=0) + (node.op_type in _LAYERS)
        depths.update(dict.fromkeys(node.output, depth))
    deepest = max((depths.get(each.tensor, 0) for each in maps), default=0)
    return deepest >= _LEAST_DEPTH * max((depths.get(name, 0) for name in outputs), default=0)


def is_attended_later(view: GraphView, outputs: Sequence[str], features: FeatureMap) -> bool:
    """Whether more layers of attention follow a map than lie in front of it."""
    before = _attentions(view, [features.tensor])
    return _attentions(view, outputs) > 2 * before


def _attentions(view: GraphView, outputs: Sequence[str]) -> int:
    """Attention is a Softmax over more than a vector per image, or the operator itself."""
    return sum(
        node.op_type == "Attention" or (node.op_type == "Softmax" and len(view.shape(node.output[0])) > 1)
        for node in view.ancestors(outputs)
    )
