"""Publishes prepared networks for `make bench-gpu`. Promises: a version the server loads, and it says what it is.

Such a version never passed a gate: its weights are random. Its only check says so, and it lies in a repository of the
benchmark's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saccade.models.contract.manifest import (
    FileEntry,
    GateCheck,
    GateDecision,
    Lineage,
    Manifest,
    MeasuredDevice,
    MetricFigure,
    Variant,
    manifest_bytes,
)
from saccade.models.contract.specs import Task, input_tensor, output_tensors
from tests.load.gpu_networks import BenchNetwork
from tests.load.gpu_prepare import prepared_facts

_TARGETS = {"fp32": "any", "fp16": "gpu", "fp16-sparse24": "gpu"}  # others: TensorRT only
_METRICS = {Task.CLASSIFY: "top1", Task.DETECT: "map", Task.SEGMENT: "miou"}
NOT_GATED = GateDecision(
    accepted=True,
    checks=(
        GateCheck(
            name="benchmark",
            passed=True,
            value="random weights",
            limit=None,
            detail="published to measure speed; no gate has judged it",
        ),
    ),
)


class NotPrepared(Exception):
    """The exporter's part was not done; the message says how to do it."""


def published(network: BenchNetwork, directory: Path, repository: Path, *, everywhere: Iterable[str] = ()) -> Path:
    """The version directory of a prepared network; made anew when its files changed.

    `everywhere` names variants that count as runnable by any backend: a CPU's self-check serves int8 with those.
    Raises NotPrepared when there are no files of it.
    """
    facts = prepared_facts(directory, network)
    if facts is None:
        raise NotPrepared(f"{directory / network.name} holds no ONNX files: run with --prepare {directory}")
    final = repository / network.name / "1"
    content = manifest_bytes(bench_manifest(network, facts, frozenset(everywhere)))
    if final.exists() and (final / "manifest.json").read_bytes() == content:
        return final
    shutil.rmtree(final, ignore_errors=True)
    building = final.parent / ".building-1"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for variant in made_variants(facts):
        _place(directory / network.name / f"{variant}.onnx", building / f"{variant}.onnx")
    (building / "manifest.json").write_bytes(content)
    building.rename(final)
    return final


def made_variants(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those that the exporter made, with what it said of them."""
    return {name: row for name, row in facts["variants"].items() if "not_made" not in row}


def bench_manifest(network: BenchNetwork, facts: dict[str, Any], everywhere: frozenset[str]) -> Manifest:
    metric = MetricFigure(name=_METRICS[network.task.task], value=0.0, ci_low=0.0, ci_high=0.0, split="none", images=1)
    made = made_variants(facts)
    is_batchable = bool(facts["batchable"])
    variants = tuple(
        Variant.model_validate(
            {
                "name": name,
                "precision": name.partition("-")[0],
                "sparsity": "two_four" if name.endswith("-sparse24") else "dense",
                "target": "any" if name in everywhere else _TARGETS.get(name, "trt"),
                "file": f"{name}.onnx",
                "metric": metric,
                "latency": (),
                "measured_on": MeasuredDevice(kind="cuda", name="not measured yet", threads=1),
                "detail": {"weights": facts["weights"], "calibration": facts["calibration"]},
                "gate": NOT_GATED,
            }
        )
        for name in made
    )
    return Manifest(
        model=network.name,
        version=1,
        created="2026-01-01T00:00:00Z",
        source=facts["source"],
        weights="random",
        task=network.task,
        labels=network.labels,
        preprocess=network.preprocess,
        input=input_tensor(network.preprocess),
        outputs=output_tensors(network.task, network.preprocess),
        batchable=is_batchable,
        not_batchable_reason=facts["not_batchable_reason"],
        allowed_batch_sizes=network.batch_sizes if is_batchable else (1,),
        reference_metric=metric,
        variants=variants,
        files=tuple(
            FileEntry(path=f"{name}.onnx", size_bytes=row["bytes"], sha256=row["sha256"]) for name, row in made.items()
        ),
        lineage=(Lineage(step="bench", digest="0" * 64, tool="tests.load.gpu_prepare"),),
    )


def _place(source: Path, target: Path) -> None:
    """Without a copy where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
