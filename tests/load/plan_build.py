"""Time of TensorRT plan builds.

    python -m tests.load.plan_build
    python -m tests.load.plan_build --profiles FILE.onnx    one optimization profile against one per batch size

ResNet-50 with random weights through the exporter's own steps, once, into a work folder; then one plan per variant and
compute capability with TensorRT for RTX, which needs no GPU. Nothing is opened or run: this is what CI can measure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.load.compression_flow import recipe_document
from tests.load.export_memory import forget_peak, peak_bytes

_CAPABILITIES = ("SM80", "SM89", "SM120")
_VARIANTS = ("fp16", "int8-trt", "int8-trt-sparse24")
_BATCHES = (1, 2, 4, 8, 16, 32)
_LIMITED = "int8-trt"  # the variant that the limit is about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".saccade/plan_build"), help="keeps the graphs")
    parser.add_argument("--limit-seconds", type=float, default=20.0, help="exit 1 when int8 takes longer for all three")
    parser.add_argument("--permutation-seconds", type=float, default=20.0, help="most time for the order of channels")
    parser.add_argument("--profiles", type=Path, help="what optimization profiles cost for this file")
    arguments = parser.parse_args()
    if arguments.profiles is not None:
        _compare_profiles(arguments.profiles)
        return
    graphs = _graphs(arguments.work, arguments.permutation_seconds)
    totals = {variant: _build(variant, graphs[variant]) for variant in _VARIANTS}
    count, limit = len(_CAPABILITIES), arguments.limit_seconds
    print(f"{_LIMITED}: {totals[_LIMITED]:.1f} s for {count} architectures, allowed {limit:g}")
    sys.exit(totals[_LIMITED] > arguments.limit_seconds)


def _graphs(work: Path, permutation_seconds: float) -> dict[str, Path]:
    """The variants' files, made by the pipeline unless they are there. Raises SystemExit when a step fails."""
    from saccade.export.data.datasets import DataStore
    from saccade.export.graph.onnx_graph import MODEL_FILE
    from saccade.export.pipeline import Listener, RunSettings, run_pipeline
    from saccade.export.recipe import load_recipe

    work.mkdir(parents=True, exist_ok=True)
    recipe = work / "resnet50.yaml"
    recipe.write_text(yaml.safe_dump(recipe_document(permutation_seconds, ("fp32", *_VARIANTS))))
    listener = Listener(
        started=lambda name: None,
        noted=lambda text: None,
        finished=lambda result: print(f"{result.step:34} {result.status:6} {result.seconds:6.1f} s", flush=True),
    )
    made = {}
    for variant in _VARIANTS:
        settings = RunSettings(work / "work", work / "repository", until=f"precision.{variant}")
        results = run_pipeline(load_recipe(recipe), settings, DataStore(), listener)
        if results[-1].artifact is None:
            sys.exit(f"{results[-1].step} failed: {results[-1].detail['error']}")
        made[variant] = results[-1].artifact
    return {variant: artifact.file(MODEL_FILE) for variant, artifact in made.items()}


def _build(variant: str, graph: Path) -> float:
    """Prints one line per architecture; seconds of all of them."""
    from saccade.export.plans.precision_claim import precision_claim
    from saccade.export.plans.tensorrt_from_onnx import build_plan, refusal_text
    from saccade.export.variants import TRAITS

    traits = {str(name): traits for name, traits in TRAITS.items()}[variant]
    total = 0.0
    for capability in _CAPABILITIES:
        forget_peak()
        made = build_plan(graph, (capability,), _BATCHES, "tensorrt_rtx", is_sparse=traits.form == "sparse24")
        if made.plan is None:
            sys.exit(f"{variant} {capability}: {refusal_text(made.errors[0])}")
        total += made.seconds
        claim = precision_claim(graph, traits.precision, made.network)
        print(
            f"{variant:18} {capability:6} {made.seconds:6.2f} s {made.plan_bytes / 1e6:7.2f} MB  "
            f"{claim.in_network:6.1%} of multiply-adds in {claim.asked} (file {claim.in_file:.1%})  "
            f"peak {peak_bytes() / 2**30:.2f} GiB  {_counted(made.dtypes)}",
            flush=True,
        )
    return total


def _compare_profiles(graph: Path) -> None:
    """Prints processor time and size of a plan with one profile for all batch sizes, and with one for each."""
    from saccade.export.plans import tensorrt_from_onnx as builder
    from saccade.export.plans.network import Parsed
    from saccade.export.plans.profile import add_profile, profile_batches

    tensorrt = builder.required_tensorrt("tensorrt_rtx")
    for profiles in ([profile_batches(_BATCHES)], [(size, size, size) for size in _BATCHES]):
        parsed = Parsed(graph, tensorrt)
        config = builder._config(parsed, tensorrt, _CAPABILITIES[:1], is_sparse=False)
        for profile in profiles:
            add_profile(parsed.builder, parsed.network, config, profile)
        start_s = time.process_time()
        plan = builder._built(parsed, config, tensorrt, None)
        seconds = time.process_time() - start_s
        print(f"{len(profiles)} profiles: {seconds:.2f} s of processor time, {len(plan or b'') / 1e6:.1f} MB")


def _counted(dtypes: Mapping[str, int]) -> str:
    return " ".join(f"{kind} {count}" for kind, count in sorted(dtypes.items()))


if __name__ == "__main__":
    main()
