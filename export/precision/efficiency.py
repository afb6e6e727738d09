"""Computes how well a network uses the machine: counts from the shipped graph, against a peak measured on the machine.

FLOPs alone do not predict speed; activations do better (Fast and Accurate Model Scaling), and the share of the peak
that a network reaches shows what is left to gain (On the Efficiency of Convolutional Neural Networks).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from saccade.export.graph.sessions import cpu_session, quiet_options
from saccade.export.precision.effective_precision import LayerPrecision, share_in
from saccade.export.variants import Precision
from saccade.models.contract.manifest import LatencyFigure
from saccade.models.contract.specs import Frozen

# sides of square matrices: small ones fit caches and time slices, large ones occupy many threads
_PEAK_SIDES = (384, 512, 1024)
_PEAK_BUDGET_S = 0.3  # seconds per type and side
_MIN_PEAK_RUNS = 5
_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}


class MeasuredPeak(Frozen):
    """The fastest square matrix products of this machine, with the same runtime and as many threads."""

    threads: int = Field(ge=1)
    gflops_per_s: dict[Precision, float]  # types without a kernel on this machine are absent


class Efficiency(Frozen):
    """One variant's cost per image and how fast the machine ran it; None: no such device was there to measure on."""

    gflops_per_image: float
    activations_m: float  # millions of outputs of weighted layers per image
    weights_m: float  # millions
    share_of_flops: dict[Precision, float]
    batch_size: int | None = None  # the batch size with most images per second
    # at that batch size: weights are read once, activations written once and read once
    flops_per_byte: float | None = None
    achieved_gflops_per_s: float | None = None
    share_of_peak: float | None = None  # time at peak, each type at its own, divided by the time taken


def efficiency_of(
    layers: Sequence[LayerPrecision], latency: Sequence[LatencyFigure], peak: MeasuredPeak | None
) -> Efficiency:
    """Returns the efficiency at the best measured batch.

    Pass no latency for files that were only emulated here, not measured on their own device.
    """
    flops = sum(layer.flops for layer in layers)
    precisions = sorted({layer.precision for layer in layers})
    counted = Efficiency(
        gflops_per_image=flops / 1e9,
        activations_m=sum(layer.activations for layer in layers) / 1e6,
        weights_m=sum(layer.weights for layer in layers) / 1e6,
        share_of_flops={precision: share_in(layers, precision) for precision in precisions},
    )
    if not latency:
        return counted
    best = max(latency, key=lambda figure: figure.images_per_s)
    at_peak = None if peak is None else seconds_at_peak(layers, peak)
    return counted.model_copy(
        update={
            "batch_size": best.batch_size,
            "flops_per_byte": flops_per_byte(layers, best.batch_size),
            "achieved_gflops_per_s": flops * best.images_per_s / 1e9,
            "share_of_peak": None if at_peak is None else at_peak * best.images_per_s,
        }
    )


def seconds_at_peak(layers: Sequence[LayerPrecision], peak: MeasuredPeak) -> float | None:
    """Returns the time of one image if every layer ran at its type's peak; None when a type's peak is unknown."""
    if any(layer.precision not in peak.gflops_per_s for layer in layers):
        return None
    return sum(layer.flops / (peak.gflops_per_s[layer.precision] * 1e9) for layer in layers)


def flops_per_byte(layers: Sequence[LayerPrecision], batch_size: int) -> float:
    """Arithmetic intensity of a batch: weights are read once per batch, activations written once and read once."""
    weights = sum(layer.weights * _BYTES[layer.precision] for layer in layers)
    activations = sum(2 * layer.activations * _BYTES[layer.precision] for layer in layers)
    moved = weights + batch_size * activations
    return batch_size * sum(layer.flops for layer in layers) / moved if moved else 0.0


@functools.cache
def measured_peak(threads: int) -> MeasuredPeak:
    """Measures the peak; the first call in a process multiplies matrices for about two seconds, later ones do not."""
    rates = {
        precision: max(
            2 * side**3 / shortest_s(_product(precision, side, threads), _PEAK_BUDGET_S) / 1e9 for side in _PEAK_SIDES
        )
        for precision in ("fp32", "int8")
    }
    return MeasuredPeak(threads=threads, gflops_per_s={"fp32": rates["fp32"], "int8": rates["int8"]})


def shortest_s(run: Callable[[], object], budget_s: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Returns the duration of the fastest run, because other work on the machine only adds time."""
    run()
    seconds: list[float] = []
    deadline = clock() + budget_s
    while len(seconds) < _MIN_PEAK_RUNS or clock() < deadline:
        start = clock()
        run()
        seconds.append(clock() - start)
    return min(seconds)


def _product(precision: str, side: int, threads: int) -> Callable[[], object]:
    """Returns a product with a constant matrix: fp32, or uint8 with int8 into int32."""
    rng = np.random.default_rng(0)
    shape = (side, side)
    if precision == "fp32":
        left: NDArray[Any] = rng.normal(0, 1, shape).astype(np.float32)
        right: NDArray[Any] = rng.normal(0, 1, shape).astype(np.float32)
        op, kinds = "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT)
    else:
        left = rng.integers(0, 256, shape, dtype=np.uint8)
        right = rng.integers(-127, 128, shape, dtype=np.int8)
        op, kinds = "MatMulInteger", (TensorProto.UINT8, TensorProto.INT32)
    graph = helper.make_graph(
        [helper.make_node(op, ["left", "right"], ["product"])],
        "peak",
        [helper.make_tensor_value_info("left", kinds[0], shape)],
        [helper.make_tensor_value_info("product", kinds[1], shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    options = quiet_options()
    options.intra_op_num_threads = threads
    session = cpu_session(model.SerializeToString(), options)
    return lambda: session.run(None, {"left": left})
