"""The stage `reference` of `make bench-gpu`: a network alone in torch, its tensors on the device.

It says what the device can do, beside what the runtimes of the server reach: fp16, channels last, no copies, no
decoding of answers. `eager` runs operator by operator; `reduce-overhead` is torch.compile with CUDA graphs.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Literal

from tests.load.gpu_networks import BenchNetwork, ready_network
from tests.load.gpu_rows import Place
from tests.load.gpu_stages import Bench
from tests.support.gpu_machine import GPU, TORCH_CUDA

How = Literal["eager", "reduce-overhead"]
HOWS: tuple[How, ...] = ("eager", "reduce-overhead")
_SIZES = (64, 256)
_WARM_RUNS = 3  # reduce-overhead compiles in the first and captures in the second
_RUNS_PER_WAIT = 8  # the device has work while Python goes round


def run_reference(bench: Bench) -> None:
    """Images per second of each network in each way; nothing on a CPU."""
    if bench.device == "cpu":
        return
    missing = bench.machine.missing((GPU, TORCH_CUDA))
    for network in bench.networks:
        for how in HOWS:
            for size in reference_sizes(network):
                place = Place("reference", network.name, "fp16", f"torch {how}", size)
                bench.measure(place, missing, partial(_reference_row, network, how, size, bench.case_s))


def reference_sizes(network: BenchNetwork) -> tuple[int, ...]:
    """Two usual ones, or the largest of a network that takes neither."""
    return tuple(size for size in _SIZES if size in network.batch_sizes) or network.batch_sizes[-1:]


def _reference_row(network: BenchNetwork, how: How, batch: int, seconds: float) -> dict[str, Any]:
    import torch

    module, source = ready_network(network)
    run: Any = module if network.method == "forward" else getattr(module, network.method)
    module.cuda().half().to(memory_format=torch.channels_last)
    if how == "reduce-overhead":
        run = torch.compile(run, mode=how, dynamic=False)
    try:
        found, first_s = _images_per_s(run, network, batch, seconds)
    finally:
        torch.compiler.reset()
        torch.cuda.empty_cache()
    return {"images_per_s": round(found, 1), "first_run_s": round(first_s, 2), "source": source}


def _images_per_s(run: Any, network: BenchNetwork, batch: int, seconds: float) -> tuple[float, float]:
    """And how long the first run took, which is where a compiler compiles."""
    import torch

    shape = (batch, 3, network.preprocess.height, network.preprocess.width)
    images = torch.rand(shape, device="cuda", dtype=torch.float16).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        start_s = time.perf_counter()
        run(images)
        torch.cuda.synchronize()
        first_s = time.perf_counter() - start_s
        for _ in range(_WARM_RUNS):
            run(images)
        torch.cuda.synchronize()
        start_s, done, is_over = time.perf_counter(), 0, False
        while not is_over:
            for _ in range(_RUNS_PER_WAIT):
                run(images)
            torch.cuda.synchronize()
            done += _RUNS_PER_WAIT * batch
            is_over = time.perf_counter() - start_s >= seconds
    return done / (time.perf_counter() - start_s), first_s
