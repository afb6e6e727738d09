"""Takes over a graph whose weights are int8 already; nothing is calibrated, and there is no float network."""

from __future__ import annotations

import os

import onnx
import orjson

from saccade.export.artifact import Detail
from saccade.export.graph.large_files import hand_on_weights, load_graph, save_graph
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.precision.effective_precision import layer_precisions, layers_of_network
from saccade.export.precision.files import LAYERS_FILE, weights_name, write_bare
from saccade.export.steps import StepContext


def make_ready(context: StepContext) -> Detail:
    """Writes the graph as it is, and the table of its layers. Raises GraphError when a layer's size is unknown."""
    assert context.variant is not None
    source = context.inputs["onnx_optimization"].file(MODEL_FILE)
    model = load_graph(source)
    hand_on_weights(model, source.parent, context.out, weights_name(context.variant))
    write_bare(model, context.out)
    save_graph(model, context.out / MODEL_FILE)
    # checked by its path, because weights may lie beside it
    onnx.checker.check_model(os.fspath(context.out / MODEL_FILE))
    layers = layers_of_network(model, layer_precisions(model))
    rows = [
        {
            "layer": each.layer,
            "node": each.node,
            "op": each.op,
            "quantized": each.precision == "int8",
            "reason": "" if each.precision == "int8" else "float in the file, or in front of it",
        }
        for each in layers
    ]
    (context.out / LAYERS_FILE).write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    return {
        "precision": "int8",
        "quantized": f"by the file already ({context.loaded.quantized})",
        "quantized_weighted_nodes": sum(bool(row["quantized"]) for row in rows),
        "weighted_nodes": len(rows),
    }
