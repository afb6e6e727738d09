"""Builds TensorRT plans, strongly typed; every refusal names its node and layer.

One code path serves `tensorrt` (10.16 and later, 11) and `tensorrt_rtx`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from saccade.export.plans.build_log import ParserError, builder_error, listening
from saccade.export.plans.network import NetworkLayer, Parsed, network_layers, parser_errors, refusal_text
from saccade.export.plans.profile import BatchProfile, add_profile, profile_batches
from saccade.export.plans.progress import BuildMonitor, BuildProgress, tensorrt_monitor
from saccade.export.plans.runtime import (
    CURRENT,
    DEFAULT_CAPABILITIES,
    choose_capabilities,
    find_tensorrt,
    required_tensorrt,
)
from saccade.export.plans.timings import timings_of, use_timings

__all__ = [
    "CURRENT",
    "DEFAULT_CAPABILITIES",
    "NetworkLayer",
    "ParserError",
    "PlanReport",
    "build_plan",
    "find_tensorrt",
    "network_layers",
    "parser_errors",
    "refusal_text",
]


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The outcome of a build; `plan` is None exactly when `errors` says why."""

    plan: bytes | None
    seconds: float
    layers: int  # layers of the parsed network
    dtypes: Mapping[str, int]  # layers by type; the plan is strongly typed, so it computes in these
    errors: tuple[ParserError, ...]
    warnings: tuple[str, ...]
    network: tuple[NetworkLayer, ...] = field(default=(), repr=False)
    batches: BatchProfile = (0, 0, 0)  # batch sizes that the plan takes: smallest, tuned for, largest
    timings: bytes = field(default=b"", repr=False)  # for the next build; empty where the runtime measures nothing

    @property
    def plan_bytes(self) -> int:
        return 0 if self.plan is None else len(self.plan)


def build_plan(
    model: bytes | Path,
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES,
    allowed_batch_sizes: Sequence[int] = (1, 8, 16),
    runtime: str | None = None,
    *,
    is_sparse: bool = False,
    timings: bytes = b"",
    progress: BuildProgress | None = None,
) -> PlanReport:
    """Builds a plan that takes every allowed batch size and runs on every one of `capabilities`.

    `tensorrt` builds for the GPU at hand whatever the capabilities say; CURRENT asks `tensorrt_rtx` for the same.
    `is_sparse` lets it choose kernels for 2:4 weights, `timings` come from an earlier build, `progress` hears how far
    the build is and may end it. Raises GraphError when no TensorRT is installed or a compute capability is unknown to
    it, BuildCancelled when `progress` ended it.
    """
    tensorrt = required_tensorrt(runtime)
    batches = profile_batches(allowed_batch_sizes)
    start = time.perf_counter()
    parsed = Parsed(model, tensorrt)
    if parsed.errors:
        return PlanReport(None, time.perf_counter() - start, 0, {}, parsed.errors, parsed.warnings)
    config = _config(parsed, tensorrt, capabilities, is_sparse=is_sparse)
    reached = add_profile(parsed.builder, parsed.network, config, batches)
    use_timings(config, tensorrt, timings)
    network = parsed.network_layers()  # before the build, which may remove layers
    dtypes = parsed.dtypes()
    monitor = None if progress is None else BuildMonitor(progress)
    with listening(tensorrt) as heard:
        plan = _built(parsed, config, tensorrt, monitor)
    if monitor is not None:
        monitor.ensure_went_on()
    errors = () if plan is not None else (builder_error(heard.errors, parsed.layers, parsed.operators),)
    return PlanReport(
        plan=plan,
        seconds=time.perf_counter() - start,
        layers=len(network),
        dtypes=dtypes,
        errors=errors,
        warnings=tuple(dict.fromkeys((*parsed.warnings, *heard.shown_warnings()))),
        network=network,
        batches=reached,
        timings=timings_of(config, tensorrt),
    )


def _config(parsed: Parsed, tensorrt: ModuleType, capabilities: Sequence[str], *, is_sparse: bool) -> Any:
    config = parsed.builder.create_builder_config()
    choose_capabilities(config, tensorrt, capabilities)
    # Costs a few bytes per layer; without it the plan cannot say in which types it computes.
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    # TF32 is on by default; it would cut the inputs of fp32 products to ten bits, so such a plan would not be fp32.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    if is_sparse:
        config.set_flag(tensorrt.BuilderFlag.SPARSE_WEIGHTS)
    # TensorRT for RTX captures CUDA graphs only of plans that allocate nothing themselves (its release notes); the
    # server gives every context its memory anyway.
    user_allocation = getattr(tensorrt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if user_allocation is not None:
        config.set_flag(user_allocation)
    return config


def _built(parsed: Parsed, config: Any, tensorrt: ModuleType, monitor: BuildMonitor | None) -> bytes | None:
    told = None if monitor is None else tensorrt_monitor(tensorrt, monitor)
    if told is not None:
        config.progress_monitor = told
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    return None if plan is None else bytes(plan)
