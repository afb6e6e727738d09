"""Decoding JPEGs on the GPU by itself, for the stage `limits`: speed and pixels of each of nvImageCodec's engines.

It is the very measurement that a worker makes at load. What is not faithful is measured too, and never serves.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from tests.load.gpu_networks import BenchNetwork
from tests.load.gpu_rows import Place
from tests.load.gpu_stages import Bench
from tests.support.gpu_machine import GPU, NVIMGCODEC, SERVER

ENGINES = ("hardware", "hybrid", "gpu")
_THREADS = 4  # of the library, for the engines that use the processor


def run_device_decoding(bench: Bench) -> None:
    """One row per engine and network; nothing on a CPU."""
    if bench.device == "cpu":
        return
    missing = bench.machine.missing((GPU, SERVER, NVIMGCODEC))
    for network in bench.networks:
        for engine in ENGINES:
            place = Place("limits", network.name, runtime=f"nvImageCodec {engine}")
            bench.measure(place, missing, partial(_engine_row, network, engine))


def _alone() -> AbstractContextManager[None]:
    return nullcontext()


def _engine_row(network: BenchNetwork, engine: str) -> dict[str, Any]:
    from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
    from saccade.service.worker.gpu_jpeg.choice import unfaithfulness
    from saccade.service.worker.gpu_jpeg.selection import device_openers
    from saccade.service.worker.gpu_jpeg.self_check import device_images_per_s, fidelity_of

    decoder = device_openers(RuntimeDriver(), 0, _THREADS, "gpu")[engine]()
    try:
        fidelity = fidelity_of(decoder, network.preprocess, _alone)
        return {
            "images_per_s": round(device_images_per_s(decoder, network.preprocess, _alone), 1),
            "picture": "500x375",
            "worst_share": round(fidelity.worst_share, 6),
            "worst_image": fidelity.worst_image,
            "may_serve": "yes" if not unfaithfulness(fidelity) else "no",
            "problem": fidelity.problem,
        }
    finally:
        decoder.close()
