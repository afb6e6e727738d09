"""Names ONNX nodes `<layer>/<operator>` after the torch layers they come from; names are unique and reproducible.

Refusals, quantized nodes and profiles can then name the layer.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx

_SCOPES_KEY = "pkg.torch.onnx.name_scopes"  # a list: the module path, growing part by part, then the traced operator


def name_nodes_after_layers(model: onnx.ModelProto) -> None:
    """Renames from torch's provenance, so it must run before that is dropped; other nodes keep their names."""
    bases = [_layer_of(node) for node in model.graph.node]
    used: Counter[str] = Counter()
    for node, layer in zip(model.graph.node, bases, strict=True):
        name = f"{layer}/{node.op_type}" if layer else node.name or node.op_type
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"


def _layer_of(node: onnx.NodeProto) -> str:
    for prop in node.metadata_props:
        if prop.key == _SCOPES_KEY:
            try:
                scopes = ast.literal_eval(prop.value)
            except (SyntaxError, ValueError):
                return ""
            return str(scopes[-2]) if len(scopes) >= 2 else ""
    return ""
