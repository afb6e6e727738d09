"""What a variant's network itself gives, before the answer head: logits of classifiers and segmenters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from saccade.export.data.image_split import batches
from saccade.export.graph.large_files import load_graph, weight_files
from saccade.export.graph.onnx_graph import network_outputs
from saccade.export.graph.sessions import cpu_session, quiet_options
from saccade.export.qualification.benchmark import usable_threads
from saccade.export.recipe import Recipe

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float64]]  # images to (n, classes, ...)


def logits_reader(file: Path, recipe: Recipe) -> Logits | None:
    """Opens a variant's file once; None where weights lie beside it.

    Probabilities are given as their logarithms, which are logits too.
    """
    if weight_files(file):
        return None
    model = load_graph(file)
    name = network_outputs(model)[0]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = quiet_options()
    options.intra_op_num_threads = usable_threads(recipe.qualify.threads)
    session = cpu_session(model.SerializeToString(), options)

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts: list[NDArray[Any]] = [
            session.run([name], {"images": batch})[0] for batch in batches(images, recipe.qualify.evaluate_batch_size)
        ]
        found = np.concatenate(parts).astype(np.float64)
        is_share = found.min() >= 0.0 and np.allclose(found.sum(1), 1.0, atol=1e-3)
        return np.log(np.maximum(found, 1e-30)) if is_share else found

    return logits
